package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// A reserve is a record that this node holds for nobody yet, to have something to give while the shared store is away.
// In the node's own ledger it is
//
//	cluster/reserve/KEY = VALUE    the value that the shared record has
//
// Drawing from it turns that, in one transaction, into an errand that gives the shared record the value of whoever has
// it now.
const prefixReserve = "cluster/reserve/"

// Fill claims records of keys until there are want in the reserve that ok accepts, or none is left to claim. value makes
// the value of each; no two may be the same.
func (n *Node) Fill(ctx context.Context, keys iter.Seq[string], want int, ok func(key string) bool,
	value func() []byte, conds ...store.Cond) error {
	for missing := want - len(n.Reserved(ok)); missing > 0; missing-- {
		kv, err := n.Claim(ctx, keys, value(), conds...)
		if errors.Is(err, ErrTaken) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reserve: %w", err)
		}
		put := store.Put(prefixReserve+kv.Key, kv.Value)
		if _, err := n.own.Txn(context.WithoutCancel(ctx), nil, []store.Op{put}); err != nil {
			return errors.Join(fmt.Errorf("%s: reserve: %w", kv.Key, err), n.Release(ctx, kv.Key))
		}
		n.mu.Lock()
		n.reserve[kv.Key] = kv.Value
		n.mu.Unlock()
	}
	return nil
}

// Reserved are the keys in the reserve that ok accepts, in order.
func (n *Node) Reserved(ok func(key string) bool) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var keys []string
	for key := range n.reserve {
		if ok(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Draw takes the first record that ok accepts out of the reserve and gives it that value, which says that this node holds
// it. It needs the node's own ledger alone. The error matches [ErrTaken] when the reserve has none.
func (n *Node) Draw(ctx context.Context, ok func(key string) bool, value []byte) (string, error) {
	return n.withdraw(ctx, ok, func(key string, from []byte) errand { return errand{key: key, value: from, to: value} })
}

// GiveBack releases what is in the reserve and ok accepts.
func (n *Node) GiveBack(ctx context.Context, ok func(key string) bool) error {
	for {
		_, err := n.withdraw(ctx, ok, func(key string, from []byte) errand { return errand{key: key, value: from} })
		if errors.Is(err, ErrTaken) {
			return n.Deliver(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// withdraw turns a record in the reserve into an errand.
func (n *Node) withdraw(ctx context.Context, ok func(string) bool, into func(key string, from []byte) errand) (string,
	error) {
	n.mu.Lock()
	defer n.mu.Unlock() // the own ledger answers at once
	var key string
	for k := range n.reserve {
		if ok(k) && (key == "" || k < key) {
			key = k
		}
	}
	if key == "" {
		return "", ErrTaken
	}
	e := into(key, n.reserve[key]).placed()
	ops := []store.Op{store.Del(prefixReserve + key), store.Put(e.at, e.encode())}
	if _, err := n.own.Txn(ctx, nil, ops); err != nil {
		return "", fmt.Errorf("%s: take out of the reserve: %w", key, err)
	}
	delete(n.reserve, key)
	n.queue[e.at] = e
	return key, nil
}

// rewrite gives the record that e is about its new value. One that is gone, or that somebody else has, was released since.
func (n *Node) rewrite(ctx context.Context, e errand) error {
	member, err := n.enlisted(ctx)
	if err != nil {
		return err
	}
	kv, err := n.shared.Get(ctx, e.key)
	if errors.Is(err, store.ErrNotFound) || err == nil && !bytes.Equal(kv.Value, e.value) {
		return nil
	}
	if err != nil {
		return err
	}
	r, err := n.shared.Txn(ctx, []store.Cond{member, store.Unchanged(kv)}, []store.Op{store.Put(e.key, e.to)})
	switch {
	case err != nil:
		return err
	case r.Failed == member:
		return ErrForgotten
	}
	return nil
}

// loadReserve reads the reserve from the ledger.
func (n *Node) loadReserve(ctx context.Context) error {
	return n.own.Range(ctx, prefixReserve, func(kv store.KV) error {
		n.reserve[strings.TrimPrefix(kv.Key, prefixReserve)] = kv.Value
		return nil
	})
}
