package main

import (
	"context"
	"net"
	"net/http"
	"sync"
)

// A line is a listener without a socket: its connections stay in the process, so that a test in a bubble of
// testing/synctest can wait at its ends.
type line struct {
	callers chan net.Conn
	closed  chan struct{}
	close   func()
}

// newLine is a line that can be called.
func newLine() *line {
	l := &line{callers: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

// Accept implements [net.Listener].
func (l *line) Accept() (net.Conn, error) {
	select {
	case c := <-l.callers:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (l *line) Close() error {
	l.close()
	return nil
}

// Addr implements [net.Listener].
func (l *line) Addr() net.Addr { return &net.UnixAddr{Name: "line", Net: "unix"} }

// dial is a caller's end of a new connection.
func (l *line) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.callers <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// client talks HTTP over the line.
func (l *line) client() *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: l.dial}}
}
