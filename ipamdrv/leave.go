package ipamdrv

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/mellanox/passthrough/store"
)

// leave ends one handle: the pool with all that is left in it, or, while others share it, only what this one has. The
// error matches [store.ErrNotFound] when there is no such handle.
func (d *Driver) leave(ctx context.Context, h handle) (poolRecord, error) {
	p := d.entry(h.id)
	if err := p.lock(ctx); err != nil {
		return poolRecord{}, err
	}
	defer p.unlock()
	rec, gone, err := p.leave(ctx, h)
	if err == nil && gone || errors.Is(err, store.ErrNotFound) {
		d.forget(p)
	}
	return rec, err
}

// leave does it in the ledger. It works without state, so that a pool that cannot be loaded can be removed. gone is true
// when the pool was removed.
func (p *pool) leave(ctx context.Context, h handle) (rec poolRecord, gone bool, err error) {
	kv, err := p.ledger.store.Get(ctx, poolKey(p.id))
	if err != nil {
		return poolRecord{}, false, err
	}
	shares, err := p.ledger.keys(ctx, sharePrefix+p.id+"/")
	if err != nil {
		return poolRecord{}, false, err
	}
	if h.share != "" && !slices.Contains(shares, shareKey(h)) {
		return poolRecord{}, false, store.ErrNotFound
	}
	rec, err = decodePool(kv)
	var ops []store.Op
	if gone = len(shares) < 2; gone {
		ops, err = p.removal(ctx, rec, shares) // whatever its record is like
	} else if err == nil {
		ops, err = p.shareRemoval(ctx, h, rec)
	}
	if err != nil {
		return poolRecord{}, false, err
	}
	p.state = nil
	r, err := p.ledger.commit(ctx, []store.Cond{store.Unchanged(kv)}, ops...)
	if err == nil && !r.OK {
		err = errChanged
	}
	return rec, gone, err
}

// removal is what to write for the pool to be gone.
func (p *pool) removal(ctx context.Context, rec poolRecord, shares []string) ([]store.Op, error) {
	ops := []store.Op{store.Del(poolKey(p.id))}
	leases, err := p.ledger.keys(ctx, leasePrefix+p.id+"/")
	if err != nil {
		return nil, err
	}
	for _, key := range slices.Concat(leases, shares) {
		ops = append(ops, store.Del(key))
	}
	if c, err := parseOptions(rec.Options); err == nil && c.share != "" {
		ops = append(ops, store.Del(nameKey(c.share, rec.Subnet.Addr().Is6())))
	}
	if rec.Carved {
		ops = append(ops, store.Del(carvedKey(rec.Subnet)))
	}
	return ops, nil
}

// shareRemoval is what to write for one share to be gone. The pool's record is written in any case: who uses the pool at
// this moment must notice.
func (p *pool) shareRemoval(ctx context.Context, h handle, rec poolRecord) ([]store.Op, error) {
	ops := []store.Op{store.Del(shareKey(h))}
	err := p.ledger.leases(ctx, p.id, func(a netip.Addr, kv store.KV) error {
		lease, err := decodeLease(kv)
		if err != nil || !slices.Contains(lease.Holders, h.share) {
			return nil // one that cannot be read stays, as everywhere
		}
		lease.Holders = without(lease.Holders, h.share)
		op := store.Del(kv.Key)
		if len(lease.Holders) > 0 {
			if op, err = put(kv.Key, lease); err != nil {
				return err
			}
		} else if a == rec.Gateway {
			rec.Gateway, rec.Invented = netip.Addr{}, false
		}
		ops = append(ops, op)
		return nil
	})
	if err != nil {
		return nil, err
	}
	op, err := put(poolKey(p.id), rec)
	return append(ops, op), err
}

// without is holders but for one.
func without(holders []string, one string) []string {
	return slices.DeleteFunc(slices.Clone(holders), func(h string) bool { return h == one })
}
