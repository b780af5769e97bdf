package netdrv

import (
	"context"
	"slices"
	"sync"
)

// locks is a set of mutexes by name. A wait for one ends with the caller's context.
//
// Order, outermost first: all networks, the endpoint, PFs by their address, a device, a transaction of the store.
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

// lockAll waits for several names, in alphabetical order.
func (l *locks) lockAll(ctx context.Context, names []string) (unlock func(), _ error) {
	var held []func()
	unlock = func() {
		for _, u := range held {
			u()
		}
	}
	for _, n := range slices.Compact(slices.Sorted(slices.Values(names))) {
		u, err := l.lock(ctx, n)
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, u)
	}
	return unlock, nil
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
