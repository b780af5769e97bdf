package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// Pools returns the pools with the counts of their addresses, for operators: all of this node's ledger, or in a shared store those of which
// this node has a handle.
func (d *Driver) Pools(ctx context.Context) (*admin.Pools, error) {
	if err := d.pools.breaker.Unavailable(); err != nil {
		return nil, err
	}
	networks, err := networksOfPools(ctx, d.pools)
	if err != nil {
		return nil, err
	}
	all := &admin.Pools{Pools: []admin.Pool{}}
	for _, id := range slices.Sorted(maps.Keys(networks)) {
		p, err := poolStatus(ctx, d.pools, id, func(netip.Addr, pool.Lease) {})
		if errors.Is(err, store.ErrNotFound) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return nil, err
		}
		p.Networks = slices.Compact(slices.Sorted(slices.Values(append(p.Networks, networks[id]...))))
		all.Pools = append(all.Pools, *p)
	}
	sort.Slice(all.Pools, func(i, j int) bool {
		a, b := &all.Pools[i], &all.Pools[j]
		return cmp.Or(cmp.Compare(a.Subnet, b.Subnet), cmp.Compare(a.ID, b.ID)) < 0
	})
	return all, nil
}

// Pool returns the pool of a handle, as RequestPool answered it, with the counts of its addresses.
func (d *Driver) Pool(ctx context.Context, handle string) (*admin.Pool, error) {
	h, ok := pool.ParseHandle(handle)
	if !ok {
		return nil, pool.Refuse(ErrUnknownPool, "pool %.80q: no such pool", handle)
	}
	return poolStatus(ctx, d.pools, h.ID, func(netip.Addr, pool.Lease) {})
}

// networksOfPools returns the IDs of the pools of this node, with the networks that are known to have them.
func networksOfPools(ctx context.Context, ps *pools) (map[string][]string, error) {
	networks := map[string][]string{}
	add := func(id, network string) {
		networks[id] = slices.Clone(networks[id])
		if network != "" {
			networks[id] = append(networks[id], network)
		}
	}
	if ps.node != nil {
		all, err := ps.node.Bindings(ctx)
		for _, b := range all {
			add(b.Handle.ID, b.Network)
		}
		return networks, err
	}
	err := ps.ledger.Store.Range(ctx, pool.Prefix, func(kv store.KV) error {
		rec, _ := pool.DecodeRecord(kv) // the zero value of a record that cannot be read; poolStatus reports it
		add(strings.TrimPrefix(kv.Key, pool.Prefix), rec.Network)
		return nil
	})
	if err != nil {
		return nil, err
	}
	err = ps.ledger.Store.Range(ctx, pool.SharePrefix, func(kv store.KV) error {
		id, _, _ := strings.Cut(strings.TrimPrefix(kv.Key, pool.SharePrefix), "/")
		rec, _ := pool.DecodeShare(kv) // likewise
		add(id, rec.Network)
		return nil
	})
	return networks, err
}

// poolStatus reads one pool and counts its leases, and calls each with them.
func poolStatus(ctx context.Context, ps *pools, id string, each func(netip.Addr, pool.Lease)) (*admin.Pool, error) {
	kv, err := ps.ledger.Store.Get(ctx, pool.Key(id))
	if err != nil {
		return nil, err
	}
	rec, err := pool.DecodeRecord(kv)
	if err != nil {
		return nil, err
	}
	config, err := option.ParseStored(rec.Options)
	if err != nil {
		return nil, err
	}
	subnet := addr.NewSubnet(rec.Subnet, rec.Range, config.Exclude)
	p := &admin.Pool{ID: id, Subnet: rec.Subnet.String(), Options: rec.Options, Size: subnet.Count(), Name: config.PoolName}
	if rec.Range.IsValid() {
		p.Range = rec.Range.String()
	}
	if rec.Gateway.IsValid() {
		p.Gateway = rec.Gateway.String()
	}
	err = ps.ledger.Leases(ctx, id, func(a netip.Addr, kv store.KV) error {
		lease, _ := pool.DecodeLease(kv)
		each(a, lease)
		switch lease.Kind { // one that cannot be read is leased
		case pool.Prefetched:
			p.Prefetched++
		case pool.Cooldown:
			p.Cooldown++
		default:
			p.Leased++
		}
		return nil
	})
	return p, err
}

// Leases returns the leases of a pool in the order of their addresses, or that of one address, for operators. A pool that is not there has none.
func (d *Driver) Leases(ctx context.Context, r *admin.LeasesRequest) (*admin.Leases, error) {
	all := &admin.Leases{Leases: []admin.Lease{}}
	if r.Pool == "" {
		return nil, pool.Refuse(ErrInvalid, "leases: the request names no pool")
	}
	if err := d.pools.breaker.Unavailable(); err != nil {
		return nil, err
	}
	type entry struct {
		addr  netip.Addr
		lease pool.Lease
	}
	var entries []entry
	nodes, err := nodesOfShares(ctx, d.pools, r.Pool)
	if err != nil {
		return nil, err
	}
	err = leasesAsked(ctx, d.pools, r, func(a netip.Addr, kv store.KV) error {
		lease, err := pool.DecodeLease(kv)
		if err != nil {
			lease = pool.Lease{Kind: "unreadable"}
		}
		entries = append(entries, entry{a, lease})
		return nil
	})
	sort.Slice(entries, func(i, j int) bool { return entries[i].addr.Less(entries[j].addr) })
	for _, e := range entries {
		l := admin.Lease{Address: e.addr.String(), Kind: kindName(e.lease.Kind), Container: e.lease.Name, MAC: e.lease.MAC, Node: e.lease.Node,
			Since: e.lease.Since}
		if len(e.lease.Holders) == 1 { // a gateway can be that of many nodes
			l.Node = cmp.Or(l.Node, nodes[e.lease.Holders[0]])
		}
		all.Leases = append(all.Leases, l)
	}
	return all, err
}

// leasesAsked calls fn with the leases that are asked for.
func leasesAsked(ctx context.Context, ps *pools, r *admin.LeasesRequest, fn func(netip.Addr, store.KV) error) error {
	if r.Address == "" {
		return ps.ledger.Leases(ctx, r.Pool, fn)
	}
	a, err := addr.Parse(r.Address)
	if err != nil {
		return pool.Invalid(err)
	}
	kv, err := ps.ledger.Store.Get(ctx, pool.LeaseKey(r.Pool, a))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return fn(a, kv)
}

// nodesOfShares returns the nodes of the networks that share a pool, by share.
func nodesOfShares(ctx context.Context, ps *pools, id string) (map[string]string, error) {
	nodes, prefix := map[string]string{}, pool.SharePrefix+id+"/"
	err := ps.ledger.Store.Range(ctx, prefix, func(kv store.KV) error {
		rec, _ := pool.DecodeShare(kv) // the node of one that cannot be read is not known
		nodes[strings.TrimPrefix(kv.Key, prefix)] = rec.Node
		return nil
	})
	return nodes, err
}

// kindName returns the term for a kind of lease; records have older words.
func kindName(k pool.Kind) string {
	switch k {
	case pool.Exact:
		return "requested"
	case pool.Cooldown:
		return "cooldown"
	case pool.Prefetched:
		return "prefetched"
	}
	return string(k)
}
