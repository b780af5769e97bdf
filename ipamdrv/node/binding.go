package node

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// Which network has a handle is known to this node alone, and is in the file that has the network driver's networks: one is not lost without
// the other. So a network that a handle is bound to, and that the network driver does not have, was removed. The shared store has no say in
// it: its records outlive the ledger of the node that made them.

// A Binding is what the node knows of a handle of its engine.
type Binding struct {
	pool.Handle
	Subnet  netip.Prefix
	Created time.Time
	Group   string // of pools that help each other out; "" for none
	Network string // "" for unknown
	Order   uint64 // a handle that was bound later has a larger one
	// Invented is a gateway that the engine requested, but not by its address.
	Invented netip.Addr
}

// Bindings returns what the node knows of its handles, in their order. It reads only the own ledger.
func (n *Node) Bindings(ctx context.Context) ([]Binding, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.loadLocked(ctx)
	var all []Binding
	for _, text := range slices.Sorted(maps.Keys(n.handles)) {
		if h, ok := pool.ParseHandle(text); ok {
			rec := n.handles[text]
			all = append(all, Binding{h, rec.Subnet, rec.Created, rec.Group, rec.Network, rec.Bound, rec.Invented})
		}
	}
	return all, err
}

// Network returns the network that has a handle, "" for unknown.
func (n *Node) Network(ctx context.Context, h pool.Handle) (string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.loadLocked(ctx)
	return n.handles[h.String()].Network, err
}

// Bind records that a network, which the network driver has, has a handle. If the gateway unused is one that the engine invented, its release
// is enqueued in the same step. The error matches [pool.ErrUnknownPool] if the node does not have the handle.
func (n *Node) Bind(ctx context.Context, h pool.Handle, network string, unused netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.loadLocked(ctx)
	rec, ok := n.handles[h.String()]
	if err == nil && !ok {
		err = pool.Refuse(pool.ErrUnknownPool, "no such pool")
	}
	if err != nil {
		return err
	}
	rec.bind(network, n.handles)
	if !unused.IsValid() || rec.Invented != unused {
		return n.putHandleLocked(ctx, h, rec)
	}
	release, write, err := n.placeLocked(h.ID, pool.Op{Do: pool.ReleaseAddress, Share: h.Share, Addr: unused})
	if err != nil {
		return err
	}
	rec.Invented = netip.Addr{}
	if err := n.putHandleLocked(ctx, h, rec, write); err != nil {
		return err
	}
	n.ops[h.ID] = append(n.ops[h.ID], release)
	return nil
}

// bind sets the network of a handle, as the last that was bound of all.
func (rec *handleRecord) bind(network string, all map[string]handleRecord) {
	rec.Network, rec.Named, rec.Bound = network, "", 1
	for _, other := range all {
		rec.Bound = max(rec.Bound, other.Bound+1)
	}
}

// Confirm decides on the networks that an older version has recorded in the shared store: exists tells whether the network driver has one.
// Then the handle is bound to it; otherwise its network is unknown. It returns the handles of the latter.
func (n *Node) Confirm(ctx context.Context, exists func(network string) bool) (unknown []pool.Handle, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.loadLocked(ctx); err != nil {
		return nil, err
	}
	for text, rec := range n.handles {
		h, ok := pool.ParseHandle(text)
		if !ok || rec.Named == "" {
			continue
		}
		if exists(rec.Named) {
			rec.Network = rec.Named
		} else {
			unknown = append(unknown, h)
		}
		rec.Named = ""
		if err := n.putHandleLocked(ctx, h, rec); err != nil {
			return unknown, err
		}
	}
	return unknown, nil
}

// SetInvented records the gateway that the engine requested for a handle, but not by its address; it is not valid if there is none.
func (n *Node) SetInvented(ctx context.Context, h pool.Handle, gateway netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	err := n.loadLocked(ctx)
	rec, ok := n.handles[h.String()]
	if err != nil || !ok {
		return err
	}
	rec.Invented = gateway
	return n.putHandleLocked(ctx, h, rec)
}
