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
	r := &removal{p: p, h: h, shares: shares, conds: []store.Cond{store.Unchanged(kv)}}
	r.rec, err = DecodeRecord(kv)
	if gone = len(shares) < 2; gone {
		err = r.planPool(ctx) // also if the record cannot be read
	} else if err == nil {
		err = r.planShare(ctx)
	}
	if err != nil {
		return Record{}, false, err
	}
	if err = r.write(ctx); err == nil && p.cache != nil {
		delete(p.cache.shares, h.Share)
	}
	p.Invalidate()
	return r.rec, gone, err
}

// A removal is the removal of the pool p, or of the share of it that h has: what was read, and what to write.
type removal struct {
	p      *Pool
	h      Handle
	rec    Record // of the pool
	shares map[string]share

	conds  []store.Cond // of every transaction
	leases []store.Op   // may be written before the rest, in any number of transactions

	lastConds []store.Cond // of the last transaction
	last      []store.Op
}

// leasesAtOnce is how many leases are removed with one transaction in a store that limits its operations.
const leasesAtOnce = 1000

// write writes what was planned.
func (r *removal) write(ctx context.Context) error {
	commit := func(conds []store.Cond, ops []store.Op) error {
		result, err := r.p.ledger.Commit(ctx, conds, ops...)
		if err == nil && !result.OK {
			err = ErrChanged
		}
		return err
	}
	for r.p.ledger.Batched && len(r.leases) > leasesAtOnce {
		if err := commit(r.conds, r.leases[:leasesAtOnce]); err != nil {
			return err
		}
		r.leases = r.leases[leasesAtOnce:]
	}
	return commit(slices.Concat(r.conds, r.lastConds), slices.Concat(r.last, r.leases))
}

// planPool plans the removal of the pool, on the condition that no network has joined it since its shares were read.
func (r *removal) planPool(ctx context.Context) error {
	id := r.p.id
	var newest int64
	r.last = []store.Op{store.Del(Key(id))}
	for name, s := range r.shares {
		newest = max(newest, s.rev)
		r.last = append(r.last, store.Del(shareKey(Handle{id, name})))
	}
	r.conds = append(r.conds, store.NotNewer(SharePrefix+id+"/", newest))
	err := r.p.ledger.Store.Range(ctx, LeasePrefix+id+"/", func(kv store.KV) error {
		r.leases = append(r.leases, store.Del(kv.Key))
		more, err := owedFor(id, kv)
		r.last = append(r.last, more...)
		return err
	})
	if err != nil {
		return err
	}
	if c, err := option.ParseStored(r.rec.Options); err == nil && c.PoolName != "" {
		r.last = append(r.last, store.Del(NameKey(c.PoolName, r.rec.Subnet.Addr().Is6())))
	}
	if r.rec.FromDefault {
		r.last = append(r.last, store.Del(CarvedKey(r.rec.Subnet)))
	}
	return nil
}

// planShare plans the removal of one share, on the condition that another one is left. While there may be older nodes, whose removals do not
// have it, the pool's record is written, so that the last two shares are not removed at once.
func (r *removal) planShare(ctx context.Context) error {
	for name, s := range r.shares {
		if name != r.h.Share {
			r.conds = append(r.conds, store.Cond{Key: shareKey(Handle{r.p.id, name}), Rev: s.rev})
			break
		}
	}
	r.last = []store.Op{store.Del(shareKey(r.h))}
	leases, err := r.p.leasesOf(ctx, r.h) // they change by this node alone, which has the lock
	if err != nil {
		return err
	}
	for _, l := range leases {
		if l.Addr != r.rec.Gateway {
			r.leases = append(r.leases, store.Del(LeaseKey(r.p.id, l.Addr)))
			more, err := owed(r.p.id, l.Lease)
			if err != nil {
				return err
			}
			r.last = append(r.last, more...)
		}
	}
	written, err := r.planGateway(ctx)
	if err != nil || written {
		return err
	}
	older, err := r.p.ledger.hasOlderNodes(ctx)
	if err != nil || !older {
		return err
	}
	return r.putRecord()
}

// planGateway plans what becomes of the gateway's lease when one share is removed: other shares may have it, too. It returns true if the
// pool's record is written.
func (r *removal) planGateway(ctx context.Context) (written bool, err error) {
	if !r.rec.Gateway.IsValid() {
		return false, nil
	}
	kv, err := r.p.ledger.Store.Get(ctx, LeaseKey(r.p.id, r.rec.Gateway))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lease, err := DecodeLease(kv)
	if err != nil || !slices.Contains(lease.Holders, r.h.Share) {
		return false, nil // a lease that cannot be read stays, as everywhere
	}
	r.lastConds = append(r.lastConds, store.Unchanged(kv))
	if lease.Holders = without(lease.Holders, r.h.Share); len(lease.Holders) > 0 {
		op, err := record.Put(kv.Key, lease)
		r.last = append(r.last, op)
		return false, err
	}
	r.last = append(r.last, store.Del(kv.Key))
	r.rec.Gateway, r.rec.Invented = netip.Addr{}, false
	return true, r.putRecord()
}

// putRecord plans to write the pool's record.
func (r *removal) putRecord() error {
	op, err := record.Put(Key(r.p.id), r.rec)
	r.last = append(r.last, op)
	return err
}

// leasesOf reads the leases of a handle: those that the replica names or, while it does not know all and before a removal by an operator, all
// of the pool. The replica is a hint: what it names may have been released since, and be another node's. A lease that cannot be read is not
// among them.
func (p *Pool) leasesOf(ctx context.Context, h Handle) (leases []HeldLease, err error) {
	add := func(a netip.Addr, kv store.KV) error {
		if lease, err := DecodeLease(kv); err == nil && lease.isOf(h) {
			leases = append(leases, HeldLease{a, kv.Rev, lease})
		}
		return nil
	}
	var named []HeldLease
	if err = ErrLoading; p.cache != nil {
		named, err = p.cache.replica.leasesOf(h)
	}
	if err != nil {
		err = p.ledger.Leases(ctx, p.id, add)
		return leases, err
	}
	for _, l := range named {
		kv, err := p.ledger.Store.Get(ctx, LeaseKey(p.id, l.Addr))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err == nil {
			err = add(l.Addr, kv)
		}
		if err != nil {
			return nil, err
		}
	}
	return leases, nil
}

// without returns holders without one.
func without(holders []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(holders), func(h string) bool { return h == one })
}
