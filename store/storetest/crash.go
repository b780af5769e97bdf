package storetest

import (
	"context"
	"fmt"
	"sync"

	"github.com/mellanox/passthrough/store"
)

// Fate says what becomes of the transaction at which a [Crash] happens.
type Fate int

const (
	// Lost: the transaction is not applied; its caller is told that the store is unavailable.
	Lost Fate = iota
	// Unanswered: the transaction is applied, but its caller is told that nobody knows, see [store.ErrAmbiguous].
	Unanswered
)

// String names the fate in a test's name.
func (f Fate) String() string {
	return [...]string{Lost: "lost", Unanswered: "unanswered"}[f]
}

// Crash is a Store that dies: its k-th transaction meets its fate, and from then on it refuses every call, as if the
// process were gone. The test then opens a new driver on the underlying store and looks at what is left. A loop over k
// ends when [Crash.Dead] stays false:
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

// process is what dies: all stores that it uses die with it.
type process struct {
	mu   sync.Mutex // guards the fields below
	left int        // transactions until the crash, counting the one that dies
	dead bool
}

// NewCrash wraps s so that transaction k (the first is 1) meets fate. With k = 0 nothing ever happens.
func NewCrash(s store.Store, k int, fate Fate) *Crash {
	return &Crash{store: s, fate: fate, process: &process{left: k}}
}

// Beside wraps another store of the same process: its transactions count as well, and both die at once.
func (c *Crash) Beside(s store.Store) *Crash {
	return &Crash{store: s, fate: c.fate, process: c.process}
}

// Dead says whether the crash has happened.
func (p *process) Dead() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dead
}

// errDead is what a dead store answers.
func errDead() error { return fmt.Errorf("%w: the process has crashed", store.ErrUnavailable) }

// step counts one transaction; fatal is true for the one that dies.
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

// Close implements [store.Store]. The underlying store stays open: it is what the test opens its next driver on.
func (c *Crash) Close() error { return nil }
