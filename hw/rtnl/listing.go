package rtnl

import (
	"sync"

	"github.com/mellanox/passthrough/hw"
)

// A listing is read for all who want it at once: who asks while another is being read shares the next one with those who ask
// meanwhile. Nobody gets one that was begun before it asked. The zero value is one to use.
type listing[T any] struct {
	mu   sync.Mutex    // guards all below
	next *read[T]      // that waits for its turn; nil for none
	busy chan struct{} // closed when the one before is read; nil for none
}

// A read is one that is shared.
type read[T any] struct {
	done chan struct{} // closed when the rest is there
	got  []T
	err  error
}

// read reads one, or waits for the one that somebody else reads. What it returns is shared: it is not to be changed.
func (l *listing[T]) read(list func() ([]T, error)) ([]T, error) {
	r, mine := l.join()
	if mine {
		l.serve(r, list)
	}
	<-r.done
	return r.got, r.err
}

// join returns the read that waits for its turn; mine tells whether the caller is to see to it.
func (l *listing[T]) join() (r *read[T], mine bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next != nil {
		return l.next, false
	}
	l.next = &read[T]{done: make(chan struct{})}
	return l.next, true
}

// serve waits for its turn and reads. Who asks from then on is too late for it.
func (l *listing[T]) serve(r *read[T], list func() ([]T, error)) {
	defer close(r.done)
	l.mu.Lock()
	before := l.busy
	l.mu.Unlock()
	if before != nil {
		<-before
	}
	l.mu.Lock()
	l.next, l.busy = nil, r.done
	l.mu.Unlock()
	r.err = hw.ErrBusy // for the others, should this panic
	r.got, r.err = list()
}
