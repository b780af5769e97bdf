package main

import (
	"context"
	"errors"
	"strings"
	"testing"
)

func TestBodies(t *testing.T) {
	const nothing = "; nothing was changed"
	empty := "request body: empty, as when the engine repeats a call whose answer it lost" + nothing
	for _, c := range []struct {
		name, body string
		status     int
		err        string
	}{
		{"object", `{"Count":3}`, 200, ""},
		{"unknown field of a newer engine", `{"Count":3,"Exclude":["10.0.0.0/8"]}`, 200, ""},
		{"space around", "\n {\"Count\":3} \n", 200, ""},
		{"empty", "", 400, empty},
		{"white space", " \n", 400, empty},
		{"truncated", `{"Count":3`, 400, "request body: unexpected EOF" + nothing},
		{"garbage", "\x00\x01", 400, "request body: not a JSON object" + nothing},
		{"null", "null", 400, "request body: not a JSON object" + nothing},
		{"array", `[{"Count":3}]`, 400, "request body: not a JSON object" + nothing},
		{"two objects", `{"Count":3}{"Count":4}`, 400, "request body: data after the JSON object" + nothing},
		{"wrong type", `{"Count":"three"}`, 400,
			"request body: json: cannot unmarshal string into Go struct field echoRequest.Count of type int" + nothing},
		{"2 MiB, as of 16384 published ports", `{"Count":3,"Options":"` + strings.Repeat("x", 2<<20) + `"}`, 200, ""},
		{"5 MiB", `{"NetworkID":"` + strings.Repeat("x", 5<<20) + `"}`, 413,
			"request body: larger than 4194304 bytes" + nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			var calls int
			r := start(t, quick(), echo(&calls))
			want, wantCalls := `{"Count":3}`, 1
			if c.err != "" {
				want, wantCalls = errText(t, c.err), 0
			}
			status, got := r.post(t, "T.Echo", c.body)
			if status != c.status || got != want {
				t.Errorf("got %d %s\nwant %d %s", status, got, c.status, want)
			}
			if calls != wantCalls {
				t.Errorf("driver was called %d times, want %d", calls, wantCalls)
			}
		})
	}
}

func TestBareCallTakesAnyBody(t *testing.T) {
	r := start(t, quick(), route{op: "Plugin.Activate", call: handleBare(activate)})
	for _, body := range []string{"", "{}", "null"} {
		status, got := r.post(t, "Plugin.Activate", body)
		if status != 200 || got != `{"Implements":["NetworkDriver","IpamDriver"]}` {
			t.Errorf("body %q: got %d %s", body, status, got)
		}
	}
}

func TestNoSuchCall(t *testing.T) {
	var calls int
	r := start(t, quick(), echo(&calls))
	status, got := r.post(t, "NetworkDriver.Nonsense", "{}")
	if want := errText(t, "NetworkDriver.Nonsense: no such call; nothing was changed"); status != 404 || got != want {
		t.Errorf("got %d %s\nwant 404 %s", status, got, want)
	}
	resp, err := client(r.path).Get("http://plugin/T.Echo")
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != 405 || calls != 0 {
		t.Errorf("GET: got %d, driver called %d times; want 405, 0", resp.StatusCode, calls)
	}
}

func TestDriverError(t *testing.T) {
	r := start(t, quick(), doing("T.Fail", func(context.Context, *echoRequest) (*echoResponse, error) {
		return nil, errors.New("pf ens1f0: all 7 VFs are in use")
	}))
	status, got := r.post(t, "T.Fail", "{}")
	if want := `{"Err":"pf ens1f0: all 7 VFs are in use"}`; status != 500 || got != want {
		t.Errorf("got %d %s\nwant 500 %s", status, got, want)
	}
}
