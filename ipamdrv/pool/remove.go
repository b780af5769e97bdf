package pool

import (
	"context"
	"net/netip"
	"slices"

	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// Remove removes one handle: the pool with all that is left in it or, while others share it, only what this handle has. It works without the
// cache, so that a pool that cannot be loaded can be removed. gone is true if the pool was removed. The error matches [store.ErrNotFound] if
// there is no such handle.
func (p *Pool) Remove(ctx context.Context, h Handle) (rec Record, gone bool, err error) {
	kv, err := p.ledger.Store.Get(ctx, Key(p.id))
	if err != nil {
		return Record{}, false, err
	}
	shares, err := p.ledger.keys(ctx, SharePrefix+p.id+"/")
	if err != nil {
		return Record{}, false, err
	}
	if (h.Share != "" || len(shares) > 0) && !slices.Contains(shares, shareKey(h)) {
		return Record{}, false, store.ErrNotFound
	}
	rec, err = DecodeRecord(kv)
	var plan removal
	if gone = len(shares) < 2; gone {
		plan, err = p.poolRemoval(ctx, rec, shares) // also if the record cannot be read
	} else if err == nil {
		plan, err = p.shareRemoval(ctx, h, rec)
	}
	if err != nil {
		return Record{}, false, err
	}
	p.Invalidate()
	return rec, gone, p.apply(ctx, kv, plan)
}

// A removal is what to write so that a pool, or a share of one, is removed.
type removal struct {
	leases []store.Op   // may be written before the rest, in any number of transactions
	conds  []store.Cond // of the last transaction
	last   []store.Op
}

// leasesAtOnce is how many leases are removed with one transaction in a store that limits its operations.
const leasesAtOnce = 1000

// apply writes a removal, as long as the pool's record is kv.
func (p *Pool) apply(ctx context.Context, kv store.KV, plan removal) error {
	same := store.Unchanged(kv)
	commit := func(conds []store.Cond, ops []store.Op) error {
		r, err := p.ledger.Commit(ctx, conds, ops...)
		if err == nil && !r.OK {
			err = ErrChanged
		}
		return err
	}
	for p.ledger.Batched && len(plan.leases) > leasesAtOnce {
		if err := commit([]store.Cond{same}, plan.leases[:leasesAtOnce]); err != nil {
			return err
		}
		plan.leases = plan.leases[leasesAtOnce:]
	}
	return commit(append(plan.conds, same), slices.Concat(plan.last, plan.leases))
}

// poolRemoval returns what to write so that the pool is removed.
func (p *Pool) poolRemoval(ctx context.Context, rec Record, shares []string) (removal, error) {
	plan := removal{last: []store.Op{store.Del(Key(p.id))}}
	leases, err := p.ledger.keys(ctx, leasePrefix+p.id+"/")
	if err != nil {
		return plan, err
	}
	for _, key := range leases {
		plan.leases = append(plan.leases, store.Del(key))
	}
	for _, key := range shares {
		plan.last = append(plan.last, store.Del(key))
	}
	if c, err := option.ParseStored(rec.Options); err == nil && c.PoolName != "" {
		plan.last = append(plan.last, store.Del(NameKey(c.PoolName, rec.Subnet.Addr().Is6())))
	}
	if rec.FromDefault {
		plan.last = append(plan.last, store.Del(CarvedKey(rec.Subnet)))
	}
	return plan, nil
}

// shareRemoval returns what to write so that one share is removed. It writes the pool's record in any case: concurrent requests to the pool
// must notice. A lease with further holders must be unchanged: it may have got more.
func (p *Pool) shareRemoval(ctx context.Context, h Handle, rec Record) (removal, error) {
	plan := removal{last: []store.Op{store.Del(shareKey(h))}}
	err := p.ledger.Leases(ctx, p.id, func(a netip.Addr, kv store.KV) error {
		lease, err := DecodeLease(kv)
		if err != nil || !slices.Contains(lease.Holders, h.Share) {
			return nil // a lease that cannot be read stays, as everywhere
		}
		if lease.Holders = without(lease.Holders, h.Share); len(lease.Holders) > 0 {
			op, err := record.Put(kv.Key, lease)
			plan.conds, plan.last = append(plan.conds, store.Unchanged(kv)), append(plan.last, op)
			return err
		}
		if a == rec.Gateway {
			rec.Gateway, rec.Invented = netip.Addr{}, false
			plan.conds, plan.last = append(plan.conds, store.Unchanged(kv)), append(plan.last, store.Del(kv.Key))
			return nil
		}
		plan.leases = append(plan.leases, store.Del(kv.Key))
		return nil
	})
	if err != nil {
		return plan, err
	}
	op, err := record.Put(Key(p.id), rec)
	plan.last = append(plan.last, op)
	return plan, err
}

// without returns holders without one.
func without(holders []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(holders), func(h string) bool { return h == one })
}
