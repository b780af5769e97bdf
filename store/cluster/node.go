package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"
	"sync"

	"github.com/mellanox/passthrough/store"
)

// Where records lie: this node's own identity and queue in its own ledger, the members in the shared store.
const (
	keyNode      = "cluster/node"    // the node's ID
	prefixErrand = "cluster/errand/" // see errand
	prefixMember = "cluster/member/" // cluster/member/ID
	memberValue  = "1"               // the version of that record
	startUnit    = 64                // nodes begin at multiples of this many candidates
)

// Errors that callers can match with errors.Is.
var (
	// ErrForgotten: an operator has declared this node lost. What it held may be somebody else's by now.
	ErrForgotten = errors.New("this node was declared lost; its addresses may be in use elsewhere")
	// ErrTaken: every candidate is held by somebody.
	ErrTaken = errors.New("all are taken")
	// ErrChanged: a condition of the caller's does not hold.
	ErrChanged = errors.New("changed meanwhile")
	// ErrNotHeld: the record is not held by this node.
	ErrNotHeld = errors.New("not held by this node")
)

// Node is this node as a member of the cluster. Its methods may be called concurrently; those on one key must not.
type Node struct {
	ID string

	own, shared store.Store
	held        func(node string, value []byte) bool // whether a record with that value is held by that node

	turn    chan struct{}     // holds a value while a release is delivered
	mu      sync.Mutex        // guards the fields below
	queue   map[string]errand // by its place in the own ledger
	reserve map[string][]byte // values of records that this node holds for nobody yet
	member  store.Cond        // see enlisted; no key when that is not known yet
}

// Identity is the node's ID: random, made once and kept in its own ledger.
func Identity(ctx context.Context, own store.Store) (string, error) {
	for {
		kv, err := own.Get(ctx, keyNode)
		if err == nil {
			return string(kv.Value), nil
		}
		if !errors.Is(err, store.ErrNotFound) {
			return "", fmt.Errorf("node's identity: %w", err)
		}
		id := strings.ToLower(rand.Text())
		r, err := own.Txn(ctx, []store.Cond{store.Absent(keyNode)}, []store.Op{store.Put(keyNode, []byte(id))})
		if err != nil {
			return "", fmt.Errorf("node's identity: %w", err)
		}
		if r.OK {
			return id, nil
		}
	}
}

// Join makes this node a member. own is its own ledger, shared what it shares with the others, which may be away for now;
// held says whether a record with that value is held by that node.
func Join(ctx context.Context, own, shared store.Store, held func(node string, value []byte) bool) (*Node, error) {
	id, err := Identity(ctx, own)
	if err != nil {
		return nil, err
	}
	n := &Node{ID: id, own: own, shared: shared, held: held, turn: make(chan struct{}, 1),
		queue: map[string]errand{}, reserve: map[string][]byte{}}
	if err := errors.Join(n.loadQueue(ctx), n.loadReserve(ctx)); err != nil {
		return nil, fmt.Errorf("node %s: join: %w", id, err)
	}
	return n, nil
}

// keyMember is where the node's own ledger keeps the revision of its record as a member: it tells after a restart that
// the node was forgotten meanwhile.
const keyMember = "cluster/member"

// enlisted is the condition that this node is a member, which every write of its to the shared store is made under.
func (n *Node) enlisted(ctx context.Context) (store.Cond, error) {
	n.mu.Lock()
	known := n.member
	n.mu.Unlock()
	if known.Key != "" {
		return known, nil
	}
	member, err := n.enlist(ctx)
	if err != nil {
		return store.Cond{}, fmt.Errorf("node %s: join: %w", n.ID, err)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.member = member
	return member, nil
}

// enlist finds or makes the node's record as a member.
func (n *Node) enlist(ctx context.Context) (store.Cond, error) {
	key := prefixMember + n.ID
	kv, err := n.shared.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		ops := []store.Op{store.Put(key, []byte(memberValue))}
		if _, err = n.shared.Txn(ctx, []store.Cond{store.Absent(key)}, ops); err == nil || errors.Is(err, store.ErrAmbiguous) {
			kv, err = n.shared.Get(ctx, key)
		}
	}
	if err != nil {
		return store.Cond{}, err
	}
	known, err := n.own.Get(ctx, keyMember)
	switch now := fmt.Append(nil, kv.Rev); {
	case errors.Is(err, store.ErrNotFound):
		if _, err := n.own.Txn(ctx, nil, []store.Op{store.Put(keyMember, now)}); err != nil {
			return store.Cond{}, err
		}
	case err != nil:
		return store.Cond{}, err
	case string(known.Value) != string(now):
		return store.Cond{}, ErrForgotten
	}
	return store.Unchanged(kv), nil
}

// Forget declares a node lost: each of its writes fails from then on, and release may end what it held. It is for an
// operator who knows that the node is off: its containers, should they still run, have addresses that others get.
func Forget(ctx context.Context, shared store.Store, id string) error {
	key := prefixMember + id
	kv, err := shared.Get(ctx, key)
	if err != nil {
		return fmt.Errorf("node %.64q: forget: %w", id, err)
	}
	r, err := shared.Txn(ctx, []store.Cond{store.Unchanged(kv)}, []store.Op{store.Put(key, []byte(memberValue))})
	if err == nil && !r.OK {
		err = errors.New("somebody else has just done that")
	}
	if err != nil {
		return fmt.Errorf("node %.64q: forget: %w", id, err)
	}
	return nil
}

// Start is where the node begins to look for a free one of n candidates: a place of its own, which what is claimed in
// mixes into it, in units that neighbours seldom share.
func Start(node, pool string, n uint64) uint64 {
	if n == 0 {
		return 0
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(node + "\x00" + pool)) // never fails
	units := (n + startUnit - 1) / startUnit
	return mix(h.Sum64()) % units * startUnit
}

// mix spreads what differs in few bits over all of them (the finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
