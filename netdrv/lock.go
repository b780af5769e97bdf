package netdrv

import (
	"context"
	"sync"
)

// locks is a set of mutexes by name. A wait for one ends with the caller's context.
//
// Order, outermost first: all networks, the endpoint, a PF, a device, a transaction of the store.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{} // guarded by mu; closed when released
}

// lock waits for a name and returns what releases it.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		unlock, busy := l.take(name)
		if busy == nil {
			return unlock, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// tryLock takes a name unless somebody has it.
func (l *locks) tryLock(name string) (unlock func(), ok bool) {
	unlock, busy := l.take(name)
	return unlock, busy == nil
}

func (l *locks) take(name string) (unlock func(), busy <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if c := l.held[name]; c != nil {
		return nil, c
	}
	if l.held == nil {
		l.held = map[string]chan struct{}{}
	}
	c := make(chan struct{})
	l.held[name] = c
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, name)
		close(c)
	}, nil
}
