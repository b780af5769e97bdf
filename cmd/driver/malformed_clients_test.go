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
func (r *harness) dial(t *testing.T, text string) net.Conn {
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

// ended waits until the server has closed a connection, and returns what it has sent before.
func ended(t *testing.T, c net.Conn) string {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the connection is not closed after 10 s; the server has sent %q", said)
	}
	return string(said)
}

// dribble writes text byte by byte until the server closes the connection or the test ends.
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

// TestSlowClients: the server closes the connection of a client that does not send its request, or does not read its answer, in time.
func TestSlowClients(t *testing.T) {
	l := quick()
	l.header, l.body, l.idle, l.write, l.handler = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond
	const post = "POST /T.Echo HTTP/1.1\r\nHost: p\r\n"
	endless := strings.Repeat("X-More: and more\r\n", 1000)
	for _, c := range []struct{ name, begin, then, want string }{ // want "": no answer, or status 400
		{"sends nothing", "", "", ""},
		{"sends half a header", post, "", ""},
		{"sends its header byte by byte", "", post + endless, ""},
		{"sends half a body", post + "Content-Length: 100\r\n\r\n{", "", "HTTP/1.1 400 "},
		{"sends its body byte by byte", post + "Content-Length: 100000\r\n\r\n{", strings.Repeat(" ", 10000), "HTTP/1.1 400 "},
		{"announces chunks and sends none", post + "Transfer-Encoding: chunked\r\n\r\n5\r\n{", "", "HTTP/1.1 400 "},
		{"sends no further request", post + "Content-Length: 2\r\n\r\n{}", "", "HTTP/1.1 200 "},
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
	t.Run("does not read its answer", func(t *testing.T) {
		t.Parallel()
		huge := strings.Repeat("x", 4<<20) // more than a socket holds
		r := start(t, l, doing("T.Huge", func(context.Context, *echoRequest) (*echoResponse, error) {
			return &echoResponse{PoolID: huge}, nil
		}))
		conn := r.dial(t, "POST /T.Huge HTTP/1.1\r\nHost: p\r\nContent-Length: 2\r\n\r\n{}")
		await(t, "the write of the answer to time out", func() bool { return strings.Contains(r.log.String(), `"op":"T.Huge"`) })
		if said := ended(t, conn); len(said) >= len(huge) {
			t.Errorf("%d bytes were sent", len(said))
		}
	})
}

// TestOddRequests: a malformed request is refused without calling a driver; an odd but well-formed one is answered by its content.
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

// TestLongError: an error that quotes a huge request is shortened in its middle, in the answer and in the log.
func TestLongError(t *testing.T) {
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
