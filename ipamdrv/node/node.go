// Package node is what one node keeps for itself beside a store that nodes share: its outbox, the addresses that it has leased ahead, and the
// handles that its engine has. It keeps them in the node's own ledger, which is always available.
//
//	node/owed/POOL/NUMBER         pool.Op: what to do in the shared store as soon as it is available; intents are in the journal
//	node/mine/HANDLE              handleRecord: a handle of this node's engine, and which network has it
//	node/reserve/HANDLE/ADDRESS   pool.Lease: a prefetched address
//
// It must not know the engine's requests. A store that is not shared has no node: most methods of a nil [Node] say so.
package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/record"
)

// A Node is this node among those that share a store.
type Node struct {
	own     store.Store
	journal Journal
	member  *cluster.Member

	mu         sync.Mutex // guards the fields below; it is held while the own ledger is written, which takes milliseconds
	loaded     bool
	ops        map[string][]op                      // the outbox, by pool, in order
	nextOp     uint64                               // number of the next op
	handles    map[string]handleRecord              // of this node's engine
	prefetched map[string]map[netip.Addr]pool.Lease // by handle
	reconciled map[string]bool                      // handles whose prefetched addresses were compared with the shared store
}

// Journal keeps entries that survive the process but not a power cut, see package journal.
type Journal interface {
	Add(key string, value []byte) error
	Remove(key string) error
	Entries() (map[string][]byte, error)
}

// Prefixes of keys in the own ledger.
const (
	opPrefix     = "node/owed/"
	handlePrefix = "node/mine/"
	// PrefetchPrefix is that of prefetched addresses.
	PrefetchPrefix = "node/reserve/"
)

// handleRecord is what the node knows of a handle without the shared store.
type handleRecord struct {
	record.Extra
	V        int          `json:"v"`
	Subnet   netip.Prefix `json:"subnet"`
	Prefetch int          `json:"reserve,omitempty"` // addresses to lease ahead
	Created  time.Time    `json:"created,omitzero"`  // zero in a record of a version that did not keep it
	Group    string       `json:"group,omitempty"`   // of pools that help each other out
	// Network is the network that has the handle; "" for unknown. If the network driver, whose records are in the same file, does not have it a
	// grace period later, the network was removed or never came to be.
	Network string `json:"network,omitempty"`
	// Bound is the position of the handle among those that were bound on this node; 0 if an older version has bound it.
	Bound uint64 `json:"bound,omitempty"`
	// Named is the network that an older version has recorded in the shared store. It counts if the network driver has it.
	Named string `json:"named,omitempty"`
	// Invented is a gateway that the engine requested, but not by its address.
	Invented netip.Addr `json:"invented,omitzero"`
}

// New returns a node whose own ledger has not been read yet. shared is the store of all nodes, name the node's name for people.
func New(own, shared store.Store, journal Journal, name string) *Node {
	return &Node{own: own, journal: journal, member: cluster.New(own, shared, name)}
}

// Member returns the node's membership.
func (n *Node) Member() *cluster.Member { return n.member }

// loadLocked reads the own ledger, once.
func (n *Node) loadLocked(ctx context.Context) error {
	if n.loaded {
		return nil
	}
	n.clearLocked()
	err := errors.Join(
		n.own.Range(ctx, opPrefix, func(kv store.KV) error { return n.loadOpLocked(kv, false) }),
		n.own.Range(ctx, handlePrefix, func(kv store.KV) error {
			rec, err := record.Decode[handleRecord](kv, pool.Versions)
			n.handles[strings.TrimPrefix(kv.Key, handlePrefix)] = rec
			return err
		}),
		n.own.Range(ctx, PrefetchPrefix, n.loadPrefetchedLocked))
	if err == nil { // the process that has the ledger open has the journal, too
		err = n.loadIntentsLocked()
	}
	n.loaded = err == nil
	return err
}

// clearLocked empties the cache.
func (n *Node) clearLocked() {
	n.ops, n.handles = map[string][]op{}, map[string]handleRecord{}
	n.prefetched, n.reconciled = map[string]map[netip.Addr]pool.Lease{}, map[string]bool{}
}

// writeLocked writes to the own ledger, also if the caller has gone: what is not written down is lost.
func (n *Node) writeLocked(ctx context.Context, ops ...store.Op) error {
	_, err := n.own.Txn(context.WithoutCancel(ctx), nil, ops)
	if err != nil {
		return fmt.Errorf("this node's own ledger: %w", err)
	}
	return nil
}

// ID returns the node's ID, "" for a store that is not shared.
func (n *Node) ID(ctx context.Context) (string, error) {
	if n == nil {
		return "", nil
	}
	return n.member.ID(ctx)
}

// HasPool returns true if this node's engine has a handle of the pool. In a store that is not shared it has all.
func (n *Node) HasPool(ctx context.Context, id string) (bool, error) {
	if n == nil {
		return true, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.loadLocked(ctx)
	for text := range n.handles {
		if h, ok := pool.ParseHandle(text); ok && h.ID == id {
			return true, nil
		}
	}
	return false, err
}

// Shares lists the shares of a pool that this node's engine has, in order.
func (n *Node) Shares(ctx context.Context, poolID string) ([]string, error) {
	handles, err := n.Handles(ctx)
	var shares []string
	for _, h := range handles {
		if h.ID == poolID && h.Share != "" {
			shares = append(shares, h.Share)
		}
	}
	return shares, err
}

// Handles returns the handles of this node's engine, in order.
func (n *Node) Handles(ctx context.Context) ([]pool.Handle, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.loadLocked(ctx)
	var all []pool.Handle
	for _, text := range slices.Sorted(maps.Keys(n.handles)) {
		if h, ok := pool.ParseHandle(text); ok {
			all = append(all, h)
		}
	}
	return all, err
}

// Claim records a handle as one of this node's engine.
func (n *Node) Claim(ctx context.Context, h pool.LocalHandle) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.loadLocked(ctx); err != nil {
		return err
	}
	return n.claimLocked(ctx, h)
}

func (n *Node) claimLocked(ctx context.Context, h pool.LocalHandle) error {
	rec, have := n.handles[h.String()]
	rec.V, rec.Subnet, rec.Prefetch, rec.Group = pool.RecordVersion, h.Subnet, h.Prefetch, h.Group
	if rec.Created.IsZero() { // new, or of an older version
		if rec.Created = h.Created; rec.Created.IsZero() {
			rec.Created = time.Now().UTC()
		}
		if have || !h.Adopted {
			rec.Named = h.Named
		}
	}
	if h.Network != "" {
		rec.bind(h.Network, n.handles)
	}
	return n.putHandleLocked(ctx, h.Handle, rec)
}

// putHandleLocked writes the record of a handle, if it changed, and more in the same transaction.
func (n *Node) putHandleLocked(ctx context.Context, h pool.Handle, rec handleRecord, more ...store.Op) error {
	if n.handles[h.String()] == rec && len(more) == 0 {
		return nil
	}
	op, err := record.Put(handlePrefix+h.String(), rec)
	if err == nil {
		err = n.writeLocked(ctx, append(more, op)...)
	}
	if err == nil {
		n.handles[h.String()] = rec
	}
	return err
}

// Drop removes a handle and its prefetched addresses. Ops are enqueued in the same transaction. In a store that is not shared it does
// nothing.
func (n *Node) Drop(ctx context.Context, h pool.Handle, ops ...pool.Op) error {
	if n == nil {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.loadLocked(ctx); err != nil {
		return err
	}
	writes := []store.Op{store.Del(handlePrefix + h.String())}
	for a := range n.prefetched[h.String()] {
		writes = append(writes, store.Del(prefetchKey(h, a)))
	}
	var enqueued []op
	for _, o := range ops {
		e, write, err := n.placeLocked(h.ID, o)
		if err != nil {
			return err
		}
		enqueued, writes = append(enqueued, e), append(writes, write)
	}
	if err := n.writeLocked(ctx, writes...); err != nil {
		return err
	}
	delete(n.handles, h.String())
	delete(n.prefetched, h.String())
	n.ops[h.ID] = append(n.ops[h.ID], enqueued...)
	return nil
}

// Clear drops everything that a node has under its ID.
func Clear(ctx context.Context, own store.Store, j Journal) error {
	var writes []store.Op
	for _, prefix := range []string{opPrefix, handlePrefix, PrefetchPrefix} {
		err := own.Range(ctx, prefix, func(kv store.KV) error {
			writes = append(writes, store.Del(kv.Key))
			return nil
		})
		if err != nil {
			return err
		}
	}
	if len(writes) > 0 {
		if _, err := own.Txn(context.WithoutCancel(ctx), nil, writes); err != nil {
			return fmt.Errorf("this node's own ledger: %w", err)
		}
	}
	intents, err := j.Entries()
	for key := range intents {
		err = errors.Join(err, j.Remove(key))
	}
	return err
}

// Reset drops everything that the node has under an ID that was removed from the cluster, and takes a new ID, unless another request has
// done so already.
func (n *Node) Reset(ctx context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, err := n.member.Cond(ctx); !errors.Is(err, cluster.ErrRemoved) {
		return err
	}
	if err := Clear(ctx, n.own, n.journal); err != nil {
		return err
	}
	n.clearLocked()
	return n.member.Renew(ctx)
}

// SaveWatermark stores the newest state that this node has seen of the shared store, so that a rollback is detected later. In a store that
// is not shared it does nothing.
func (n *Node) SaveWatermark(ctx context.Context, shared store.Store) error {
	if n == nil {
		return nil
	}
	return cluster.SaveWatermark(ctx, n.own, shared)
}
