package pool

import (
	"context"
	"errors"
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
	shares, err := p.ledger.shares(ctx, p.id)
	if err != nil {
		return Record{}, false, err
	}
	if _, ok := shares[h.Share]; !ok && (h.Share != "" || len(shares) > 0) {
		return Record{}, false, store.ErrNotFound
	}
	rec, err = DecodeRecord(kv)
	plan := removal{conds: []store.Cond{store.Unchanged(kv)}}
	if gone = len(shares) < 2; gone {
		err = p.planPool(ctx, &plan, rec, shares) // also if the record cannot be read
	} else if err == nil {
		err = p.planShare(ctx, &plan, h, rec, shares)
	}
	if err != nil {
		return Record{}, false, err
	}
	if err = p.apply(ctx, plan); err == nil && p.cache != nil {
		delete(p.cache.shares, h.Share)
	}
	p.Invalidate()
	return rec, gone, err
}

// A removal is what to write so that a pool, or a share of one, is removed.
type removal struct {
	conds  []store.Cond // of every transaction
	leases []store.Op   // may be written before the rest, in any number of transactions

	lastConds []store.Cond // of the last transaction
	last      []store.Op
}

// leasesAtOnce is how many leases are removed with one transaction in a store that limits its operations.
const leasesAtOnce = 1000

// apply writes a removal.
func (p *Pool) apply(ctx context.Context, plan removal) error {
	commit := func(conds []store.Cond, ops []store.Op) error {
		r, err := p.ledger.Commit(ctx, conds, ops...)
		if err == nil && !r.OK {
			err = ErrChanged
		}
		return err
	}
	for p.ledger.Batched && len(plan.leases) > leasesAtOnce {
		if err := commit(plan.conds, plan.leases[:leasesAtOnce]); err != nil {
			return err
		}
		plan.leases = plan.leases[leasesAtOnce:]
	}
	return commit(slices.Concat(plan.conds, plan.lastConds), slices.Concat(plan.last, plan.leases))
}

// planPool plans the removal of the pool, on the condition that no network has joined it since its shares were read.
func (p *Pool) planPool(ctx context.Context, plan *removal, rec Record, shares map[string]share) error {
	var newest int64
	plan.last = []store.Op{store.Del(Key(p.id))}
	for name, s := range shares {
		newest = max(newest, s.rev)
		plan.last = append(plan.last, store.Del(shareKey(Handle{p.id, name})))
	}
	plan.conds = append(plan.conds, store.NotNewer(SharePrefix+p.id+"/", newest))
	leases, err := p.ledger.keys(ctx, leasePrefix+p.id+"/")
	if err != nil {
		return err
	}
	for _, key := range leases {
		plan.leases = append(plan.leases, store.Del(key))
	}
	if c, err := option.ParseStored(rec.Options); err == nil && c.PoolName != "" {
		plan.last = append(plan.last, store.Del(NameKey(c.PoolName, rec.Subnet.Addr().Is6())))
	}
	if rec.FromDefault {
		plan.last = append(plan.last, store.Del(CarvedKey(rec.Subnet)))
	}
	return nil
}

// planShare plans the removal of one share, on the condition that another one is left. While there may be older nodes, whose removals do not
// have it, the pool's record is written, so that the last two shares are not removed at once.
func (p *Pool) planShare(ctx context.Context, plan *removal, h Handle, rec Record, shares map[string]share) error {
	for name, s := range shares {
		if name != h.Share {
			plan.conds = append(plan.conds, store.Cond{Key: shareKey(Handle{p.id, name}), Rev: s.rev})
			break
		}
	}
	plan.last = []store.Op{store.Del(shareKey(h))}
	held, err := p.leasesOf(ctx, h)
	if err != nil {
		return err
	}
	for _, l := range held {
		if l.Addr == rec.Gateway {
			continue
		}
		// The replica is a hint, and may have what was released since and is another node's now. What is this share's changes by this node alone.
		_, ok, err := p.leaseOf(ctx, h, l.Addr)
		if err != nil {
			return err
		}
		if ok {
			plan.leases = append(plan.leases, store.Del(LeaseKey(p.id, l.Addr)))
		}
	}
	if rec.Gateway.IsValid() {
		err = p.planGateway(ctx, plan, h, rec)
	}
	if err != nil || slices.ContainsFunc(plan.last, func(op store.Op) bool { return op.Key == Key(p.id) }) {
		return err
	}
	older, err := p.ledger.hasOlderNodes(ctx)
	if err != nil || !older {
		return err
	}
	op, err := record.Put(Key(p.id), rec)
	plan.last = append(plan.last, op)
	return err
}

// planGateway plans what becomes of the gateway's lease when one share is removed: other shares may have it, too.
func (p *Pool) planGateway(ctx context.Context, plan *removal, h Handle, rec Record) error {
	kv, err := p.ledger.Store.Get(ctx, LeaseKey(p.id, rec.Gateway))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	lease, err := DecodeLease(kv)
	if err != nil || !slices.Contains(lease.Holders, h.Share) {
		return nil // a lease that cannot be read stays, as everywhere
	}
	plan.lastConds = append(plan.lastConds, store.Unchanged(kv))
	if lease.Holders = without(lease.Holders, h.Share); len(lease.Holders) > 0 {
		op, err := record.Put(kv.Key, lease)
		plan.last = append(plan.last, op)
		return err
	}
	rec.Gateway, rec.Invented = netip.Addr{}, false
	op, err := record.Put(Key(p.id), rec)
	plan.last = append(plan.last, op, store.Del(kv.Key))
	return err
}

// leasesOf lists the leases of a handle: those that the replica has, or else, as before a removal by an operator, those in the store. A lease
// that cannot be read stays, as everywhere.
func (p *Pool) leasesOf(ctx context.Context, h Handle) ([]HeldLease, error) {
	if p.cache != nil && p.cache.replica != nil {
		if held, err := p.cache.replica.leasesOf(h); err == nil {
			return held, nil
		}
	}
	var held []HeldLease
	err := p.ledger.Leases(ctx, p.id, func(a netip.Addr, kv store.KV) error {
		if lease, err := DecodeLease(kv); err == nil && lease.isOf(h) {
			held = append(held, HeldLease{a, kv.Rev, lease})
		}
		return nil
	})
	return held, err
}

// without returns holders without one.
func without(holders []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(holders), func(h string) bool { return h == one })
}
