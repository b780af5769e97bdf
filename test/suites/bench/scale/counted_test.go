package scale

import (
	"context"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mellanox/passthrough/store"
)

// counted is a store that counts what is read through it.
type counted struct {
	store.Store

	read     atomic.Int64                // records that were read: by key, in ranges and in pages
	requests atomic.Int64                // reads
	told     atomic.Int64                // changes that a watch told
	writes   atomic.Int64                // transactions with writes
	loaded   atomic.Pointer[time.Time]   // when the leases of a pool were read the first time
	shape    atomic.Pointer[transaction] // of the last write
}

// transaction is the shape of a write.
type transaction struct {
	conds []store.Cond
	then  []store.Op
}

// Txn implements [store.Store].
func (c *counted) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if len(then) > 0 {
		c.writes.Add(1)
		c.shape.Store(&transaction{conds, then})
	} else {
		c.count(1)
	}
	return c.Store.Txn(ctx, conds, then)
}

// Get implements [store.Store].
func (c *counted) Get(ctx context.Context, key string) (store.KV, error) {
	c.count(1)
	return c.Store.Get(ctx, key)
}

// Range implements [store.Store].
func (c *counted) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	c.requests.Add(1)
	err := c.Store.Range(ctx, prefix, func(kv store.KV) error {
		c.read.Add(1)
		return fn(kv)
	})
	c.end(prefix, err)
	return err
}

// count counts a read.
func (c *counted) count(records int) {
	c.requests.Add(1)
	c.read.Add(int64(records))
}

// end notes that all leases of a pool were read.
func (c *counted) end(prefix string, err error) {
	if now := time.Now(); err == nil && strings.HasPrefix(prefix, "ipam/lease/") {
		c.loaded.CompareAndSwap(nil, &now)
	}
}

// Watermark implements [store.RollbackDetector].
func (c *counted) Watermark() []byte { return c.Store.(store.RollbackDetector).Watermark() }

// SetWatermark implements [store.RollbackDetector].
func (c *counted) SetWatermark(w []byte) error {
	return c.Store.(store.RollbackDetector).SetWatermark(w)
}

// Fence implements [store.Fencer].
func (c *counted) Fence(ctx context.Context, token string) error {
	return store.Fence(ctx, c.Store, token)
}
