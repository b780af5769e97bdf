package crashpoint

import (
	"context"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// Store returns a store with a crash point before and after each write to s.
func (p *Points) Store(s store.Store) store.Store { return ledger{s, p} }

// ledger is the result of [Points.Store]. It is also a [store.Fencer], a [store.Watcher] and a
// [store.RollbackDetector], for the stores that are one.
type ledger struct {
	store.Store
	points *Points
}

// Txn implements [store.Store], with points if it writes.
func (l ledger) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (r store.Result, err error) {
	if len(then) == 0 {
		return l.Store.Txn(ctx, conds, then)
	}
	var what []string
	for _, op := range then {
		verb := "put "
		if op.Value == nil {
			verb = "delete "
		}
		what = append(what, verb+op.Key)
	}
	_ = l.points.around("txn", strings.Join(what, ", "), func() error {
		r, err = l.Store.Txn(ctx, conds, then)
		return err
	})
	return r, err
}

// Fence implements [store.Fencer], with points.
func (l ledger) Fence(ctx context.Context, token string) error {
	return l.points.around("fence", token, func() error { return store.Fence(ctx, l.Store, token) })
}

// Schema implements [store.Gate].
func (l ledger) Schema(ctx context.Context) (int, error) { return store.Schema(ctx, l.Store) }

// RaiseSchema implements [store.Gate].
func (l ledger) RaiseSchema(ctx context.Context) error { return store.RaiseSchema(ctx, l.Store) }

// Watch implements [store.Watcher].
func (l ledger) Watch(ctx context.Context, prefix string, rev int64, fn func(store.Changes) error) error {
	return store.Watch(ctx, l.Store, prefix, rev, fn)
}

// Pages implements [store.Watcher].
func (l ledger) Pages(ctx context.Context, prefix string, fn func(rev int64, page []store.KV) error) error {
	return store.Pages(ctx, l.Store, prefix, fn)
}

// Watermark implements [store.RollbackDetector].
func (l ledger) Watermark() []byte {
	if d, ok := l.Store.(store.RollbackDetector); ok {
		return d.Watermark()
	}
	return nil
}

// SetWatermark implements [store.RollbackDetector].
func (l ledger) SetWatermark(watermark []byte) error {
	if d, ok := l.Store.(store.RollbackDetector); ok {
		return d.SetWatermark(watermark)
	}
	return nil
}

// A Journal keeps entries that survive the end of the process, see package store/journal.
type Journal interface {
	Add(key string, value []byte) error
	Remove(key string) error
	Entries() (map[string][]byte, error)
}

// Journal returns a journal with a crash point before and after each write to j.
func (p *Points) Journal(j Journal) Journal { return journal{j, p} }

// journal is the result of [Points.Journal].
type journal struct {
	Journal
	points *Points
}

// Add implements [Journal], with points.
func (j journal) Add(key string, value []byte) error {
	return j.points.around("journal-add", key, func() error { return j.Journal.Add(key, value) })
}

// Remove implements [Journal], with points.
func (j journal) Remove(key string) error {
	return j.points.around("journal-remove", key, func() error { return j.Journal.Remove(key) })
}
