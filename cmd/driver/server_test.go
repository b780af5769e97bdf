package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestDeadline(t *testing.T) {
	l := quick()
	l.handler = 50 * time.Millisecond

	t.Run("a handler that minds it says itself what it waited for", func(t *testing.T) {
		r := start(t, l, doing("T.Wait", func(ctx context.Context, _ *echoRequest) (*echoResponse, error) {
			<-ctx.Done()
			return nil, fmt.Errorf("vf 0000:01:10.0: not ready: %w", ctx.Err())
		}))
		status, got := r.post(t, "T.Wait", "{}")
		if want := errText(t, "vf 0000:01:10.0: not ready: context deadline exceeded"); status != 500 || got != want {
			t.Errorf("got %d %s\nwant 500 %s", status, got, want)
		}
	})

	t.Run("a handler that does not is answered for and left to finish", func(t *testing.T) {
		release := make(chan struct{})
		r := start(t, l, doing("T.Hang", func(context.Context, *echoRequest) (*echoResponse, error) {
			<-release
			return &echoResponse{}, nil
		}))
		status, got := r.post(t, "T.Hang", "{}")
		const text = "T.Hang took longer than 50ms and is left to finish; the plugin's log says how it ends"
		if want := errText(t, text+"; more: passthroughctl events"); status != 500 || got != want {
			t.Errorf("got %d %s\nwant 500 %s", status, got, want)
		}
		close(release)
		r.logged(t,
			`{"level":"error","ts":T,"msg":"call","op":"T.Hang","dur":D,"outcome":"deadline","err":"`+text+`"}`,
			`{"level":"warn","ts":T,"msg":"late call ended","op":"T.Hang","dur":D,"outcome":"ok"}`)
	})
}

func TestClientGone(t *testing.T) {
	entered, ended := make(chan struct{}), make(chan error, 1)
	r := start(t, quick(), doing("T.Wait", func(ctx context.Context, _ *echoRequest) (*echoResponse, error) {
		close(entered)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, errors.New("undone: the engine has gone")
	}))
	ctx, leave := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/T.Wait", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-entered
		leave()
	}()
	if resp, err := client(r.path).Do(req); err == nil {
		_ = resp.Body.Close()
		t.Error("the call was answered before the client left")
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the handler's context ended with %v", err)
		}
	case <-time.After(2 * time.Second):
		t.Error("the handler was not told within 2 s that its client had gone")
	}
	r.logged(t, `{"level":"warn","ts":T,"msg":"call","op":"T.Wait","dur":D,"outcome":"gone",`+
		`"err":"undone: the engine has gone"}`)
}

func TestHalfABodyTiesUpNothing(t *testing.T) {
	var calls int
	r := start(t, quick(), echo(&calls))
	slow, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = slow.Close() }()
	const half = "POST /T.Echo HTTP/1.1\r\nHost: p\r\nContent-Length: 100\r\n\r\n{\"Count\""
	if _, err := io.WriteString(slow, half); err != nil {
		t.Fatal(err)
	}
	if status, got := r.post(t, "T.Echo", `{"Count":1}`); status != 200 {
		t.Errorf("another client's call: %d %s", status, got)
	}
	if calls != 1 {
		t.Errorf("driver was called %d times, want 1", calls)
	}
}

func TestStop(t *testing.T) {
	t.Run("a call in flight is finished and answered", func(t *testing.T) {
		entered, release := make(chan struct{}), make(chan struct{})
		r := start(t, quick(), doing("T.Work", func(ctx context.Context, _ *echoRequest) (*echoResponse, error) {
			close(entered)
			<-release
			return &echoResponse{Count: 7}, ctx.Err()
		}))
		stopped := make(chan error, 1)
		go func() {
			<-entered
			go func() { stopped <- r.stop() }()
			await(t, "the socket to go", func() bool { _, err := os.Stat(r.path); return os.IsNotExist(err) })
			close(release)
		}()
		if status, got := r.post(t, "T.Work", "{}"); status != 200 || got != `{"Count":7}` {
			t.Errorf("got %d %s", status, got)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})

	t.Run("a call that takes too long is told to give up", func(t *testing.T) {
		l := quick()
		l.finish = 50 * time.Millisecond
		entered := make(chan struct{})
		r := start(t, l, doing("T.Work", func(ctx context.Context, _ *echoRequest) (*echoResponse, error) {
			close(entered)
			<-ctx.Done()
			return nil, errors.New("given up")
		}))
		stopped := make(chan error, 1)
		go func() {
			<-entered
			stopped <- r.stop()
		}()
		if status, got := r.post(t, "T.Work", "{}"); status != 500 || got != `{"Err":"given up"}` {
			t.Errorf("got %d %s", status, got)
		}
		if err := <-stopped; !errors.Is(err, errAbandoned) {
			t.Errorf("serve returned %v", err)
		}
	})
}

// TestTimeLimits: a call that may create VFs or sets a device up has twice the time of others, and none has more than an engine waits for.
func TestTimeLimits(t *testing.T) {
	for handler, want := range map[time.Duration][2]time.Duration{
		time.Second:      {time.Second, 2 * time.Second},
		10 * time.Second: {10 * time.Second, 20 * time.Second},
		20 * time.Second: {20 * time.Second, 25 * time.Second},
		25 * time.Second: {25 * time.Second, 25 * time.Second},
	} {
		l := limitsFor(handler)
		if got := [2]time.Duration{l.of(route{}), l.of(route{flags: patient | quiet})}; got != want {
			t.Errorf("with %s the limits are %v, want %v", handler, got, want)
		}
	}
}
