package pool

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// AllocateGateway leases the gateway's address: a, or the first usable one if a is not valid. It returns the same for each further request;
// added is true if the request's network did not have it before.
func (p *Pool) AllocateGateway(ctx context.Context, a netip.Addr, lease Lease) (gw netip.Addr, added bool, err error) {
	if err := p.reload(ctx); err != nil {
		return netip.Addr{}, false, err
	}
	s, q := p.cache, gatewayRequest{p: p, addr: a, lease: lease}
	if err := s.checkObeyed(); err != nil {
		return netip.Addr{}, false, err
	}
	if s.config.Gateway.None {
		return q.none(ctx)
	}
	option, current := s.config.Gateway.For(s.Prefix), s.rec.Gateway
	if option.IsValid() {
		current = option
	}
	switch {
	case !current.IsValid():
		return q.first(ctx)
	case a.IsValid() && a != current:
		return netip.Addr{}, false, Refuse(ErrInUse, "the gateway is %s already", current)
	case option.IsValid(): // the pool has had it since it was created
		return current, false, nil
	}
	return q.further(ctx)
}

// reload loads the pool, with its record as it is now: another node may have changed the gateway, and no write would show it to a request that
// is refused.
func (p *Pool) reload(ctx context.Context) error {
	if p.ledger.shared() {
		p.Invalidate()
	}
	return p.Load(ctx)
}

// A gatewayRequest is a request for the gateway of p, with a lease for it; addr is not valid if the request names none.
type gatewayRequest struct {
	p     *Pool
	addr  netip.Addr
	lease Lease
}

// first leases the pool's first gateway. The record says whether it was invented.
func (q gatewayRequest) first(ctx context.Context) (gw netip.Addr, added bool, err error) {
	next := q.p.cache.rec
	next.Gateway, next.Invented = q.addr, !q.addr.IsValid()
	if next.Invented {
		next.Gateway = q.p.cache.First()
	}
	err = q.p.lease(ctx, next.Gateway, q.lease, &next)
	if errors.Is(err, errTaken) {
		err = q.p.inUse(ctx, next.Gateway)
	}
	return next.Gateway, err == nil, err
}

// further returns the gateway that the pool has. An invented one is no longer invented once a request names it, and each network of a shared
// pool becomes a holder.
func (q gatewayRequest) further(ctx context.Context) (gw netip.Addr, added bool, err error) {
	s := q.p.cache
	gw = s.rec.Gateway
	var next *Record
	if q.addr.IsValid() && s.rec.Invented {
		rec := s.rec
		rec.Invented = false
		next = &rec
	}
	var conds []store.Cond
	var ops []store.Op
	var now *Lease
	if len(q.lease.Holders) > 0 {
		now, conds, ops, err = q.addHolder(ctx, gw, q.lease.Holders[0])
		if err != nil {
			return netip.Addr{}, false, err
		}
	}
	added = now != nil
	if next == nil && !added {
		return gw, false, nil
	}
	write := func(ctx context.Context) (store.Result, error) { return q.p.write(ctx, conds, next, ops...) }
	var r store.Result
	if added {
		r, err = q.p.withUndo(ctx, Op{Do: ReleaseAddress, Share: q.lease.Holders[0], Addr: gw}, write)
	} else {
		r, err = write(ctx)
	}
	switch {
	case err != nil:
	case !r.OK:
		err = q.p.changed()
	case added:
		s.setLease(gw, r.Rev, *now)
	}
	return gw, added, err
}

// addHolder returns the lease of the gateway with a share as a further holder, and how to write it; nil if the share is one already.
func (q gatewayRequest) addHolder(ctx context.Context, gw netip.Addr, share string) (*Lease, []store.Cond, []store.Op, error) {
	kv, err := q.p.ledger.Store.Get(ctx, LeaseKey(q.p.id, gw))
	if errors.Is(err, store.ErrNotFound) {
		err = q.p.changed()
	}
	if err != nil {
		return nil, nil, nil, err
	}
	lease, err := DecodeLease(kv)
	if err == nil && lease.Kind != Gateway { // leased to a container since
		err = q.p.changed()
	}
	if err != nil || slices.Contains(lease.Holders, share) {
		return nil, nil, nil, err
	}
	exists, err := q.p.shareCond(ctx, share)
	if err != nil {
		return nil, nil, nil, err
	}
	lease.Holders = append(lease.Holders, share)
	op, err := record.Put(kv.Key, lease)
	return &lease, []store.Cond{store.Unchanged(kv), exists}, []store.Op{op}, err
}

// none answers an engine that demands a gateway although the option says that there is none. It returns the subnet's own address, which no
// container can have, so that no usable address is lost.
func (q gatewayRequest) none(ctx context.Context) (netip.Addr, bool, error) {
	s := q.p.cache
	if q.addr.IsValid() {
		return netip.Addr{}, false, Refuse(ErrInvalid, "option gateway=none says that there is none")
	}
	next := s.rec
	if next.Gateway, next.Invented = s.Prefix.Addr(), true; next.Gateway == s.rec.Gateway {
		return next.Gateway, false, nil
	}
	_, err := q.p.write(ctx, nil, &next)
	return next.Gateway, false, err
}

// ReleaseInventedGateway releases a handle's lease of the gateway gw, unless a request named it. Afterwards the pool is as if no gateway had
// been requested. It loads the pool.
func (p *Pool) ReleaseInventedGateway(ctx context.Context, h Handle, gw netip.Addr) error {
	if err := p.reload(ctx); err != nil {
		return err
	}
	if s := p.cache; !s.rec.Invented || s.rec.Gateway != gw || s.config.Gateway.None {
		return nil
	}
	_, err := p.Release(ctx, gw, Released{Share: h.Share})
	return err
}
