package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
)

// Faults is a Store behind a bad network: some calls are refused, the answers of some transactions are lost, and some of those transactions are
// applied later, between others. The seed decides which.
type Faults struct {
	store store.Store

	mu   sync.Mutex // guards the fields below
	rng  *rand.Rand
	odds float64         // probability that a call meets a fault
	away bool            // all calls are refused
	late []transaction   // still in flight
	used map[string]bool // tokens
}

// opsMax is the number of operations that every store takes in one transaction. This one takes no more.
const opsMax = 3000

// transaction is one that is still in flight.
type transaction struct {
	token string
	conds []store.Cond
	then  []store.Op
}

// NewFaults wraps s. odds is the probability that a call meets a fault.
func NewFaults(s store.Store, seed uint64, odds float64) *Faults {
	return &Faults{store: s, rng: rand.New(rand.NewPCG(seed, 0)), odds: odds, used: map[string]bool{}}
}

// Away makes the store refuse all calls, or ends that.
func (f *Faults) Away(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

// Trouble changes the probability that a call meets a fault.
func (f *Faults) Trouble(odds float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.odds = odds
}

// Calm applies all transactions in flight, and ends all faults.
func (f *Faults) Calm(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.odds, f.away = 0, false
	return f.arrive(ctx, 1)
}

// errLost is the error of a transaction whose answer is lost.
func errLost() error { return fmt.Errorf("%w: the answer was lost", store.ErrAmbiguous) }

// refused returns err, or that the call was refused if err is nil.
func refused(err error) error {
	if err == nil {
		err = fmt.Errorf("%w: refused", store.ErrUnavailable)
	}
	return err
}

// fault returns whether a call meets a fault. It also applies some of the transactions in flight.
func (f *Faults) fault(ctx context.Context) (bool, error) {
	if f.away {
		return true, fmt.Errorf("%w: it is away", store.ErrUnavailable)
	}
	if err := f.arrive(ctx, 0.1); err != nil {
		return true, err
	}
	return f.rng.Float64() < f.odds, nil
}

// arrive applies the transactions in flight, each with the probability odds.
func (f *Faults) arrive(ctx context.Context, odds float64) error {
	var late []transaction
	for _, tx := range f.late {
		if f.rng.Float64() >= odds {
			late = append(late, tx)
			continue
		}
		if _, err := f.store.Txn(context.WithoutCancel(ctx), tx.conds, tx.then); err != nil {
			return err
		}
	}
	f.late = late
	return nil
}

// Txn implements [store.Store].
func (f *Faults) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	token := store.TokenOf(ctx)
	again := token != "" && f.used[token]
	f.used[token] = true
	bad, err := f.fault(ctx)
	switch {
	case again:
		return store.Result{}, fmt.Errorf("token %s was used for another transaction", token)
	case len(then) > opsMax:
		return store.Result{}, fmt.Errorf("%d operations in one transaction", len(then))
	case err != nil:
		return store.Result{}, err
	case !bad:
		return f.store.Txn(ctx, conds, then)
	}
	switch f.rng.IntN(4) {
	case 0:
		return store.Result{}, refused(nil)
	case 1: // the request was lost
	case 2: // the answer was lost
		if _, err := f.store.Txn(ctx, conds, then); err != nil {
			return store.Result{}, err
		}
	default: // the request is late
		f.late = append(f.late, transaction{token, conds, then})
	}
	return store.Result{}, errLost()
}

// Fence implements [store.Fencer].
func (f *Faults) Fence(ctx context.Context, token string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bad, err := f.fault(ctx); bad || err != nil {
		return refused(err)
	}
	f.late = slices.DeleteFunc(f.late, func(tx transaction) bool { return tx.token == token })
	return nil
}

// Get implements [store.Store].
func (f *Faults) Get(ctx context.Context, key string) (store.KV, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bad, err := f.fault(ctx); bad || err != nil {
		return store.KV{}, refused(err)
	}
	return f.store.Get(ctx, key)
}

// Range implements [store.Store].
func (f *Faults) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	f.mu.Lock()
	bad, err := f.fault(ctx)
	f.mu.Unlock()
	if bad || err != nil {
		return refused(err)
	}
	return f.store.Range(ctx, prefix, fn)
}

// Watch implements [store.Watcher]. While the store is away, changes are not told; they are told afterwards.
func (f *Faults) Watch(ctx context.Context, prefix string, rev int64, fn func(store.Changes) error) error {
	for {
		err := store.Watch(ctx, f.store, prefix, rev, func(c store.Changes) error {
			if f.isAway() {
				return errAway
			}
			err := fn(c)
			rev = max(rev, c.Rev)
			return err
		})
		if !errors.Is(err, errAway) {
			return err
		}
		if err := f.back(ctx); err != nil {
			return err
		}
	}
}

// Schema implements [store.Gate].
func (f *Faults) Schema(ctx context.Context) (int, error) { return store.Schema(ctx, f.store) }

// RaiseSchema implements [store.Gate].
func (f *Faults) RaiseSchema(ctx context.Context) error { return store.RaiseSchema(ctx, f.store) }

// Pages implements [store.Watcher]. It waits while the store is away.
func (f *Faults) Pages(ctx context.Context, prefix string, fn func(rev int64, page []store.KV) error) error {
	return store.Pages(ctx, f.store, prefix, func(rev int64, page []store.KV) error {
		if err := f.back(ctx); err != nil {
			return err
		}
		return fn(rev, page)
	})
}

// errAway ends a watch of the store below.
var errAway = errors.New("it is away")

// isAway returns true while the store refuses all calls.
func (f *Faults) isAway() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.away
}

// back waits until the store is not away.
func (f *Faults) back(ctx context.Context) error {
	for f.isAway() {
		if err := retry.Sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
		}
	}
	return nil
}

// Close implements [store.Store].
func (f *Faults) Close() error { return f.store.Close() }
