package ipamdrv

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// localHandle is a handle of this node's engine, with what this node knows of it.
type localHandle struct {
	pool.Handle
	subnet  netip.Prefix
	network string // of the network driver on this node; "" for unknown
	group   string // of pools that help each other out; "" for none
	created int64  // in nanoseconds
	dhcp    bool   // a DHCP server leases its addresses
	order   int64  // a later handle of the same network has a larger one
}

// createdNetwork is a network that the network driver on this node has just created, with one of its pools, as the engine says it.
type createdNetwork struct {
	id      string
	space   string
	subnet  netip.Prefix
	gateway netip.Addr   // not valid: none
	aux     []netip.Addr // of --aux-address
}

// has returns true if the network has this gateway and exactly these auxiliary addresses, in any order.
func (n createdNetwork) has(gateway netip.Addr, aux []netip.Addr) bool {
	sorted := func(some []netip.Addr) []netip.Addr {
		return slices.Compact(slices.SortedFunc(slices.Values(some), netip.Addr.Compare))
	}
	return gateway == n.gateway && slices.Equal(sorted(aux), sorted(n.aux))
}

// BindPool is called when the network driver on this node has just created a network with a pool of that address space, with the gateway and
// the auxiliary addresses that the engine says. It records whose the pool is, which the engine's requests do not say: the pool that this
// process was asked for, and that has this subnet and exactly these addresses. If there is not exactly one, or if one that a former process
// was asked for may be meant, it records nothing. unused says that the network does not use the gateway: engines before 28 request one for
// every network, and a small subnet has no address to spare. Addresses may have prefix lengths.
func (d *Driver) BindPool(ctx context.Context, network, space, subnet, gateway string, aux []string, unused bool) {
	prefix, err := netip.ParsePrefix(subnet)
	if err != nil || space != localSpace && space != globalSpace {
		return // another IPAM driver's
	}
	n := createdNetwork{id: network, space: space, subnet: prefix, gateway: addrOf(gateway)}
	for _, text := range aux {
		n.aux = append(n.aux, addrOf(text))
	}
	log := d.log.With(zap.Stringer("pool", prefix), zap.String("network", network))
	all, err := d.pools.localHandles(ctx)
	former := d.pools.ofFormerProcess(ctx, all, n)
	h, possible := d.pools.unbound.take(n, former)
	if h.ID == "" {
		if slices.ContainsFunc(all, func(h localHandle) bool { return h.network == network && h.subnet == prefix }) {
			return // the engine has repeated the call
		}
		log.Warn("it is not known which pool the network has: addresses without a container stay in its pool until the network is removed",
			zap.Int("possible", possible), zap.Int("from_before_restart", former), zap.Error(err))
		return
	}
	if !unused {
		n.gateway = netip.Addr{}
	}
	if err := d.pools.bind(ctx, h, network, n.gateway); err != nil {
		log.Warn("pool is not bound to its network: addresses without a container stay in it until the network is removed",
			zap.Stringer("id", h), zap.Error(err))
		return
	}
	d.warnOfGroup(ctx, h, network)
}

// ofFormerProcess returns how many of all handles may be the network's though this process was not asked for them: it was started between the
// request for the pool and the creation of the network, or another network of that time is still being created. The handle of a network that
// exists is none of them: it is bound, or a container has an address. A shared store is not asked; what is not known of it may be.
func (ps *pools) ofFormerProcess(ctx context.Context, all []localHandle, n createdNetwork) (possible int) {
	for _, h := range all {
		if h.network == "" && h.subnet == n.subnet && !ps.unbound.knows(h.Handle) && ps.mayHave(ctx, h.Handle, n) {
			possible++
		}
	}
	return possible
}

// mayHave returns false if the ledger shows that a handle is not the network's.
func (ps *pools) mayHave(ctx context.Context, h pool.Handle, n createdNetwork) bool {
	var held []pool.HeldLease
	var ofPool netip.Addr // the pool's gateway, which not each of its networks has
	known := false
	if ps.node != nil {
		held, ofPool, known = pool.PeekHeld(ctx, ps.get(h.ID), h)
	} else if p, err := ps.open(ctx, h); err == nil {
		ofPool = p.Record().Gateway
		held, err = p.Held(ctx, h)
		known = err == nil
		p.Unlock()
	}
	if !known {
		return true
	}
	var own netip.Addr
	var aux []netip.Addr
	for _, l := range held {
		switch {
		case l.OfContainer():
			return false
		case l.Kind == pool.Gateway:
			own = l.Addr
		case l.Kind == pool.Exact:
			aux = append(aux, l.Addr)
		}
	}
	return n.has(own, aux) || !own.IsValid() && n.has(ofPool, aux)
}

// addrOf parses an address, which may have a prefix length; it is not valid if there is none.
func addrOf(text string) netip.Addr {
	text, _, _ = strings.Cut(text, "/")
	a, _ := netip.ParseAddr(text) // not valid with an error
	return a.Unmap()
}

// bind records which network has a handle, and releases the gateway unused, which the network does not use, if no user named it. In a shared
// store it writes only to this node's own ledger; the gateway is released in the background.
func (ps *pools) bind(ctx context.Context, h pool.Handle, network string, unused netip.Addr) error {
	if ps.node != nil {
		return ps.node.Bind(ctx, h, network, unused)
	}
	p, err := ps.open(ctx, h)
	if err != nil {
		return err
	}
	defer p.Unlock()
	if err := p.Bind(ctx, h, network); err != nil || !unused.IsValid() {
		return err
	}
	return p.ReleaseInventedGateway(ctx, h, unused)
}

// networkOf returns the network that has a handle of p, "" for unknown. The caller has the lock on p, which is loaded.
func (ps *pools) networkOf(ctx context.Context, p *pool.Pool, share string) (string, error) {
	h := pool.Handle{ID: p.ID(), Share: share}
	if ps.node != nil {
		return ps.node.Network(ctx, h)
	}
	return p.Local(h).Named, nil
}

// localHandles lists the handles of this node's engine. It reads only this node's own ledger. It skips records that cannot be read.
func (ps *pools) localHandles(ctx context.Context) ([]localHandle, error) {
	if ps.node == nil {
		return ps.storedHandles(ctx)
	}
	bindings, err := ps.node.Bindings(ctx)
	var all []localHandle
	for _, b := range bindings {
		all = append(all, localHandle{Handle: b.Handle, subnet: b.Subnet, network: b.Network, group: b.Group, created: b.Created.UnixNano(),
			order: int64(b.Order)})
	}
	return all, err
}

// storedHandles is localHandles for a store of this node alone.
func (ps *pools) storedHandles(ctx context.Context) ([]localHandle, error) {
	shares := map[string][]localHandle{}
	err := ps.ledger.Store.Range(ctx, pool.SharePrefix, func(kv store.KV) error {
		id, share, _ := strings.Cut(strings.TrimPrefix(kv.Key, pool.SharePrefix), "/")
		if rec, err := pool.DecodeShare(kv); err == nil {
			h := pool.Handle{ID: id, Share: share}
			shares[id] = append(shares[id], localHandle{Handle: h, network: rec.Network, created: rec.Created.UnixNano()})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []localHandle
	err = ps.ledger.Store.Range(ctx, pool.Prefix, func(kv store.KV) error {
		rec, err := pool.DecodeRecord(kv)
		if err != nil {
			return nil
		}
		id := strings.TrimPrefix(kv.Key, pool.Prefix)
		handles := shares[id]
		if len(handles) == 0 {
			handles = []localHandle{{Handle: pool.Handle{ID: id}, network: rec.Network, created: rec.Created.UnixNano()}}
		}
		for _, h := range handles {
			h.subnet, h.group, h.order = rec.Subnet, rec.Options["overflow"], h.created
			h.dhcp = rec.Options["dhcp"] == "yes"
			all = append(all, h)
		}
		return nil
	})
	return all, err
}
