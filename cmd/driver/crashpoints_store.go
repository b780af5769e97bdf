//go:build crashpoints

package main

import (
	"context"
	"strings"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// crashStore is a ledger with crash points.
type crashStore struct {
	s      store.Store
	points crashPoints
}

// Txn has points where something is written.
func (c crashStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (r store.Result, err error) {
	if len(then) == 0 {
		return c.s.Txn(ctx, conds, then)
	}
	var what []string
	for _, op := range then {
		verb := "put "
		if op.Value == nil {
			verb = "delete "
		}
		what = append(what, verb+op.Key)
	}
	_ = c.points.around("txn", strings.Join(what, ", "), func() error {
		r, err = c.s.Txn(ctx, conds, then)
		return err
	})
	return r, err
}

// Get changes nothing.
func (c crashStore) Get(ctx context.Context, key string) (store.KV, error) { return c.s.Get(ctx, key) }

// Range changes nothing.
func (c crashStore) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	return c.s.Range(ctx, prefix, fn)
}

// Close changes nothing.
func (c crashStore) Close() error { return c.s.Close() }

// Settle implements [store.Fencer], for the stores that are one.
func (c crashStore) Fence(ctx context.Context, token string) error {
	return c.points.around("fence", token, func() error { return store.Fence(ctx, c.s, token) })
}

// Past implements [store.RollbackDetector], for the stores that are one.
func (c crashStore) Watermark() []byte {
	if r, ok := c.s.(store.RollbackDetector); ok {
		return r.Watermark()
	}
	return nil
}

// Recall implements [store.RollbackDetector].
func (c crashStore) SetWatermark(past []byte) error {
	if r, ok := c.s.(store.RollbackDetector); ok {
		return r.SetWatermark(past)
	}
	return nil
}

// crashJournal is a journal with crash points.
type crashJournal struct {
	j      ipamdrv.Journal
	points crashPoints
}

// Add has points.
func (c crashJournal) Add(key string, value []byte) error {
	return c.points.around("journal-add", key, func() error { return c.j.Add(key, value) })
}

// Remove has points.
func (c crashJournal) Remove(key string) error {
	return c.points.around("journal-remove", key, func() error { return c.j.Remove(key) })
}

// Entries changes nothing.
func (c crashJournal) Entries() (map[string][]byte, error) { return c.j.Entries() }
