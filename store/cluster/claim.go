package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/mellanox/passthrough/store"
)

// Claim makes the record of the first of keys that nobody holds, with value, which must say that this node holds it and
// be like no other that it claims with. conds must hold as well, such as that what the keys belong to is as it was. The
// error matches [ErrTaken] when there is no key left, and [ErrChanged] when one of conds does not hold.
//
// When it is not known whether the record was made, it is released as soon as that can be found out, see [Node.Deliver]:
// the caller has been told that the claim came to nothing.
func (n *Node) Claim(ctx context.Context, keys iter.Seq[string], value []byte, conds ...store.Cond) (store.KV, error) {
	member, err := n.enlisted(ctx)
	if err != nil {
		return store.KV{}, err
	}
	for key := range keys {
		if n.deliverFor(ctx, key) != nil {
			continue // it may still be ours from before
		}
		absent := store.Absent(key)
		all := append([]store.Cond{member, absent}, conds...)
		r, err := n.shared.Txn(ctx, all, []store.Op{store.Put(key, value)})
		switch {
		case errors.Is(err, store.ErrAmbiguous):
			return store.KV{}, errors.Join(err, n.enqueue(ctx, errand{key: key, token: store.Doubt(err), value: notNil(value)}))
		case err != nil:
			return store.KV{}, err
		case r.OK:
			return store.KV{Key: key, Value: value, Rev: r.Rev}, nil
		case r.Failed == member:
			return store.KV{}, ErrForgotten
		case r.Failed != absent:
			return store.KV{}, fmt.Errorf("record %s: %w", r.Failed.Key, ErrChanged)
		}
	}
	return store.KV{}, ErrTaken
}

// Release ends this node's hold of key. When the shared store is away it is queued, durably, and counts as done: until it
// is delivered nobody else gets what key stands for. The error matches [ErrNotHeld] when there is nothing to release.
func (n *Node) Release(ctx context.Context, key string) error {
	e := errand{key: key}
	err := n.release(ctx, e)
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous) {
		return n.enqueue(ctx, e)
	}
	return err
}

// release removes the record that e is about.
func (n *Node) release(ctx context.Context, e errand) error {
	member, err := n.enlisted(ctx)
	if err != nil {
		return err
	}
	for {
		kv, err := n.shared.Get(ctx, e.key)
		if errors.Is(err, store.ErrNotFound) || err == nil && !n.meant(e, kv.Value) {
			return fmt.Errorf("%s: %w", e.key, ErrNotHeld)
		}
		if err != nil {
			return err
		}
		r, err := n.shared.Txn(ctx, []store.Cond{member, store.Unchanged(kv)}, []store.Op{store.Del(e.key)})
		switch {
		case err != nil:
			return err
		case r.OK:
			return nil
		case r.Failed == member:
			return ErrForgotten
		}
	}
}

// notNil is a copy of value that is not nil.
func notNil(value []byte) []byte { return append([]byte{}, value...) }

// meant says whether a record with that value is the one that e is about.
func (n *Node) meant(e errand, value []byte) bool {
	if e.value != nil {
		return bytes.Equal(e.value, value)
	}
	return n.held(n.ID, value)
}
