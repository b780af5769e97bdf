package ipamdrv

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// releasePool ends a handle, at once or as soon as the ledger can be reached. That it will is promised before: an engine whose
// plugin dies meanwhile does not ask again.
func (d *Driver) releasePool(ctx context.Context, h handle) error {
	p := d.entry(h.id)
	if err := p.lock(ctx); err != nil {
		return d.releasePoolLater(ctx, h, err)
	}
	defer p.unlock()
	if d.node == nil {
		return d.releasePoolNow(ctx, p, h)
	}
	promise, err := d.node.owe(ctx, h.id, errand{Do: doLeave, Share: h.share, promise: true})
	if err != nil {
		return err
	}
	if err = d.releasePoolNow(ctx, p, h); err != nil {
		err = d.releasePoolLater(ctx, h, err)
	}
	return errors.Join(err, d.node.done(ctx, h.id, promise))
}

// releasePoolNow ends a handle in the ledger. The caller has the turn.
func (d *Driver) releasePoolNow(ctx context.Context, p *pool, h handle) error {
	var rec poolRecord
	err := again(ctx, func() (err error) {
		var gone bool
		if rec, gone, err = p.leave(ctx, h); err == nil && gone || errors.Is(err, store.ErrNotFound) {
			d.forget(p)
		}
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	default:
		d.log.Info("pool released", zap.String("pool", rec.Subnet.String()), zap.Stringer("id", h))
	}
	return d.node.disown(ctx, h)
}

// releasePoolLater writes down that a handle has to end, if failure means that the ledger cannot be reached.
func (d *Driver) releasePoolLater(ctx context.Context, h handle, failure error) error {
	if !d.node.cannot(failure) {
		return failure
	}
	d.log.Warn("pool is released later", zap.Stringer("id", h), zap.Error(failure))
	return d.node.disown(ctx, h, errand{Do: doLeave, Share: h.share})
}

// leave ends one handle: the pool with all that is left in it, or, while others share it, only what this one has. It works
// without state, so that a pool that cannot be loaded can be removed. gone is true when the pool was removed. The error matches
// [store.ErrNotFound] when there is no such handle.
func (p *pool) leave(ctx context.Context, h handle) (rec poolRecord, gone bool, err error) {
	kv, err := p.ledger.store.Get(ctx, poolKey(p.id))
	if err != nil {
		return poolRecord{}, false, err
	}
	shares, err := p.ledger.keys(ctx, sharePrefix+p.id+"/")
	if err != nil {
		return poolRecord{}, false, err
	}
	if (h.share != "" || len(shares) > 0) && !slices.Contains(shares, shareKey(h)) {
		return poolRecord{}, false, store.ErrNotFound
	}
	rec, err = decodePool(kv)
	var end departure
	if gone = len(shares) < 2; gone {
		end, err = p.removal(ctx, rec, shares) // whatever its record is like
	} else if err == nil {
		end, err = p.shareRemoval(ctx, h, rec)
	}
	if err != nil {
		return poolRecord{}, false, err
	}
	p.state = nil
	return rec, gone, p.depart(ctx, kv, end)
}

// departure is what to write for a pool, or a share of one, to be gone.
type departure struct {
	leases []store.Op   // may be written before, in any number of transactions
	conds  []store.Cond // of the last one
	last   []store.Op
}

// portion is how many leases end with one transaction where a ledger is far away and does not take any number of them.
const portion = 1000

// depart writes it, as long as the pool's record is kv.
func (p *pool) depart(ctx context.Context, kv store.KV, end departure) error {
	same := store.Unchanged(kv)
	commit := func(conds []store.Cond, ops []store.Op) error {
		r, err := p.ledger.commit(ctx, conds, ops...)
		if err == nil && !r.OK {
			err = errChanged
		}
		return err
	}
	for p.ledger.far && len(end.leases) > portion {
		if err := commit([]store.Cond{same}, end.leases[:portion]); err != nil {
			return err
		}
		end.leases = end.leases[portion:]
	}
	return commit(append(end.conds, same), slices.Concat(end.last, end.leases))
}

// removal is what to write for the pool to be gone.
func (p *pool) removal(ctx context.Context, rec poolRecord, shares []string) (departure, error) {
	end := departure{last: []store.Op{store.Del(poolKey(p.id))}}
	leases, err := p.ledger.keys(ctx, leasePrefix+p.id+"/")
	if err != nil {
		return end, err
	}
	for _, key := range leases {
		end.leases = append(end.leases, store.Del(key))
	}
	for _, key := range shares {
		end.last = append(end.last, store.Del(key))
	}
	if c, err := parseOptions(rec.Options); err == nil && c.share != "" {
		end.last = append(end.last, store.Del(nameKey(c.share, rec.Subnet.Addr().Is6())))
	}
	if rec.Carved {
		end.last = append(end.last, store.Del(carvedKey(rec.Subnet)))
	}
	return end, nil
}

// shareRemoval is what to write for one share to be gone. The pool's record is written in any case: who uses the pool at
// this moment must notice. A lease that others hold as well must be as it was: they may have become more.
func (p *pool) shareRemoval(ctx context.Context, h handle, rec poolRecord) (departure, error) {
	end := departure{last: []store.Op{store.Del(shareKey(h))}}
	err := p.ledger.leases(ctx, p.id, func(a netip.Addr, kv store.KV) error {
		lease, err := decodeLease(kv)
		if err != nil || !slices.Contains(lease.Holders, h.share) {
			return nil // one that cannot be read stays, as everywhere
		}
		if lease.Holders = without(lease.Holders, h.share); len(lease.Holders) > 0 {
			op, err := put(kv.Key, lease)
			end.conds, end.last = append(end.conds, store.Unchanged(kv)), append(end.last, op)
			return err
		}
		if a == rec.Gateway {
			rec.Gateway, rec.Invented = netip.Addr{}, false
			end.conds, end.last = append(end.conds, store.Unchanged(kv)), append(end.last, store.Del(kv.Key))
			return nil
		}
		end.leases = append(end.leases, store.Del(kv.Key))
		return nil
	})
	if err != nil {
		return end, err
	}
	op, err := put(poolKey(p.id), rec)
	end.last = append(end.last, op)
	return end, err
}

// without is holders but for one.
func without(holders []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(holders), func(h string) bool { return h == one })
}
