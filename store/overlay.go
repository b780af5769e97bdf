package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// overlayRev is the revision of the first write that an [Overlay] keeps: above those of any store.
const overlayRev = 1 << 62

// An Overlay is a Store that shows another one and keeps in memory what is written to it, so that something can be tried without a trace.
// What is written below meanwhile is seen, unless the overlay has a write of the same key.
type Overlay struct {
	below Store

	mu      sync.Mutex    // guards the fields below
	rev     int64         // of the last write
	written map[string]KV // with a nil value for a record that was deleted
}

// NewOverlay returns an overlay without writes. Its Close does nothing.
func NewOverlay(below Store) *Overlay {
	return &Overlay{below: below, rev: overlayRev, written: map[string]KV{}}
}

// Txn implements [Store].
func (o *Overlay) Txn(ctx context.Context, conds []Cond, then []Op) (Result, error) {
	if err := CheckTxn(conds, then); err != nil {
		return Result{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, c := range conds {
		ok, err := o.holdsLocked(ctx, c)
		if err != nil {
			return Result{}, err
		}
		if !ok {
			return Result{Failed: c}, nil
		}
	}
	if err := usable(ctx); err != nil {
		return Result{}, err
	}
	if len(then) > 0 {
		o.rev++
	}
	for _, op := range then {
		o.written[op.Key] = KV{Key: op.Key, Value: slices.Clone(op.Value), Rev: o.rev}
	}
	return Result{OK: true, Rev: o.rev}, nil
}

// holdsLocked checks a condition.
func (o *Overlay) holdsLocked(ctx context.Context, c Cond) (ok bool, err error) {
	if !c.NotNewer {
		kv, err := o.getLocked(ctx, c.Key)
		if errors.Is(err, ErrNotFound) {
			err = nil
		}
		return c.Holds(kv.Rev), err
	}
	all, err := o.underLocked(ctx, c.Key)
	return !slices.ContainsFunc(all, func(kv KV) bool { return !c.Holds(kv.Rev) }), err
}

// Get implements [Store].
func (o *Overlay) Get(ctx context.Context, key string) (KV, error) {
	if err := CheckKey(key); err != nil {
		return KV{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.getLocked(ctx, key)
}

func (o *Overlay) getLocked(ctx context.Context, key string) (KV, error) {
	if err := usable(ctx); err != nil {
		return KV{}, err
	}
	kv, ok := o.written[key]
	switch {
	case !ok:
		return o.below.Get(ctx, key)
	case kv.Value == nil:
		return KV{}, fmt.Errorf("record %s: %w", key, ErrNotFound)
	}
	kv.Value = slices.Clone(kv.Value)
	return kv, nil
}

// Range implements [Store].
func (o *Overlay) Range(ctx context.Context, prefix string, fn func(KV) error) error {
	o.mu.Lock()
	all, err := o.underLocked(ctx, prefix)
	o.mu.Unlock()
	for _, kv := range all {
		if err := fn(kv); err != nil {
			return err
		}
	}
	return err
}

// underLocked returns the records under a prefix, in key order.
func (o *Overlay) underLocked(ctx context.Context, prefix string) ([]KV, error) {
	if err := usable(ctx); err != nil {
		return nil, err
	}
	all := map[string]KV{}
	err := o.below.Range(ctx, prefix, func(kv KV) error {
		all[kv.Key] = kv
		return nil
	})
	for key, kv := range o.written {
		switch {
		case !strings.HasPrefix(key, prefix):
		case kv.Value == nil:
			delete(all, key)
		default:
			kv.Value = slices.Clone(kv.Value)
			all[key] = kv
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b KV) int { return strings.Compare(a.Key, b.Key) }), err
}

// Schema implements [Gate].
func (o *Overlay) Schema(ctx context.Context) (int, error) { return Schema(ctx, o.below) }

// RaiseSchema implements [Gate]: the store below keeps its own.
func (o *Overlay) RaiseSchema(context.Context) error { return errNoSchema }

// Pages implements [Watcher], with one page.
func (o *Overlay) Pages(ctx context.Context, prefix string, fn func(rev int64, page []KV) error) error {
	o.mu.Lock()
	all, err := o.underLocked(ctx, prefix)
	rev := o.rev
	o.mu.Unlock()
	if err != nil {
		return err
	}
	return fn(rev, all)
}

// Watch implements [Watcher]: it tells of nothing. What is tried does not last as long as a change by another node matters.
func (o *Overlay) Watch(ctx context.Context, _ string, rev int64, fn func(Changes) error) error {
	if rev == 0 {
		if err := fn(Changes{Rev: overlayRev}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
}

// Close implements [Store]: there is nothing to release.
func (o *Overlay) Close() error { return nil }

// usable answers why a store in memory cannot be used for a call.
func usable(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
