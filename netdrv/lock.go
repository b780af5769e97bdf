package netdrv

import (
	"context"
	"slices"
	"sync"
)

// locks is a set of mutexes by name. Who waits gets his turn in the order of coming: hundreds of containers that start at once
// must not keep one of them waiting until its call is too old. A wait ends with the caller's context.
//
// Order, outermost first: all networks, the endpoint, PFs by their address, a device, a transaction of the store.
type locks struct {
	mu   sync.Mutex
	held map[string][]chan struct{} // guarded by mu: who waits for a name that somebody has; closed when it is his
}

// lock waits for a name and returns what releases it.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	turn := l.queue(name)
	if turn == nil {
		return func() { l.release(name) }, nil
	}
	select {
	case <-turn:
		return func() { l.release(name) }, nil
	case <-ctx.Done():
		l.leave(name, turn)
		return nil, ctx.Err()
	}
}

// queue takes a name, or a place among those who wait for it; nil when it was free.
func (l *locks) queue(name string) (turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.take(name) {
		return nil
	}
	turn = make(chan struct{})
	l.held[name] = append(l.held[name], turn)
	return turn
}

// take takes a name if it is free, for who holds mu.
func (l *locks) take(name string) bool {
	if _, busy := l.held[name]; busy {
		return false
	}
	if l.held == nil {
		l.held = map[string][]chan struct{}{}
	}
	l.held[name] = nil
	return true
}

// leave gives a place up. The turn may have come at this very moment: then it is the next one's.
func (l *locks) leave(name string, turn chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.held[name], turn); i >= 0 {
		l.held[name] = slices.Delete(l.held[name], i, i+1)
		return
	}
	l.handOver(name)
}

// release gives a name to the first who waits for it.
func (l *locks) release(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handOver(name)
}

// handOver is release for who holds mu.
func (l *locks) handOver(name string) {
	waiting := l.held[name]
	if len(waiting) == 0 {
		delete(l.held, name)
		return
	}
	l.held[name] = waiting[1:]
	close(waiting[0])
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
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.take(name) {
		return nil, false
	}
	return func() { l.release(name) }, true
}
