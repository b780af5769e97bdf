package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestConnectionLimit: connections above the limit wait until others end. A client that sends no request in time gives its place back;
// calls in flight keep theirs.
func TestConnectionLimit(t *testing.T) {
	l := quick()
	l.connections, l.header, l.body, l.handler = 4, 100*time.Millisecond, 100*time.Millisecond, time.Minute
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
	call := func(op, body string) <-chan string {
		answer := make(chan string, 1)
		go func() {
			resp, err := client(r.path).Post("http://plugin/"+op, "", strings.NewReader(body))
			if err != nil {
				answer <- err.Error()
				return
			}
			got, _ := readAnswer(resp)
			answer <- got
		}()
		return answer
	}
	held := []<-chan string{call("T.Hold", "{}")}
	<-entered

	slow := []net.Conn{r.dial(t, ""), r.dial(t, "POST /T.Echo HTTP/1.1\r\n"),
		r.dial(t, "POST /T.Echo HTTP/1.1\r\nHost: p\r\nContent-Length: 10\r\n\r\n{")}
	if got := <-call("T.Echo", `{"Count":5}`); got != `200 {"Count":5}` {
		t.Errorf("a call beside slow clients: %s", got)
	}
	for _, c := range slow {
		ended(t, c)
	}

	for range l.connections - 1 {
		held = append(held, call("T.Hold", "{}"))
		<-entered
	}
	waiting := call("T.Echo", `{"Count":6}`)
	select {
	case got := <-waiting:
		t.Errorf("a call above the limit was answered %s while all connections were in use", got)
	case <-time.After(2 * l.header):
	}
	close(release)
	if got := <-waiting; got != `200 {"Count":6}` {
		t.Errorf("the call above the limit: %s", got)
	}
	for _, answer := range held {
		if got := <-answer; got != `200 {"Count":1}` {
			t.Errorf("a call in flight: %s", got)
		}
	}
}

// TestManyCalls: more calls at once than the connection limit are all answered.
func TestManyCalls(t *testing.T) {
	p := newProcess(t)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := callWhenUp(p.socket, "Plugin.Activate", ""); err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for range 1500 {
		calls.Go(func() {
			got, err := p.asEngine("NetworkDriver.GwAllocCheck", `{"Options":{"com.docker.network.generic":{"netdevice":"ens1f0"}}}`)
			if err != nil || got != `200 {"SkipIPv4":true,"SkipIPv6":true}` {
				t.Error(got, err)
			}
		})
	}
	calls.Wait()
}

// asEngine makes a call as an engine does: it retries a refused connection (the kernel's backlog is full), but not a request that it has
// sent.
func (p *process) asEngine(op, body string) (string, error) {
	c := client(p.socket)
	bound := time.Now().Add(30 * time.Second)
	for {
		resp, err := c.Post("http://plugin/"+op, "", strings.NewReader(body))
		if err == nil {
			return readAnswer(resp)
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(bound) {
			return "", err
		}
	}
}
