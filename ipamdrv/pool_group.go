package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sort"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// If one of a network's subnets is full, the engine does not request an address of the next: it recognizes the error only from its own IPAM
// drivers (libnetwork endpoint.go, assignAddressVersion, compares errors by identity). Nor does it say which pools are one network's. So the
// pools that help each other out form a group, which has a name that the user gives (option overflow).

// group lists this node's pools of a group and family, in the order of their creation. It reads only this node's own ledger: the same network
// has pools of its own on other nodes.
func (ps *pools) group(ctx context.Context, name string, v6 bool) ([]localHandle, error) {
	all, err := ps.localHandles(ctx)
	all = slices.DeleteFunc(all, func(h localHandle) bool { return h.group != name || h.subnet.Addr().Is6() != v6 })
	sort.Slice(all, func(i, j int) bool {
		a, b := &all[i], &all[j]
		return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.ID, b.ID)) < 0
	})
	return all, err
}

// lends returns true if a pool of a group gives addresses in place of another one: both are of one network, as far as it is known. A container
// of another network with such an address would be on another segment, and that network's garbage collection does not know it.
func (h localHandle) lends(to localHandle) bool {
	return h.Handle != to.Handle && h.network == to.network
}

// warnOfGroup warns if a network has got a pool of a group in which another network has pools.
func (d *Driver) warnOfGroup(ctx context.Context, h pool.Handle, network string) {
	all, err := d.pools.localHandles(ctx)
	i := slices.IndexFunc(all, func(o localHandle) bool { return o.Handle == h })
	if err != nil || i < 0 || all[i].group == "" {
		return
	}
	for _, o := range all {
		if o.group == all[i].group && o.network != "" && o.network != network {
			d.log.Warn("two networks have pools with the same name for option overflow: pools help each other out only within one network; "+
				"give each network a name of its own", zap.String("overflow", o.group), zap.Stringer("pool", all[i].subnet),
				zap.String("network", network), zap.Stringer("other_pool", o.subnet), zap.String("other_network", o.network))
			return
		}
	}
}

// checkGroup refuses a pool that overlaps another one of its group: an address would not tell which pool it is of.
func (c *creator) checkGroup(ctx context.Context, q *poolRequest) error {
	if q.config.Group == "" {
		return nil
	}
	all, err := c.pools.group(ctx, q.config.Group, q.v6)
	for _, m := range all {
		if m.subnet.Overlaps(q.rec.Subnet) {
			return pool.Refuse(ErrInvalid, "ipam option overflow: %q is said for subnet %s, too; subnets that overlap cannot help each "+
				"other out, take another name", q.config.Group, m.subnet)
		}
	}
	return err
}

// fromGroup leases an address of the pool id, or of another one of its group: the one that is kept for the container, wherever it is; or a free
// one; or the one that has been kept longest for another container.
func (al *allocator) fromGroup(ctx context.Context, id, group string, subnet addr.Subnet, q addressRequest) (string, error) {
	all, err := al.pools.group(ctx, group, subnet.Prefix.Addr().Is6())
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(all, func(m localHandle) bool { return m.ID == id })
	if i < 0 {
		return "", pool.Refuse(ErrUnknownPool, "removed meanwhile; create the network again")
	}
	own := all[i]
	members := append([]localHandle{own}, slices.DeleteFunc(all, func(m localHandle) bool { return !m.lends(own) })...)
	var full error // of the pool itself
	for _, choice := range []pool.Choice{pool.OwnKept, pool.Free, pool.OtherKept} {
		if choice == pool.OwnKept && !q.lease.HasIdentity() {
			continue
		}
		q.choice = choice | q.choice&pool.Unread
		for _, m := range members {
			got, err := al.fromMember(ctx, m, id, q)
			if errors.Is(err, store.ErrNewer) && m.ID != id && choice != pool.OtherKept {
				continue // the pool itself may have an address after all
			}
			if !errors.Is(err, ErrFull) {
				return got, err
			}
			if m.ID == id {
				full = err
			}
		}
	}
	return "", full
}

// fromMember leases an address of the pool m of a group, in place of the pool id if it is another one. The error matches ErrFull if m was removed.
func (al *allocator) fromMember(ctx context.Context, m localHandle, id string, q addressRequest) (string, error) {
	p, err := al.pools.enter(ctx, m.Handle)
	if errors.Is(err, ErrUnknownPool) && m.ID != id {
		return "", ErrFull
	}
	if err != nil {
		return "", err
	}
	if m.ID != id {
		q.lease.Via = id
	}
	var got string
	err = p.UnlockAfter(func() (err error) {
		got, err = al.allocate(ctx, p, q)
		return err
	})
	return got, err
}

// releaseFromGroup releases an address that another pool of the group gave in place of the pool id.
func (ps *pools) releaseFromGroup(ctx context.Context, id, group string, a netip.Addr, at time.Time) (bool, error) {
	other, lease, err := ps.leasedVia(ctx, id, group, a)
	if err != nil || other == "" {
		return false, err
	}
	p, err := ps.open(ctx, pool.Handle{ID: other})
	if errors.Is(err, ErrUnknownPool) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer p.Unlock()
	return p.Release(ctx, a, pool.Released{Token: lease.Token, At: at})
}

// leasedVia finds the pool of the group that gave address a in place of the pool id, and the lease; "" for none.
func (ps *pools) leasedVia(ctx context.Context, id, group string, a netip.Addr) (string, pool.Lease, error) {
	all, err := ps.group(ctx, group, a.Is6())
	i := slices.IndexFunc(all, func(m localHandle) bool { return m.ID != id && m.subnet.Contains(a) })
	if err != nil || i < 0 {
		return "", pool.Lease{}, err
	}
	kv, err := ps.ledger.Store.Get(ctx, pool.LeaseKey(all[i].ID, a))
	if errors.Is(err, store.ErrNotFound) {
		return "", pool.Lease{}, nil
	}
	lease, decodeErr := pool.DecodeLease(kv)
	if err = errors.Join(err, decodeErr); err != nil || lease.Via != id {
		return "", pool.Lease{}, err
	}
	return all[i].ID, lease, nil
}
