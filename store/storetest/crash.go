package storetest

import (
	"context"
	"fmt"
	"sync"

	"github.com/mellanox/passthrough/store"
)

// Fate is what happens to the transaction at which a [Crash] occurs.
type Fate int

const (
	// Lost: the transaction is not applied, and its error matches [store.ErrUnavailable].
	Lost Fate = iota
	// Unanswered: the transaction is applied, and its error matches [store.ErrAmbiguous].
	Unanswered
)

// String returns the name of the fate.
func (f Fate) String() string {
	return [...]string{Lost: "lost", Unanswered: "unanswered"}[f]
}

// Crash is the store of a process that crashes at the k-th transaction. From then on it refuses every call. The test opens another driver on the
// underlying store, and checks what is left there. A loop over k ends when [Crash.Dead] stays false:
//
//	for k := 1; ; k++ {
//		c := storetest.NewCrash(s, k, storetest.Lost)
//		story(c)
//		if !c.Dead() {
//			break
//		}
//	}
type Crash struct {
	store store.Store
	fate  Fate
	*process
}

// process is the process that crashes. All its stores crash at the same time.
type process struct {
	mu   sync.Mutex // guards the fields below
	left int        // transactions until the crash, including the last one
	dead bool
}

// NewCrash wraps s. The process crashes at transaction k; the first one is 1. With k = 0 it never crashes.
func NewCrash(s store.Store, k int, fate Fate) *Crash {
	return &Crash{store: s, fate: fate, process: &process{left: k}}
}

// Beside wraps another store of the same process. The transactions of both count, and both crash at the same time.
func (c *Crash) Beside(s store.Store) *Crash {
	return &Crash{store: s, fate: c.fate, process: c.process}
}

// Dead returns true once the process has crashed.
func (p *process) Dead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// errDead is the error of a call after the crash.
func errDead() error { return fmt.Errorf("%w: the process has crashed", store.ErrUnavailable) }

// step counts a transaction; fatal is true for the one at which the process crashes.
func (p *process) step() (fatal bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return false, errDead()
	}
	p.left--
	p.dead = p.left == 0
	return p.dead, nil
}

// Txn implements [store.Store].
func (c *Crash) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	fatal, err := c.step()
	switch {
	case err != nil:
		return store.Result{}, err
	case !fatal:
		return c.store.Txn(ctx, conds, then)
	case c.fate == Lost:
		return store.Result{}, errDead()
	}
	if _, err := c.store.Txn(ctx, conds, then); err != nil {
		return store.Result{}, err
	}
	return store.Result{}, fmt.Errorf("%w: the process has crashed", store.ErrAmbiguous)
}

// Get implements [store.Store].
func (c *Crash) Get(ctx context.Context, key string) (store.KV, error) {
	if c.Dead() {
		return store.KV{}, errDead()
	}
	return c.store.Get(ctx, key)
}

// Range implements [store.Store].
func (c *Crash) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	if c.Dead() {
		return errDead()
	}
	return c.store.Range(ctx, prefix, fn)
}

// Watch implements [store.Watcher].
func (c *Crash) Watch(ctx context.Context, prefix string, rev int64, fn func(store.Changes) error) error {
	return store.Watch(ctx, c.store, prefix, rev, func(changes store.Changes) error {
		if c.Dead() {
			return errDead()
		}
		return fn(changes)
	})
}

// Schema implements [store.Gate].
func (c *Crash) Schema(ctx context.Context) (int, error) { return store.Schema(ctx, c.store) }

// RaiseSchema implements [store.Gate].
func (c *Crash) RaiseSchema(ctx context.Context) error { return store.RaiseSchema(ctx, c.store) }

// Pages implements [store.Watcher].
func (c *Crash) Pages(ctx context.Context, prefix string, fn func(rev int64, page []store.KV) error) error {
	return store.Pages(ctx, c.store, prefix, func(rev int64, page []store.KV) error {
		if c.Dead() {
			return errDead()
		}
		return fn(rev, page)
	})
}

// Close implements [store.Store]. The underlying store stays open for the next driver.
func (c *Crash) Close() error { return nil }
