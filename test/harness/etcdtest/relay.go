package etcdtest

import (
	"net"
	"sync"
	"testing"
)

// relay passes connections on to a member, and can lose what goes one way or the other.
type relay struct {
	addr, member string
	listener     net.Listener
	running      sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	loseUp   bool       // what clients send
	loseDown bool       // what the member answers
	open     map[net.Conn]bool
	ended    bool
}

// newRelay starts a relay, which ends with the test.
func newRelay(t *testing.T, member string) *relay {
	t.Helper()
	r, err := listenRelay(member)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

// listenRelay starts a relay. It listens in the network namespace that the caller's thread is in; what it passes on leaves from
// the one of the process.
func listenRelay(member string) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{addr: l.Addr().String(), member: member, listener: l, open: map[net.Conn]bool{}}
	r.running.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			r.running.Go(func() { r.pass(client) })
		}
	})
	return r, nil
}

// close ends the relay with all its connections.
func (r *relay) close() {
	_ = r.listener.Close() // it may be closed
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.closeAll()
	r.running.Wait()
}

// pass connects one client.
func (r *relay) pass(client net.Conn) {
	member, err := net.Dial("tcp", r.member)
	if err != nil || !r.keep(client, member) {
		_ = client.Close()
		if err == nil {
			_ = member.Close()
		}
		return
	}
	var both sync.WaitGroup
	both.Go(func() { r.copy(member, client, &r.loseUp) })
	both.Go(func() { r.copy(client, member, &r.loseDown) })
	both.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.open, client)
	delete(r.open, member)
}

// keep notes two ends of a connection; false when the test has ended.
func (r *relay) keep(ends ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range ends {
		r.open[c] = true
	}
	return !r.ended
}

// copy passes bytes on until one end is closed, then closes both.
func (r *relay) copy(to, from net.Conn, lose *bool) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		lost := *lose
		r.mu.Unlock()
		if !lost && n > 0 {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// set says what is lost from now on. A stream that lost bytes is of no more use, so those are closed when all is well
// again.
func (r *relay) set(up, down bool) {
	r.mu.Lock()
	r.loseUp, r.loseDown = up, down
	r.mu.Unlock()
	if !up && !down {
		r.closeAll()
	}
}

// closeAll ends all connections.
func (r *relay) closeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		_ = c.Close()
	}
}
