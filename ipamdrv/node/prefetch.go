package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// Prefetched addresses are what a node can give while the shared store is not available: it has leased them ahead, for no container yet. In
// the shared store each is a lease of kind [pool.Prefetched], in the node's own ledger a record beside. To take one replaces that record, in
// one transaction, by the op that records who has the address now.

// prefetchKey returns the key of a prefetched address in the own ledger.
func prefetchKey(h pool.Handle, a netip.Addr) string {
	return PrefetchPrefix + h.String() + "/" + a.String()
}

// loadPrefetchedLocked reads a prefetched address from the own ledger.
func (n *Node) loadPrefetchedLocked(kv store.KV) error {
	h, text, _ := strings.Cut(strings.TrimPrefix(kv.Key, PrefetchPrefix), "/")
	a, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	lease, err := pool.DecodeLease(kv)
	n.cachePrefetchedLocked(h, a, lease)
	return err
}

// cachePrefetchedLocked adds a prefetched address to the cache.
func (n *Node) cachePrefetchedLocked(h string, a netip.Addr, lease pool.Lease) {
	if n.prefetched[h] == nil {
		n.prefetched[h] = map[netip.Addr]pool.Lease{}
	}
	n.prefetched[h][a] = lease
}

// TakePrefetched takes the first prefetched address of a handle for a lease. The address is not valid if there is none.
func (n *Node) TakePrefetched(ctx context.Context, h pool.Handle, lease pool.Lease) (a netip.Addr, subnet netip.Prefix, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.loadLocked(ctx); err != nil || len(n.prefetched[h.String()]) == 0 {
		return netip.Addr{}, netip.Prefix{}, err
	}
	a = slices.MinFunc(slices.Collect(maps.Keys(n.prefetched[h.String()])), netip.Addr.Compare)
	if err := n.takeLocked(ctx, h, a, lease); err != nil {
		return netip.Addr{}, netip.Prefix{}, err
	}
	return a, n.handles[h.String()].Subnet, nil
}

// takeLocked takes one prefetched address. Until the answer is on its way, the journal has the intent of its release. The intent is for the
// next process, so that it is not in the cache.
func (n *Node) takeLocked(ctx context.Context, h pool.Handle, a netip.Addr, lease pool.Lease) error {
	undo, write, err := n.placeLocked(h.ID, pool.Op{Do: pool.ReleaseAddress, Share: h.Share, Addr: a, Token: lease.Token})
	undo.intent = true
	if err == nil {
		err = n.journal.Add(write.Key, write.Value)
	}
	if err != nil {
		return err
	}
	prefetched := n.prefetched[h.String()][a]
	assign, write, err := n.placeLocked(h.ID,
		pool.Op{Do: pool.AssignLease, Share: h.Share, Addr: a, Token: prefetched.Token, Lease: &lease})
	if err == nil {
		err = n.writeLocked(ctx, write, store.Del(prefetchKey(h, a)))
	}
	if err != nil {
		return errors.Join(err, n.journal.Remove(undo.key))
	}
	delete(n.prefetched[h.String()], a)
	n.ops[h.ID] = append(n.ops[h.ID], assign)
	if err := n.journal.Remove(undo.key); err != nil {
		n.ops[h.ID] = append(n.ops[h.ID], undo) // the request fails with this error
		return err
	}
	return nil
}

// HasPrefetched returns true if a handle has a prefetched address.
func (n *Node) HasPrefetched(ctx context.Context, h pool.Handle) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.loadLocked(ctx) == nil && len(n.prefetched[h.String()]) > 0
}

// Deficit returns how many prefetched addresses a handle lacks.
func (n *Node) Deficit(h pool.Handle) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.handles[h.String()].Prefetch - len(n.prefetched[h.String()])
}

// AddPrefetched records an address that was leased ahead.
func (n *Node) AddPrefetched(ctx context.Context, h pool.Handle, a netip.Addr, lease pool.Lease) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	write, err := record.Put(prefetchKey(h, a), lease)
	if err == nil {
		err = n.writeLocked(ctx, write)
	}
	if err == nil {
		n.cachePrefetchedLocked(h.String(), a, lease)
	}
	return err
}

// Reconcile adds, once, the addresses that were leased ahead for a handle just before this node's process ended. found returns what the shared
// store has. The caller has the lock on the pool, so that no op of it is done meanwhile; an address that was taken is in such an op.
func (n *Node) Reconcile(ctx context.Context, h pool.Handle, found func(context.Context, pool.Handle) (map[netip.Addr]pool.Lease, error)) error {
	n.mu.Lock()
	reconciled := n.reconciled[h.String()]
	n.mu.Unlock()
	if reconciled {
		return nil
	}
	leases, err := found(ctx, h)
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	var writes []store.Op
	for a, lease := range leases {
		_, have := n.prefetched[h.String()][a]
		taken := slices.ContainsFunc(n.ops[h.ID], func(e op) bool { return e.Token == lease.Token })
		if have || taken {
			continue
		}
		write, err := record.Put(prefetchKey(h, a), lease)
		if err != nil {
			return err
		}
		n.cachePrefetchedLocked(h.String(), a, lease)
		writes = append(writes, write)
	}
	if len(writes) > 0 {
		err = n.writeLocked(ctx, writes...)
	}
	n.reconciled[h.String()] = err == nil
	return err
}

// CountPrefetched returns how many prefetched addresses of a pool the node has.
func (n *Node) CountPrefetched(ctx context.Context, poolID string) (count int, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.loadLocked(ctx); err != nil {
		return 0, err
	}
	for text, leases := range n.prefetched {
		if h, ok := pool.ParseHandle(text); ok && h.ID == poolID {
			count += len(leases)
		}
	}
	return count, nil
}
