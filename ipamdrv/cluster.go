package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/record"
)

// RemoveNode removes a node from a shared store, with everything that it has there: an operator knows that the node is lost. From then on its
// writes fail; if it comes back, it starts with a new ID. RemoveNode can be repeated. The error matches [store.ErrNotFound] if nothing in the
// store is of such a node.
func RemoveNode(ctx context.Context, shared store.Store, id string) (handles int, err error) {
	d, err := New(Config{Store: shared})
	if err != nil {
		return 0, err
	}
	d.pools.ledger.Batched = true
	err = cluster.RemoveNode(ctx, shared, id)
	known := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	all, err := handlesOf(ctx, shared, id)
	if err != nil {
		return 0, err
	}
	if !known && len(all) == 0 {
		return 0, fmt.Errorf("node %.64q: nothing in the ledger is of such a node: %w", id, store.ErrNotFound)
	}
	for _, h := range all {
		if err := d.pools.release(ctx, h); err != nil {
			return handles, fmt.Errorf("node %s: forget: %w", id, err)
		}
		handles++
	}
	return handles, nil
}

// CountHandles returns how many pools, or shares of pools, each node has in a shared store, by its ID.
func CountHandles(ctx context.Context, shared store.Store) (map[string]int, error) {
	counts := map[string]int{}
	err := eachHandle(ctx, shared, func(_ pool.Handle, node string) { counts[node]++ })
	return counts, err
}

// handlesOf lists the handles that a node owns.
func handlesOf(ctx context.Context, shared store.Store, id string) ([]pool.Handle, error) {
	var all []pool.Handle
	err := eachHandle(ctx, shared, func(h pool.Handle, node string) {
		if node == id {
			all = append(all, h)
		}
	})
	return all, err
}

// eachHandle calls fn with each handle and its owner. A record that cannot be read has no known owner.
func eachHandle(ctx context.Context, shared store.Store, fn func(h pool.Handle, node string)) error {
	err := shared.Range(ctx, pool.Prefix, func(kv store.KV) error {
		if rec, err := record.Decode[pool.Record](kv, pool.Versions); err == nil && rec.Node != "" {
			fn(pool.Handle{ID: strings.TrimPrefix(kv.Key, pool.Prefix)}, rec.Node)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return shared.Range(ctx, pool.SharePrefix, func(kv store.KV) error {
		poolID, share, _ := strings.Cut(strings.TrimPrefix(kv.Key, pool.SharePrefix), "/")
		if rec, err := pool.DecodeShare(kv); err == nil && rec.Node != "" {
			fn(pool.Handle{ID: poolID, Share: share}, rec.Node)
		}
		return nil
	})
}

// AcceptDisk makes a node accept that its disk is in another machine now. own is the node's own ledger, which no process uses.
func AcceptDisk(ctx context.Context, own store.Store) error { return cluster.AcceptMachine(ctx, own) }

// RenewNode makes a copy of a node's disk another node, which has nothing: what the copy has to do in the shared store is the other machine's
// to do. own and journal are the copy's, which no process uses.
func RenewNode(ctx context.Context, own store.Store, j Journal) error {
	if err := node.Clear(ctx, own, j); err != nil {
		return err
	}
	return cluster.ForgetIdentity(ctx, own)
}

// AcceptRestore makes a node accept a shared store as it is now, although it is older than what the node has seen. own is the node's own
// ledger, which no process uses. The node's prefetched addresses may be another node's in the restored store: they are dropped, and the node
// finds again what is still its own.
func AcceptRestore(ctx context.Context, own store.Store) error {
	var ops []store.Op
	err := own.Range(ctx, node.PrefetchPrefix, func(kv store.KV) error {
		ops = append(ops, store.Del(kv.Key))
		return nil
	})
	if err == nil && len(ops) > 0 {
		_, err = own.Txn(ctx, nil, ops)
	}
	if err != nil {
		return fmt.Errorf("this node's own ledger: %w", err)
	}
	return cluster.ClearWatermark(ctx, own)
}
