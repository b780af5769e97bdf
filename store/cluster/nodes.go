package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mellanox/passthrough/store"
)

// Node is one of the nodes that share a store.
type Node struct {
	ID   string
	Name string    // of the host, for people
	Lost bool      // an operator has removed it
	Seen time.Time // by its own clock; zero if it is not known
}

// Nodes lists the nodes in the order of their IDs. A node whose record cannot be read has no name.
func Nodes(ctx context.Context, shared store.Store) ([]Node, error) {
	var all []Node
	seen, err := seenTimes(ctx, shared)
	if err != nil {
		return nil, err
	}
	err = shared.Range(ctx, prefixMember, func(kv store.KV) error {
		n, _ := node(kv) // an unreadable record has no name
		n.Seen = seen[n.ID]
		all = append(all, n)
		return nil
	})
	return all, err
}

// node decodes the record of a member.
func node(kv store.KV) (Node, error) {
	text, err := versioned(kv)
	state, name, _ := strings.Cut(text, " ")
	return Node{ID: strings.TrimPrefix(kv.Key, prefixMember), Name: name, Lost: state == stateLost}, err
}

// Present returns the condition that a node is not removed; lost is true if it is.
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

// RemoveNode marks a node as lost: each of its writes fails from then on, and what it holds may be released. It is for an operator who
// knows that the node is off: if its containers still run, others get their addresses. It can be repeated. The error matches
// [store.ErrNotFound] if there is no such node.
func RemoveNode(ctx context.Context, shared store.Store, id string) error {
	key := prefixMember + id
	for {
		kv, err := shared.Get(ctx, key)
		if err != nil {
			return fmt.Errorf("node %.64q: forget: %w", id, err)
		}
		n, _ := node(kv) // a node with an unreadable record can be removed, too
		if n.Lost {
			return nil
		}
		put := []store.Op{store.Put(key, member(stateLost, n.Name)), store.Del(prefixProcess + id), store.Del(prefixSeen + id)}
		if _, err = shared.Txn(ctx, []store.Cond{store.Unchanged(kv)}, put); err != nil && !errors.Is(err, store.ErrAmbiguous) {
			return fmt.Errorf("node %.64q: forget: %w", id, err)
		}
	}
}
