package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mellanox/passthrough/store"
)

// When one of a network's subnets is full the engine does not ask for an address of the next: it knows the error for that
// only from IPAM drivers of its own (libnetwork endpoint.go, assignAddressVersion, compares errors by identity). Nor does
// it say which pools are one network's. So the pools that help each other out are known by a name that the user gives.

// member is one pool of a group.
type member struct {
	id  string
	rec poolRecord
}

// group lists this node's pools with this name and family, in order of their making.
func (d *Driver) group(ctx context.Context, name string, v6 bool) ([]member, error) {
	var all []member
	err := d.ledger.store.Range(ctx, poolPrefix, func(kv store.KV) error {
		rec, err := decodePool(kv)
		if err != nil || rec.Options["overflow"] != name || rec.Subnet.Addr().Is6() != v6 {
			return nil // one that cannot be read has nothing to give
		}
		id := strings.TrimPrefix(kv.Key, poolPrefix)
		ours, err := d.node.has(ctx, id) // the same network on other nodes has pools of its own
		if ours {
			all = append(all, member{id, rec})
		}
		return err
	})
	slices.SortFunc(all, func(a, b member) int {
		return cmp.Or(a.rec.Created.Compare(b.rec.Created), cmp.Compare(a.id, b.id))
	})
	return all, err
}

// checkGroup refuses a pool whose group has one that overlaps it: an address would not tell whose it is.
func (d *Driver) checkGroup(ctx context.Context, w *poolWish) error {
	if w.overflow == "" {
		return nil
	}
	all, err := d.group(ctx, w.overflow, w.v6)
	for _, m := range all {
		if m.rec.Subnet.Overlaps(w.rec.Subnet) {
			return refuse(ErrInvalid, "ipam option overflow: %q is said for subnet %s, too; subnets that overlap cannot help each "+
				"other out, take another name", w.overflow, m.rec.Subnet)
		}
	}
	return err
}

// overflow gives an address of another pool of the group, because the pool id is full.
func (d *Driver) overflow(ctx context.Context, id string, s *state, w wish, full error) (string, error) {
	all, err := d.group(ctx, s.config.overflow, s.prefix.Addr().Is6())
	if err != nil {
		return "", err
	}
	w.lease.Via = id
	for _, m := range all {
		if m.id == id {
			continue
		}
		_, p, err := d.pool(ctx, handle{id: m.id}.String())
		if errors.Is(err, ErrUnknownPool) {
			continue // removed since
		}
		if err != nil {
			return "", err
		}
		var got string
		err = p.finish(func() (err error) {
			got, err = d.grant(ctx, p, w)
			return err
		})
		if !errors.Is(err, ErrFull) {
			return got, err
		}
	}
	return "", full
}

// endOverflow ends the lease of an address that another pool of the group gave in place of the pool id.
func (d *Driver) endOverflow(ctx context.Context, id string, s *state, a netip.Addr, at time.Time) (bool, error) {
	other, lease, err := d.lentFor(ctx, id, s, a)
	if err != nil || other == "" {
		return false, err
	}
	_, p, err := d.pool(ctx, handle{id: other}.String())
	if errors.Is(err, ErrUnknownPool) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer p.unlock()
	return p.end(ctx, a, ending{token: lease.Token, at: at})
}

// lentFor finds the pool that gave address a in place of the pool id, and the lease; "" for none.
func (d *Driver) lentFor(ctx context.Context, id string, s *state, a netip.Addr) (string, leaseRecord, error) {
	all, err := d.group(ctx, s.config.overflow, s.prefix.Addr().Is6())
	i := slices.IndexFunc(all, func(m member) bool { return m.id != id && m.rec.Subnet.Contains(a) })
	if err != nil || i < 0 {
		return "", leaseRecord{}, err
	}
	kv, err := d.ledger.store.Get(ctx, leaseKey(all[i].id, a))
	if errors.Is(err, store.ErrNotFound) {
		return "", leaseRecord{}, nil
	}
	lease, decodeErr := decodeLease(kv)
	if err = errors.Join(err, decodeErr); err != nil || lease.Via != id {
		return "", leaseRecord{}, err
	}
	return all[i].id, lease, nil
}
