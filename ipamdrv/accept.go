package ipamdrv

import (
	"context"
	"fmt"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// Accept has a node take the ledger that nodes share for the truth as it is now, though it is older than what the node has seen;
// own is the node's own, which no process uses. What the node has ahead may be somebody else's there: the node forgets it, and
// finds again what is still its own.
func Accept(ctx context.Context, own store.Store) error {
	var ops []store.Op
	err := own.Range(ctx, reservePrefix, func(kv store.KV) error {
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
