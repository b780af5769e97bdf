package netdrv

import (
	"context"
	"slices"
	"sync"
)

// locks is a set of read-write locks by name: alone or shared with others who share. Who waits gets his turn in the order of
// coming: hundreds of containers that start at once must not keep one of them waiting until its call is too old. A wait ends with
// the caller's context.
//
// Order, outermost first: all networks, the endpoint, PFs by their address, a device, a transaction of the store.
type locks struct {
	mu   sync.Mutex
	held map[string]*holding // guarded by mu; a name that nobody has is not there
}

// A holding is a name that somebody has.
type holding struct {
	shared  bool    // by those who have it
	holders int     // at least one
	waiting []*turn // in the order of coming
}

// A turn is a place among those who wait for a name.
type turn struct {
	shared bool
	come   chan struct{} // closed when the name is his
}

// lock waits for a name to have it alone, and returns what releases it.
func (l *locks) lock(ctx context.Context, name string) (unlock func(), err error) {
	return l.wait(ctx, name, false)
}

// share waits for a name to have it with others who share it, and returns what releases it.
func (l *locks) share(ctx context.Context, name string) (unlock func(), err error) {
	return l.wait(ctx, name, true)
}

// wait waits for a name.
func (l *locks) wait(ctx context.Context, name string, shared bool) (unlock func(), err error) {
	t := l.queue(name, shared)
	if t == nil {
		return func() { l.release(name) }, nil
	}
	select {
	case <-t.come:
		return func() { l.release(name) }, nil
	case <-ctx.Done():
		l.leave(name, t)
		return nil, ctx.Err()
	}
}

// queue takes a name, or a place among those who wait for it; nil when it could be had at once.
func (l *locks) queue(name string, shared bool) *turn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.take(name, shared) {
		return nil
	}
	t := &turn{shared, make(chan struct{})}
	l.held[name].waiting = append(l.held[name].waiting, t)
	return t
}

// take takes a name that is free, or that is shared and nobody waits for, for who holds mu.
func (l *locks) take(name string, shared bool) bool {
	switch h := l.held[name]; {
	case h == nil:
		if l.held == nil {
			l.held = map[string]*holding{}
		}
		l.held[name] = &holding{shared: shared, holders: 1}
	case h.shared && shared && len(h.waiting) == 0:
		h.holders++
	default:
		return false
	}
	return true
}

// leave gives a place up. The turn may have come at this very moment: then the name is released.
func (l *locks) leave(name string, t *turn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[name]
	i := slices.Index(h.waiting, t)
	if i < 0 {
		l.releaseHeld(name)
		return
	}
	h.waiting = slices.Delete(h.waiting, i, i+1)
	h.admit()
}

// release gives a name to those whose turn it is.
func (l *locks) release(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.releaseHeld(name)
}

// releaseHeld is release for who holds mu.
func (l *locks) releaseHeld(name string) {
	h := l.held[name]
	h.holders--
	h.admit()
	if h.holders == 0 {
		delete(l.held, name)
	}
}

// admit gives the name to the first who waits, if it is free, and to those after him who can have it at the same time.
func (h *holding) admit() {
	for len(h.waiting) > 0 {
		t := h.waiting[0]
		if h.holders > 0 && !(h.shared && t.shared) {
			return
		}
		h.shared, h.holders, h.waiting = t.shared, h.holders+1, h.waiting[1:]
		close(t.come)
	}
}

// lockAll waits for several names, in alphabetical order, with lock or share.
func lockAll(ctx context.Context, names []string, lock func(context.Context, string) (func(), error)) (unlock func(), _ error) {
	var held []func()
	unlock = func() {
		for _, u := range held {
			u()
		}
	}
	for _, n := range slices.Compact(slices.Sorted(slices.Values(names))) {
		u, err := lock(ctx, n)
		if err != nil {
			unlock()
			return nil, err
		}
		held = append(held, u)
	}
	return unlock, nil
}

// tryLock takes a name to have it alone, if nobody has it.
func (l *locks) tryLock(name string) (unlock func(), ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.take(name, false) {
		return nil, false
	}
	return func() { l.release(name) }, true
}
