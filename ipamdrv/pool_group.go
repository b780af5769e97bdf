package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// If one of a network's subnets is full, the engine does not request an address of the next: it recognizes the error only from its own IPAM
// drivers (libnetwork endpoint.go, assignAddressVersion, compares errors by identity). Nor does it say which pools are one network's. So the
// pools that help each other out form a group, which has a name that the user gives (option overflow).

// groupMember is one pool of a group.
type groupMember struct {
	id  string
	rec pool.Record
}

// group lists this node's pools of a group and family, in the order of their creation.
func (ps *pools) group(ctx context.Context, name string, v6 bool) ([]groupMember, error) {
	var all []groupMember
	err := ps.ledger.Store.Range(ctx, pool.Prefix, func(kv store.KV) error {
		rec, err := pool.DecodeRecord(kv)
		if err != nil || rec.Options["overflow"] != name || rec.Subnet.Addr().Is6() != v6 {
			return nil // a pool that cannot be read has no address to give
		}
		id := strings.TrimPrefix(kv.Key, pool.Prefix)
		local, err := ps.node.HasPool(ctx, id) // the same network has pools of its own on other nodes
		if local {
			all = append(all, groupMember{id, rec})
		}
		return err
	})
	slices.SortFunc(all, func(a, b groupMember) int {
		return cmp.Or(a.rec.Created.Compare(b.rec.Created), cmp.Compare(a.id, b.id))
	})
	return all, err
}

// checkGroup refuses a pool that overlaps another one of its group: an address would not tell which pool it is of.
func (c *creator) checkGroup(ctx context.Context, q *poolRequest) error {
	if q.config.Group == "" {
		return nil
	}
	all, err := c.pools.group(ctx, q.config.Group, q.v6)
	for _, m := range all {
		if m.rec.Subnet.Overlaps(q.rec.Subnet) {
			return pool.Refuse(ErrInvalid, "ipam option overflow: %q is said for subnet %s, too; subnets that overlap cannot help each "+
				"other out, take another name", q.config.Group, m.rec.Subnet)
		}
	}
	return err
}

// fromGroup leases an address of another pool of the group, because the pool id is full.
func (al *allocator) fromGroup(ctx context.Context, id, group string, subnet addr.Subnet, q addressRequest, full error) (string, error) {
	all, err := al.pools.group(ctx, group, subnet.Prefix.Addr().Is6())
	if err != nil {
		return "", err
	}
	q.lease.Via = id
	for _, m := range all {
		if m.id == id {
			continue
		}
		_, p, err := al.pools.open(ctx, pool.Handle{ID: m.id}.String())
		if errors.Is(err, ErrUnknownPool) {
			continue // removed since
		}
		if err != nil {
			return "", err
		}
		var got string
		err = p.UnlockAfter(func() (err error) {
			got, err = al.allocate(ctx, p, q)
			return err
		})
		if !errors.Is(err, ErrFull) {
			return got, err
		}
	}
	return "", full
}

// releaseFromGroup releases an address that another pool of the group gave in place of the pool id.
func (ps *pools) releaseFromGroup(ctx context.Context, id, group string, a netip.Addr, at time.Time) (bool, error) {
	other, lease, err := ps.leasedVia(ctx, id, group, a)
	if err != nil || other == "" {
		return false, err
	}
	_, p, err := ps.open(ctx, pool.Handle{ID: other}.String())
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
	i := slices.IndexFunc(all, func(m groupMember) bool { return m.id != id && m.rec.Subnet.Contains(a) })
	if err != nil || i < 0 {
		return "", pool.Lease{}, err
	}
	kv, err := ps.ledger.Store.Get(ctx, pool.LeaseKey(all[i].id, a))
	if errors.Is(err, store.ErrNotFound) {
		return "", pool.Lease{}, nil
	}
	lease, decodeErr := pool.DecodeLease(kv)
	if err = errors.Join(err, decodeErr); err != nil || lease.Via != id {
		return "", pool.Lease{}, err
	}
	return all[i].id, lease, nil
}
