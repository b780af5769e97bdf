package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// Forget ends everything that a node has in a ledger that nodes share: an operator knows that the node is lost. From then on
// its writes fail; when it comes back it begins anew. It can be repeated. The error matches [store.ErrNotFound] when nothing
// in the ledger is of such a node.
func Forget(ctx context.Context, shared store.Store, id string) (handles int, err error) {
	d, err := New(Config{Store: shared})
	if err != nil {
		return 0, err
	}
	d.ledger.far = true
	err = cluster.RemoveNode(ctx, shared, id)
	known := err == nil
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return 0, err
	}
	all, err := d.handlesOf(ctx, id)
	if err != nil {
		return 0, err
	}
	if !known && len(all) == 0 {
		return 0, fmt.Errorf("node %.64q: nothing in the ledger is of such a node: %w", id, store.ErrNotFound)
	}
	for _, h := range all {
		if err := d.releasePool(ctx, h); err != nil {
			return handles, fmt.Errorf("node %s: forget: %w", id, err)
		}
		handles++
	}
	return handles, nil
}

// Handles is how many pools, or shares of them, a node has in a ledger that nodes share.
func Handles(ctx context.Context, shared store.Store, id string) (int, error) {
	d, err := New(Config{Store: shared})
	if err != nil {
		return 0, err
	}
	all, err := d.handlesOf(ctx, id)
	return len(all), err
}

// handlesOf lists what a node has: pools of its own and shares of others.
func (d *Driver) handlesOf(ctx context.Context, id string) ([]handle, error) {
	var all []handle
	err := d.ledger.store.Range(ctx, poolPrefix, func(kv store.KV) error {
		var rec poolRecord
		if err := decode(kv, &rec, &rec.V); err == nil && rec.Node == id {
			all = append(all, handle{id: strings.TrimPrefix(kv.Key, poolPrefix)})
		}
		return nil // whose a record is that cannot be read nobody knows
	})
	if err != nil {
		return nil, err
	}
	err = d.ledger.store.Range(ctx, sharePrefix, func(kv store.KV) error {
		var rec shareRecord
		pool, share, _ := strings.Cut(strings.TrimPrefix(kv.Key, sharePrefix), "/")
		if err := decode(kv, &rec, &rec.V); err == nil && rec.Node == id {
			all = append(all, handle{pool, share})
		}
		return nil
	})
	return all, err
}
