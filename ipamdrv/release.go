package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// releaseAddress ends a lease, at once or as soon as the ledger can be reached.
func (d *Driver) releaseAddress(ctx context.Context, h handle, a netip.Addr) error {
	now := time.Now()
	err := d.node.isAway()
	if err == nil {
		err = d.releaseNow(ctx, h, a, now)
		d.node.noteAway(err)
	}
	if !d.node.cannot(err) {
		return err
	}
	d.log.Warn("address is released later", zap.Stringer("address", a), zap.Stringer("id", h), zap.Error(err))
	_, err = d.node.owe(ctx, h.id, errand{Do: doRelease, Share: h.share, Addr: a, At: now.UTC()})
	return err
}

// releaseNow ends a lease in the ledger.
func (d *Driver) releaseNow(ctx context.Context, h handle, a netip.Addr, at time.Time) error {
	_, p, err := d.pool(ctx, h.String())
	if errors.Is(err, ErrUnknownPool) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pool %.80q: release address %s: %w", h, a, err)
	}
	s := p.state
	var released bool
	err = p.finish(func() (err error) {
		released, err = p.end(ctx, a, ending{share: h.share, at: at})
		return err
	})
	if err == nil && s.overflow != "" && !s.prefix.Contains(a) {
		released, err = d.endOverflow(ctx, p.id, s, a, at)
	}
	if err != nil {
		return fmt.Errorf("pool %s: release address %s: %w", s.prefix, a, err)
	}
	d.log.Debug("address released", zap.Stringer("address", a), zap.Bool("was_leased", released),
		zap.Stringer("pool", s.prefix), zap.Stringer("id", h))
	return nil
}

// expire ends the rest of those that have rested long enough.
func (s *state) expire(now time.Time) {
	s.rests.expire(now, s.quarantine, s.sticky, func(a netip.Addr) { s.mark(a, (*set).remove) })
}

// ending says which lease ends: that of this share, when the pool is shared, with this token, if there is one. The address
// rests from at on; with none it does not.
type ending struct {
	share, token string
	at           time.Time
}

// end ends the lease of a, as often as it takes.
func (p *pool) end(ctx context.Context, a netip.Addr, how ending) (released bool, err error) {
	err = again(ctx, func() (err error) {
		if err = p.load(ctx); err == nil {
			released, err = p.release(ctx, a, how)
		}
		return err
	})
	return released, err
}

// release ends the lease of a, if there is one; released is false when there was none. What comes next is the address's
// rest, if the pool's options want one.
func (p *pool) release(ctx context.Context, a netip.Addr, how ending) (released bool, err error) {
	s := p.state
	kv, err := p.ledger.store.Get(ctx, leaseKey(p.id, a))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lease, decodeErr := decodeLease(kv)
	switch {
	case how.token != "" && lease.Token != how.token:
		return false, nil // a later one
	case decodeErr != nil: // one that cannot be read can be released
	case lease.Kind == kindReserve && how.token == "":
		return false, nil // nobody's yet; its container, if it was somebody's before, releases it twice
	case lease.Kind == kindResting, a == s.config.gateway.of(s.prefix):
		return false, nil
	case how.share != "" && !slices.Contains(lease.Holders, how.share):
		return false, nil // another network's
	case len(lease.Holders) > 1:
		lease.Holders = without(lease.Holders, how.share)
		return p.keep(ctx, kv, lease)
	}
	can := lease.Kind != kindGateway && lease.Kind != kindReserve && decodeErr == nil && !how.at.IsZero()
	return p.free(ctx, a, kv, lease.rest(how.at), can)
}

// keep writes a lease that has one holder less.
func (p *pool) keep(ctx context.Context, kv store.KV, lease leaseRecord) (bool, error) {
	op, err := put(kv.Key, lease)
	if err != nil {
		return false, err
	}
	r, err := p.write(ctx, []store.Cond{store.Unchanged(kv)}, nil, op)
	if err == nil && !r.OK {
		p.state, err = nil, errChanged
	}
	return err == nil, err
}

// free ends the lease in kv; the address may rest then, if it is one that can.
func (p *pool) free(ctx context.Context, a netip.Addr, kv store.KV, rest leaseRecord, can bool) (_ bool, err error) {
	s := p.state
	var next *poolRecord
	if a == s.rec.Gateway {
		rec := s.rec
		rec.Gateway, rec.Invented = netip.Addr{}, false
		next = &rec
	}
	op := store.Del(kv.Key)
	if can = can && s.restsAfter(rest); can {
		if op, err = put(kv.Key, rest); err != nil {
			return false, err
		}
	}
	r, err := p.write(ctx, []store.Cond{store.Unchanged(kv)}, next, op)
	switch {
	case err != nil:
		return false, err
	case !r.OK:
		p.state = nil
		return false, errChanged
	case can:
		s.rests.add(a, rest, r.Rev)
	default:
		s.mark(a, (*set).remove)
	}
	return true, nil
}

// restsAfter says whether the pool's options want an address with this past to rest.
func (s *state) restsAfter(past leaseRecord) bool {
	return s.quarantine > 0 || s.sticky > 0 && len(past.owners()) > 0
}
