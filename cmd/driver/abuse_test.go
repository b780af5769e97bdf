package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// dial opens a connection and writes to it.
func (r *rig) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c
}

// ended waits until the server has closed a connection, and returns what it has said before.
func ended(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("not closed within 10 s; it said %q", said)
	}
	return string(said)
}

// dribble writes text byte by byte until the server has enough of it or the test ends.
func dribble(c net.Conn, text string) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for i := range text {
		<-tick.C
		if _, err := c.Write([]byte{text[i]}); err != nil {
			return
		}
	}
}

// TestSlowClients: who does not get on with his request, or does not take his answer, is left after a while. Each such client
// is one at a time; a crowd of them is TestCrowd's.
func TestSlowClients(t *testing.T) {
	l := quick()
	l.header, l.body, l.idle, l.taking, l.handler = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	const post = "POST /T.Echo HTTP/1.1\r\nHost: p\r\n"
	endless := strings.Repeat("X-More: and more\r\n", 1000)
	for _, c := range []struct{ name, begin, then, want string }{ // want "": nothing, or that it is no request
		{"says nothing", "", "", ""},
		{"sends half a header", post, "", ""},
		{"sends its header little by little", "", post + endless, ""},
		{"sends half a body", post + "Content-Length: 100\r\n\r\n{", "", "HTTP/1.1 400 "},
		{"sends its body little by little", post + "Content-Length: 100000\r\n\r\n{", strings.Repeat(" ", 10000), "HTTP/1.1 400 "},
		{"promises chunks", post + "Transfer-Encoding: chunked\r\n\r\n5\r\n{", "", "HTTP/1.1 400 "},
		{"has nothing more to ask", post + "Content-Length: 2\r\n\r\n{}", "", "HTTP/1.1 200 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var calls int
			r := start(t, l, echo(&calls))
			conn := r.dial(t, c.begin)
			go dribble(conn, c.then)
			if said := ended(t, conn); !strings.HasPrefix(said, c.want) || c.want == "" && said != "" && !strings.HasPrefix(said, "HTTP/1.1 400 ") {
				t.Errorf("it was answered %q, want %q", said, c.want)
			}
		})
	}
	t.Run("does not take its answer", func(t *testing.T) {
		t.Parallel()
		huge := strings.Repeat("x", 4<<20) // more than a socket holds
		r := start(t, l, doing("T.Huge", func(context.Context, *echoRequest) (*echoResponse, error) {
			return &echoResponse{PoolID: huge}, nil
		}))
		conn := r.dial(t, "POST /T.Huge HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}")
		await(t, "the call to be given up", func() bool { return strings.Contains(r.log.String(), `"op":"T.Huge"`) })
		if said := ended(t, conn); len(said) >= len(huge) {
			t.Errorf("%d bytes were sent", len(said))
		}
	})
}

// TestOddRequests: what is no request that anybody would send is refused or answered as what it says, and no driver is asked
// about what is refused.
func TestOddRequests(t *testing.T) {
	const post = "POST /T.Echo HTTP/1.1\r\nHost: p\r\n"
	sized := func(body string) string { return fmt.Sprintf("%sContent-Length: %d\r\n\r\n%s", post, len(body), body) }
	deep := strings.Repeat(`{"Count":`, 100_000)
	for _, c := range []struct {
		name, request string
		status, calls int
		in            string
	}{
		{"no HTTP", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, 0, ""},
		{"a header of 1 MiB", post + "X: " + strings.Repeat("x", 1<<20) + "\r\n\r\n", 431, 0, ""},
		{"two lengths", post + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", 400, 0, ""},
		{"a negative length", post + "Content-Length: -1\r\n\r\n", 400, 0, ""},
		{"a length beyond all", post + "Content-Length: 99999999999999999999\r\n\r\n", 400, 0, ""},
		{"a promise of 8 EiB", post + "Content-Length: 9223372036854775807\r\n\r\n" + strings.Repeat(" ", bodyMax+1), 413, 0, "larger than 4194304 bytes"},
		{"a bad chunk", post + "Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400, 0, "invalid byte in chunk length"},
		{"a length and chunks", post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, 1, ""},
		{"a path out of here", "POST /../../etc/passwd HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}", 404, 0, "no such call"},
		{"a path that is long", "POST /" + strings.Repeat("x", 8000) + " HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}", 404, 0,
			strings.Repeat("x", 64) + ": no such call"},
		{"a path with a NUL", "POST /T.Echo%00 HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}", 404, 0, "no such call"},
		{"a duplicate key, of which the last counts", sized(`{"Count":1,"Count":2}`), 200, 1, `{"Count":2}`},
		{"a duplicate key of another type", sized(`{"Count":1,"Count":"2"}`), 400, 0, "cannot unmarshal string"},
		{"NULs between", sized("{\x00\"Count\":1}"), 400, 0, "invalid character"},
		{"NULs within", sized(`{"NetworkID":"a\u0000b","Count":1}`), 200, 1, `{"Count":1}`},
		{"no UTF-8", sized("{\"NetworkID\":\"\xff\xfe\",\"Count\":1}"), 200, 1, `{"Count":1}`},
		{"a number beyond all", sized(`{"Count":1e999}`), 400, 0, "cannot unmarshal number"},
		{"a fraction", sized(`{"Count":1.5}`), 400, 0, "cannot unmarshal number"},
		{"objects in objects", sized(deep), 400, 0, "request body"},
		{"arrays in arrays", sized(`{"Unknown":` + strings.Repeat("[", 100_000)), 400, 0, "exceeded max depth"},
		{"an object of 100,000 keys", sized("{" + strings.Repeat(`"k":1,`, 100_000) + `"Count":3}`), 200, 1, `{"Count":3}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var calls int
			r := start(t, quick(), echo(&calls))
			conn := r.dial(t, "")
			go func() { _, _ = io.WriteString(conn, c.request) }() // the server may close before all is written
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil && c.in != "" || resp.StatusCode != c.status || !strings.Contains(string(body), c.in) {
				t.Errorf("got %d %.300s, %v\nwant %d and %q", resp.StatusCode, body, err, c.status, c.in)
			}
			if status, got := r.post(t, "T.Echo", `{"Count":7}`); status != 200 || got != `{"Count":7}` {
				t.Errorf("the next client's call: %d %s", status, got)
			}
			if calls != c.calls+1 {
				t.Errorf("the driver was called %d times, want %d", calls-1, c.calls)
			}
		})
	}
}

// TestEndlessError: an error that quotes what a client has sent says how it begins and ends, in the answer and in the log.
func TestEndlessError(t *testing.T) {
	r := start(t, quick(), doing("T.Fail", func(_ context.Context, r *echoRequest) (*echoResponse, error) {
		return nil, fmt.Errorf("option %s: unknown; known are vlan", r.NetworkID)
	}))
	_, got := r.post(t, "T.Fail", `{"NetworkID":"`+strings.Repeat("x", 1<<19)+`"}`)
	if !strings.HasPrefix(got, `{"Err":"option xxx`) || !strings.HasSuffix(got, `xxx: unknown; known are vlan"}`) || len(got) > 10_000 {
		t.Errorf("%d bytes: %.40s ... %s", len(got), got, got[max(0, len(got)-40):])
	}
	for line := range strings.Lines(r.log.String()) {
		if len(line) > 20_000 {
			t.Errorf("a line of %d bytes in the log: %.80s...", len(line), line)
		}
	}
}

// TestCrowd: as many connections as there may be, none of which gets on, keep nobody out: the one that has kept the server
// waiting longest goes. Those whose calls are under way stay, and when all are, the next waits.
func TestCrowd(t *testing.T) {
	l := quick()
	l.connections, l.handler = 4, time.Minute
	entered, release := make(chan struct{}), make(chan struct{})
	routes := []route{
		doing("T.Hold", func(context.Context, *echoRequest) (*echoResponse, error) {
			entered <- struct{}{}
			<-release
			return &echoResponse{Count: 1}, nil
		}),
		doing("T.Echo", func(_ context.Context, r *echoRequest) (*echoResponse, error) {
			return &echoResponse{Count: r.Count}, nil
		}),
	}
	r := start(t, l, routes...)
	held := make(chan string, l.connections)
	hold := func() {
		resp, err := client(r.path).Post("http://plugin/T.Hold", "", strings.NewReader("{}"))
		if err != nil {
			held <- err.Error()
			return
		}
		got, _ := readAnswer(resp)
		held <- got
	}
	go hold()
	<-entered

	t.Run("of those that are slow the longest waiting goes", func(t *testing.T) {
		first := r.dial(t, "")
		slow := []net.Conn{r.dial(t, "POST /T.Echo HTTP/1.1\r\n"),
			r.dial(t, "POST /T.Echo HTTP/1.1\r\nHost: p\r\nContent-Length: 10\r\n\r\n{")}
		if status, got := r.post(t, "T.Echo", `{"Count":5}`); status != 200 || got != `{"Count":5}` {
			t.Errorf("one more: %d %s", status, got)
		}
		if said := ended(t, first); said != "" {
			t.Errorf("the longest waiting was told %q", said)
		}
		for _, s := range slow {
			_ = s.Close()
		}
	})

	t.Run("when all are at work the next one waits", func(t *testing.T) {
		for range l.connections - 1 {
			go hold()
			<-entered
		}
		answered := make(chan string, 1)
		go func() {
			resp, err := client(r.path).Post("http://plugin/T.Echo", "", strings.NewReader(`{"Count":6}`))
			if err != nil {
				answered <- err.Error()
				return
			}
			got, _ := readAnswer(resp)
			answered <- got
		}()
		select {
		case got := <-answered:
			t.Errorf("it was answered beside %d others: %s", l.connections, got)
		case <-time.After(patience / 4):
		}
		close(release)
		if got := <-answered; got != `200 {"Count":6}` {
			t.Errorf("got %s", got)
		}
		for range l.connections {
			if got := <-held; got != `200 {"Count":1}` {
				t.Errorf("a call that was under way: %s", got)
			}
		}
	})
}

// TestLargeBodies: of requests that are large only some are there at a time, be they read or worked on; the next one waits as
// long as its client may take to send it. One that says little is answered meanwhile.
func TestLargeBodies(t *testing.T) {
	l := quick()
	l.large, l.body, l.handler = 2, 200*time.Millisecond, time.Minute
	entered, release := make(chan struct{}), make(chan struct{})
	r := start(t, l,
		doing("T.Hold", func(context.Context, *echoRequest) (*echoResponse, error) {
			entered <- struct{}{}
			<-release
			return &echoResponse{Count: 1}, nil
		}),
		doing("T.Echo", func(_ context.Context, r *echoRequest) (*echoResponse, error) {
			return &echoResponse{Count: r.Count}, nil
		}))
	large := `{"Count":6,"EndpointID":"` + strings.Repeat("x", 2*largeBody) + `"}`
	held := make(chan string, l.large)
	for range l.large {
		go func() {
			resp, err := client(r.path).Post("http://plugin/T.Hold", "", strings.NewReader(large))
			if err != nil {
				held <- err.Error()
				return
			}
			got, _ := readAnswer(resp)
			held <- got
		}()
		<-entered
	}
	want := errText(t, "request body: larger than 65536 bytes, and there are 2 such already; nothing was changed")
	if status, got := r.post(t, "T.Echo", large); status != 503 || got != want {
		t.Errorf("one more: %d %s", status, got)
	}
	if status, got := r.post(t, "T.Echo", `{"Count":5}`); status != 200 || got != `{"Count":5}` {
		t.Errorf("one that says little: %d %s", status, got)
	}
	close(release)
	for range l.large {
		if got := <-held; got != `200 {"Count":1}` {
			t.Errorf("one that was worked on: %s", got)
		}
	}
	if status, got := r.post(t, "T.Echo", large); status != 200 || got != `{"Count":6}` {
		t.Errorf("one more afterwards: %d %s", status, got)
	}
}
