package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/store"
)

// A Ledger is the store of pools.
type Ledger struct {
	Store store.Store
	// Member is this node among those that share the store; nil if the store is this node's alone.
	Member Member
	// Batched: the store is one that nodes share, and takes a limited number of operations in one transaction.
	Batched bool
}

// Member gives the condition under which a node may write to a shared store, see package cluster.
type Member interface {
	Cond(ctx context.Context) (store.Cond, error)
	Refresh(ctx context.Context, failed store.Cond) (store.Cond, error)
}

// hasOlderNodes returns true if nodes may use the store whose removals of shared pools depend on the pool's record alone.
func (l Ledger) hasOlderNodes(ctx context.Context) (bool, error) {
	if l.Member == nil && !l.Batched { // not shared
		return false, nil
	}
	schema, err := store.Schema(ctx, l.Store)
	return schema < store.SchemaShares, err
}

// shared returns true if nodes share the store.
func (l Ledger) shared() bool { return l.Member != nil }

// Leases calls fn with every lease of a pool, those in cooldown included.
func (l Ledger) Leases(ctx context.Context, id string, fn func(a netip.Addr, kv store.KV) error) error {
	prefix := LeasePrefix + id + "/"
	return l.Store.Range(ctx, prefix, func(kv store.KV) error {
		a, err := netip.ParseAddr(strings.TrimPrefix(kv.Key, prefix))
		if err != nil {
			return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
		}
		return fn(a, kv)
	})
}

// pool returns a cache with the record of a pool.
func (l Ledger) pool(ctx context.Context, id string) (*cache, error) {
	kv, err := l.Store.Get(ctx, Key(id))
	if err != nil {
		return nil, err
	}
	rec, err := DecodeRecord(kv)
	if err != nil {
		return nil, err
	}
	c, err := option.ParseStored(rec.Options)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	return &cache{Subnet: addr.NewSubnet(rec.Subnet, rec.Range, c.Exclude), config: c, rec: rec, rev: kv.Rev, taken: addr.NewBitmap(),
		shares: map[string]share{}}, nil
}

// shares returns the networks that share a pool, by share.
func (l Ledger) shares(ctx context.Context, id string) (map[string]share, error) {
	prefix, shares := SharePrefix+id+"/", map[string]share{}
	err := l.Store.Range(ctx, prefix, func(kv store.KV) error {
		shares[strings.TrimPrefix(kv.Key, prefix)] = newShare(kv)
		return nil
	})
	return shares, err
}

// keys lists the keys under a prefix.
func (l Ledger) keys(ctx context.Context, prefix string) ([]string, error) {
	var keys []string
	err := l.Store.Range(ctx, prefix, func(kv store.KV) error {
		keys = append(keys, kv.Key)
		return nil
	})
	return keys, err
}

// Commit runs one transaction, whose first operation must change its record. In a shared store it has the condition that this node is a
// member. If the answer is lost, Commit reads the first record back: if the write is there, the result is OK. Its revision is 0, for unknown,
// if the first operation is a deletion.
func (l Ledger) Commit(ctx context.Context, conds []store.Cond, ops ...store.Op) (store.Result, error) {
	if l.Member != nil {
		member, err := l.Member.Cond(ctx)
		if err != nil {
			return store.Result{}, err
		}
		conds = append([]store.Cond{member}, conds...)
	}
	r, err := l.Store.Txn(ctx, conds, ops)
	if l.Member != nil && err == nil && !r.OK && r.Failed == conds[0] {
		if _, err = l.Member.Refresh(ctx, conds[0]); err == nil {
			err = ErrChanged
		}
		return r, err
	}
	if !errors.Is(err, store.ErrAmbiguous) {
		return r, err
	}
	kv, readErr := l.Store.Get(ctx, ops[0].Key)
	switch {
	case errors.Is(readErr, store.ErrNotFound) && ops[0].Value == nil:
		return store.Result{OK: true}, nil
	case readErr == nil && ops[0].Value != nil && bytes.Equal(kv.Value, ops[0].Value):
		return store.Result{OK: true, Rev: kv.Rev}, nil
	case readErr != nil && !errors.Is(readErr, store.ErrNotFound):
		return store.Result{}, fmt.Errorf("%w (%w)", err, readErr)
	}
	return store.Result{}, err
}

// backoff is the pause between two attempts of [Retry]. If many nodes write one record at once, as when all join a pool, one of them
// succeeds at a time, and random pauses keep the others apart.
var backoff = retry.Backoff{First: 2 * time.Millisecond, Max: 250 * time.Millisecond}

// retryTime bounds the attempts of [Retry]. An engine waits some 10 seconds for an answer.
const retryTime = 9 * time.Second

// Retry runs f until its error does not match [ErrChanged], or ctx ends.
func Retry(ctx context.Context, f func() error) error {
	return retry.Do(ctx, backoff, retryTime, func(err error) bool { return errors.Is(err, ErrChanged) }, f)
}
