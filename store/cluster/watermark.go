package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mellanox/passthrough/store"
)

// keyWatermark is the key in the node's own ledger of the newest state that the shared store has shown, see [store.RollbackDetector].
const keyWatermark = "cluster/past"

// LoadWatermark tells the shared store what this node has seen of it before. It must be called before the first use of shared.
func LoadWatermark(ctx context.Context, own, shared store.Store) error {
	d, ok := shared.(store.RollbackDetector)
	if !ok {
		return nil
	}
	kv, err := own.Get(ctx, keyWatermark)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = d.SetWatermark(kv.Value)
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", keyWatermark, err)
	}
	return nil
}

// SaveWatermark stores what this node has seen of the shared store. What it sees after the last call is lost with the process.
func SaveWatermark(ctx context.Context, own, shared store.Store) error {
	d, ok := shared.(store.RollbackDetector)
	if !ok {
		return nil
	}
	watermark := d.Watermark()
	if watermark == nil {
		return nil
	}
	kv, err := own.Get(ctx, keyWatermark)
	if err == nil && bytes.Equal(kv.Value, watermark) {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	_, err = own.Txn(ctx, nil, []store.Op{store.Put(keyWatermark, watermark)})
	return err
}

// ClearWatermark deletes what this node has seen of the shared store. It is for an operator who has made sure that an older state, such as
// one restored from a backup, is right.
func ClearWatermark(ctx context.Context, own store.Store) error {
	_, err := own.Txn(ctx, nil, []store.Op{store.Del(keyWatermark)})
	return err
}
