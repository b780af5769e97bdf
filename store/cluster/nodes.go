package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// Node is one of the nodes that share a ledger.
type Node struct {
	ID   string
	Name string // what people call it
	Lost bool   // an operator said so
}

// Nodes lists them in the order of their IDs. One whose record cannot be read is there without a name.
func Nodes(ctx context.Context, shared store.Store) ([]Node, error) {
	var all []Node
	err := shared.Range(ctx, prefixMember, func(kv store.KV) error {
		n, _ := node(kv) // what cannot be read has no name
		all = append(all, n)
		return nil
	})
	return all, err
}

// node reads the record of a member.
func node(kv store.KV) (Node, error) {
	says, err := versioned(kv)
	state, name, _ := strings.Cut(says, " ")
	return Node{ID: strings.TrimPrefix(kv.Key, prefixMember), Name: name, Lost: state == stateLost}, err
}

// Present is the condition that a node is not declared lost; lost is true when it is already.
func Present(ctx context.Context, shared store.Store, id string) (present store.Cond, lost bool, err error) {
	kv, err := shared.Get(ctx, prefixMember+id)
	if errors.Is(err, store.ErrNotFound) {
		return store.Absent(prefixMember + id), false, nil
	}
	if err != nil {
		return store.Cond{}, false, err
	}
	n, err := node(kv)
	return store.Unchanged(kv), n.Lost, err
}

// Forget declares a node lost: each of its writes fails from then on, and what it held may be ended. It is for an operator
// who knows that the node is off: its containers, should they still run, have addresses that others get. It can be
// repeated. The error matches [store.ErrNotFound] when there is no such node.
func Forget(ctx context.Context, shared store.Store, id string) error {
	key := prefixMember + id
	for {
		kv, err := shared.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("node %.64q: forget: %w", id, err)
		}
		n, _ := node(kv) // one that cannot be read can be lost, too
		if n.Lost {
			return nil
		}
		put := []store.Op{store.Put(key, member(stateLost, n.Name))}
		if _, err = shared.Txn(ctx, []store.Cond{store.Unchanged(kv)}, put); err != nil && !errors.Is(err, store.ErrAmbiguous) {
			return fmt.Errorf("node %.64q: forget: %w", id, err)
		}
	}
}
