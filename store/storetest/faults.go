package storetest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"

	"github.com/mellanox/passthrough/store"
)

// Faults is a Store that is far away: some of its calls are refused, the answers of some transactions are lost, and some
// of those are applied only later, among others. What meets which fate follows from the seed.
type Faults struct {
	store store.Store

	mu   sync.Mutex // guards the fields below
	rng  *rand.Rand
	odds float64
	away bool
	next int
	late map[string]transaction // by their tokens
}

// transaction is one that is still under way.
type transaction struct {
	conds []store.Cond
	then  []store.Op
}

// NewFaults wraps s. odds is the share of calls that meet with trouble.
func NewFaults(s store.Store, seed uint64, odds float64) *Faults {
	return &Faults{store: s, rng: rand.New(rand.NewPCG(seed, 0)), odds: odds, late: map[string]transaction{}}
}

// Away makes the store refuse every call, or no more.
func (f *Faults) Away(away bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.away = away
}

// Calm ends all trouble but that of transactions that are under way, which arrive first.
func (f *Faults) Calm(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.odds, f.away = 0, false
	return f.arrive(ctx, 1)
}

// doubt is the error of a transaction whose answer is lost.
type doubt struct{ token string }

// Error says so.
func (d *doubt) Error() string { return store.ErrAmbiguous.Error() + ": the answer was lost" }

// Unwrap is the sentinel.
func (d *doubt) Unwrap() error { return store.ErrAmbiguous }

// Token implements [store.Doubtful].
func (d *doubt) Token() string { return d.token }

// refused is the error of a call that was not made: err, or that it was refused.
func refused(err error) error {
	if err == nil {
		err = fmt.Errorf("%w: refused", store.ErrUnavailable)
	}
	return err
}

// trouble says whether a call meets with trouble, and lets late transactions arrive.
func (f *Faults) trouble(ctx context.Context) (bool, error) {
	if f.away {
		return true, fmt.Errorf("%w: it is away", store.ErrUnavailable)
	}
	if err := f.arrive(ctx, 0.3); err != nil {
		return true, err
	}
	return f.rng.Float64() < f.odds, nil
}

// arrive applies late transactions, each with that probability.
func (f *Faults) arrive(ctx context.Context, odds float64) error {
	for i := range f.next {
		token := strconv.Itoa(i)
		tx, ok := f.late[token]
		if !ok || f.rng.Float64() >= odds {
			continue
		}
		delete(f.late, token)
		if _, err := f.store.Txn(context.WithoutCancel(ctx), tx.conds, tx.then); err != nil {
			return err
		}
	}
	return nil
}

// Txn implements [store.Store].
func (f *Faults) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	bad, err := f.trouble(ctx)
	switch {
	case err != nil:
		return store.Result{}, err
	case !bad:
		return f.store.Txn(ctx, conds, then)
	}
	token := strconv.Itoa(f.next)
	switch f.next++; f.rng.IntN(4) {
	case 0:
		return store.Result{}, refused(nil)
	case 1: // the request was lost
	case 2: // the answer was lost
		if _, err := f.store.Txn(ctx, conds, then); err != nil {
			return store.Result{}, err
		}
	default: // the request is late
		f.late[token] = transaction{conds, then}
	}
	return store.Result{}, &doubt{token}
}

// Settle implements [store.Settler].
func (f *Faults) Settle(ctx context.Context, token string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bad, err := f.trouble(ctx); bad || err != nil {
		return refused(err)
	}
	delete(f.late, token)
	return nil
}

// Get implements [store.Store].
func (f *Faults) Get(ctx context.Context, key string) (store.KV, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if bad, err := f.trouble(ctx); bad || err != nil {
		return store.KV{}, refused(err)
	}
	return f.store.Get(ctx, key)
}

// Range implements [store.Store].
func (f *Faults) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	f.mu.Lock()
	bad, err := f.trouble(ctx)
	f.mu.Unlock()
	if bad || err != nil {
		return refused(err)
	}
	return f.store.Range(ctx, prefix, fn)
}

// Close implements [store.Store].
func (f *Faults) Close() error { return f.store.Close() }
