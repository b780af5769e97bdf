package main

import (
	"container/list"
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// patience is what a connection has at least to send its request in, however many others come. An engine sends it at once, but
// on a machine that is busy it takes its time: a request that is lost is one that the engine repeats with an empty body.
const patience = 2 * time.Second

// A crowd is the connections of a server. When there are as many as there may be, the one that has kept us waiting longest
// goes for the next: a client that says nothing, or little by little, or has nothing more to ask, keeps nobody out. One
// whose call is under way stays.
type crowd struct {
	net.Listener
	most int

	mu      sync.Mutex // guards all below, and the fields of every visitor
	all     map[net.Conn]*visitor
	waiting *list.List    // of *visitor: those that we wait for, longest first
	changed chan struct{} // closed when a place may have become free
	closed  bool
}

// A visitor is one connection.
type visitor struct {
	net.Conn
	crowd *crowd
	since time.Time     // when we began to wait for it
	at    *list.Element // in waiting; nil while its call is under way
}

// newCrowd accepts the connections of l, most at a time.
func newCrowd(l net.Listener, most int) *crowd {
	return &crowd{Listener: l, most: most, all: map[net.Conn]*visitor{}, waiting: list.New(), changed: make(chan struct{})}
}

// Accept returns the next connection, once there is a place for it.
func (c *crowd) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	for {
		v, wait, changed := c.admit(conn)
		if v != nil {
			return v, nil
		}
		if wait == 0 {
			return nil, errors.Join(net.ErrClosed, conn.Close())
		}
		again := time.NewTimer(wait)
		select {
		case <-changed:
		case <-again.C:
		}
		again.Stop()
	}
}

// admit gives a connection its place. When there is none it says how long to wait at most before asking again: until the
// longest waiting one has had its time, or one of the calls that are all under way has ended; 0 when the listener is closed.
func (c *crowd) admit(conn net.Conn) (v *visitor, wait time.Duration, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, 0, nil
	}
	if len(c.all) >= c.most {
		first := c.waiting.Front()
		if first == nil {
			return nil, time.Minute, c.changed
		}
		longest := first.Value.(*visitor)
		if left := patience - time.Since(longest.since); left > 0 {
			return nil, left, c.changed
		}
		c.leaveLocked(longest)
		_ = longest.Conn.Close() // whoever it is would have nothing of the error
	}
	v = &visitor{Conn: conn, crowd: c, since: time.Now()}
	c.all[conn] = v
	v.at = c.waiting.PushBack(v)
	return v, 0, nil
}

// leaveLocked takes a connection out; the caller holds mu.
func (c *crowd) leaveLocked(v *visitor) {
	if v.at != nil {
		c.waiting.Remove(v.at)
		v.at = nil
	}
	delete(c.all, v.Conn)
	c.changeLocked()
}

// changeLocked wakes Accept; the caller holds mu.
func (c *crowd) changeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// Close ends the listener. Connections stay.
func (c *crowd) Close() error {
	c.mu.Lock()
	c.closed = true
	c.changeLocked()
	c.mu.Unlock()
	return c.Listener.Close()
}

// Close gives the place back.
func (v *visitor) Close() error {
	v.crowd.mu.Lock()
	v.crowd.leaveLocked(v)
	v.crowd.mu.Unlock()
	return v.Conn.Close()
}

// visitorKey is where a request's context has its connection.
type visitorKey struct{}

// withVisitor is http.Server's ConnContext.
func withVisitor(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, visitorKey{}, conn)
}

// working says that the call of a request is under way; what it returns, that it has ended.
func working(r *http.Request) (done func()) {
	v, ok := r.Context().Value(visitorKey{}).(*visitor)
	if !ok {
		return func() {}
	}
	v.work(true)
	return func() { v.work(false) }
}

// work moves the visitor out of those that we wait for, or back in at their end.
func (v *visitor) work(begins bool) {
	v.crowd.mu.Lock()
	defer v.crowd.mu.Unlock()
	switch _, here := v.crowd.all[v.Conn]; {
	case begins && v.at != nil:
		v.crowd.waiting.Remove(v.at)
		v.at = nil
	case !begins && here && v.at == nil:
		v.since = time.Now()
		v.at = v.crowd.waiting.PushBack(v)
		v.crowd.changeLocked()
	}
}
