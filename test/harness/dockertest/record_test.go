package dockertest

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// logOf is an engine's log with these events, one a second, among lines of its own.
func logOf(t *testing.T, all ...Event) string {
	t.Helper()
	var b strings.Builder
	for i, e := range all {
		e.TS = time.Unix(int64(i), 0).UTC()
		msg, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&b, `time="2026-11-21T12:00:00.1Z" level=info msg="API listen on /run/docker.sock"`)
		fmt.Fprintf(&b, "time=\"2026-11-21T12:00:01.2Z\" level=info msg=%s plugin=abc\n", strconv.Quote(string(msg)))
	}
	return b.String()
}

// reversed has the lines of a text in the reverse order.
func reversed(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		rest := b.String()
		b.Reset()
		b.WriteString(line + rest)
	}
	return b.String()
}

// said is a call that is answered with status 200.
func said(op, request, answer string) Event {
	return Event{Msg: spoken, Op: op, Request: request, Status: 200, Answer: answer}
}

// TestTranscripts: an engine's log with the plugin's and the notes in it becomes a transcript for each test, in the order of the
// times in it; nothing else of it does.
func TestTranscripts(t *testing.T) {
	network, endpoint, sandbox := strings.Repeat("0a", 32), strings.Repeat("1b", 32), strings.Repeat("2c", 6)
	ids := strings.NewReplacer("NET", network, "EP", endpoint, "BOX", sandbox)
	log := ids.Replace(logOf(t,
		said("NetworkDriver.GetCapabilities", "", `{"Scope":"local"}`),
		Event{Msg: noted, Test: "TestA"},
		Event{Msg: listening},
		Event{Msg: noted, Line: "$ docker ps"},
		Event{Msg: noted, Line: "$ docker run"},
		Event{Msg: "call", Op: "IpamDriver.RequestAddress"},
		said("IpamDriver.RequestPool", ``, `{"PoolID":"v1:77"}`),
		said("IpamDriver.RequestAddress", `{"PoolID":"v1:77"}`, `{"Address":"fe80::77/64"}`),
		Event{Msg: noted, Test: "TestA", Line: "! veth pt0 10.0.0.1/24"},
		said("NetworkDriver.Join", `{"NetworkID":"NET","EndpointID":"EP","SandboxKey":"/run/docker/netns/BOX"}`,
			`{"InterfaceName":{"SrcName":"pt0123456789ab","DstPrefix":"eth"}}`),
		Event{Msg: noted, Test: "TestB"},
		said("NetworkDriver.DeleteNetwork", `{"NetworkID":"NET"}`, `{}`),
		Event{Msg: noted, Test: "TestA"},
		Event{Msg: listening},
		said("NetworkDriver.Leave", `{"EndpointID":"EP"}`, `{}`),
		Event{Msg: spoken, Op: "NetworkDriver.CreateEndpoint", Request: `{}`, Status: 500,
			Err: `a "no" by ` + endpoint[:12] + ` since 2026-11-21 12:00:00 UTC by "c1"`},
		Event{Msg: noted, Test: "TestC", Line: "$ docker ps"},
	))
	want := map[string]string{
		"TestA": `! veth pt0 10.0.0.1/24

$ docker run
> IpamDriver.RequestPool
< {"PoolID":"$p1"}
> IpamDriver.RequestAddress {"PoolID":"$p1"}
< {"Address":"$a1/64"}
> NetworkDriver.Join {"NetworkID":"$n1","EndpointID":"$e1","SandboxKey":"/run/docker/netns/$s1"}
< {"InterfaceName":{"SrcName":"$d1","DstPrefix":"eth"}}
! move $e1 eth0
! restart
> NetworkDriver.Leave {"EndpointID":"$e1"}
! home $e1
! end $s1
> NetworkDriver.CreateEndpoint {}
< 500 {"Err":"a \"no\" by $E1 since ..."}
`,
		"TestB": "> NetworkDriver.DeleteNetwork {\"NetworkID\":\"$n1\"}\n",
	}
	for _, log := range []string{log, reversed(log)} {
		if diff := cmp.Diff(want, transcripts(events(log))); diff != "" {
			t.Error(diff)
		}
	}
}

// TestMoves: devices in a container are numbered as the engine does it, by prefix, and a number is used again; an exact name comes first.
func TestMoves(t *testing.T) {
	w := newWriter()
	w.joined("$e1", "$s1", "eth", "")
	w.joined("$e2", "$s1", "data", "")
	w.joined("$e3", "$s1", "eth", "")
	w.joined("$e4", "$s2", "too-long-for-a-name-", "fab7")
	w.left("$e1")
	w.joined("$e5", "$s1", "eth", "")
	for _, endpoint := range []string{"$e2", "$e3", "$e5", "$e5", "$e4"} {
		w.left(endpoint)
	}
	want := `! move $e1 eth0
! move $e2 data0
! move $e3 eth1
! move $e4 fab7
! home $e1
! move $e5 eth0
! home $e2
! home $e3
! home $e5
! end $s1
! home $e4
! end $s2
`
	if diff := cmp.Diff(want, w.text.String()); diff != "" {
		t.Error(diff)
	}
}

// TestTextEvents: the plugin's log as text has the events that it has as JSON.
func TestTextEvents(t *testing.T) {
	at := time.Date(2026, 11, 21, 12, 0, 0, 5e6, time.UTC)
	for line, want := range map[string]Event{
		`2026-11-21T12:00:00.005Z info listening version=1 socket=/run/p.sock`: {Msg: listening},
		`2026-11-21T12:00:00.005Z info stopped; containers keep their devices`: {Msg: "stopped; containers keep their devices"},
		`2026-11-21T12:00:00.005Z debug payload op=N.Join request='{"A":"it''s = x"}' status=200 answer={}`: {Msg: spoken, Op: "N.Join",
			Request: `{"A":"it's = x"}`, Status: 200, Answer: "{}"},
		`2026-11-21T12:00:00.005Z warn call op=N.Join dur=1ms outcome=error err='option vlan: "x" no'`: {Msg: "call", Op: "N.Join",
			Outcome: "error", Took: time.Millisecond, Err: `option vlan: "x" no`},
	} {
		want.TS = at
		log := fmt.Sprintf("time=\"2026-11-21T12:00:00Z\" level=error msg=%s plugin=abc\ntime=\"x\" level=info msg=%q\n", strconv.Quote(line), "API listen on x")
		if diff := cmp.Diff([]Event{want}, events(log)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", line, diff)
		}
	}
}
