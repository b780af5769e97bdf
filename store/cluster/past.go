package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/mellanox/passthrough/store"
)

// keyPast is where the node's own ledger has the newest state that the shared one has shown, see [store.Rememberer].
const keyPast = "cluster/past"

// Recall tells the shared ledger what this node has seen of it before. It must be called before the first use of that.
func Recall(ctx context.Context, own, shared store.Store) error {
	r, ok := shared.(store.Rememberer)
	if !ok {
		return nil
	}
	kv, err := own.Get(ctx, keyPast)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err == nil {
		err = r.Recall(kv.Value)
	}
	if err != nil {
		return fmt.Errorf("record %s: %w", keyPast, err)
	}
	return nil
}

// Remember writes down what this node has seen of the shared ledger. What it sees between the last call and its end it does
// not know any more afterwards.
func Remember(ctx context.Context, own, shared store.Store) error {
	r, ok := shared.(store.Rememberer)
	if !ok {
		return nil
	}
	past := r.Past()
	if past == nil {
		return nil
	}
	kv, err := own.Get(ctx, keyPast)
	if err == nil && bytes.Equal(kv.Value, past) {
		return nil
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	_, err = own.Txn(ctx, nil, []store.Op{store.Put(keyPast, past)})
	return err
}

// Accept forgets what this node has seen of the shared ledger: an operator has seen to it that an older state of it, such as
// one that was restored from a backup, is right.
func Accept(ctx context.Context, own store.Store) error {
	_, err := own.Txn(ctx, nil, []store.Op{store.Del(keyPast)})
	return err
}
