package ipamdrv

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// gatewayOption is what the option gateway says.
type gatewayOption struct {
	none  bool
	addrs []netip.Addr // one of each family at most
}

// parseGateway reads the option.
func parseGateway(v string) (g gatewayOption, ok bool) {
	if v == "auto" || v == "none" {
		return gatewayOption{none: v == "none"}, true
	}
	for item := range strings.SplitSeq(v, ",") {
		a, err := parseAddr(strings.TrimSpace(item))
		if err != nil || len(g.addrs) > 0 && (len(g.addrs) > 1 || g.addrs[0].Is4() == a.Is4()) {
			return gatewayOption{}, false
		}
		g.addrs = append(g.addrs, a)
	}
	return g, true
}

// of is the gateway for a subnet, not valid when the option names none of its family.
func (g gatewayOption) of(subnet netip.Prefix) netip.Addr {
	for _, a := range g.addrs {
		if a.Is4() == subnet.Addr().Is4() {
			return a
		}
	}
	return netip.Addr{}
}

// gateway leases the gateway's address: a, or, when a is not valid, the first usable one. Asked again it answers the
// same; given is true when the asker did not have it before.
func (p *pool) gateway(ctx context.Context, a netip.Addr, lease leaseRecord) (gw netip.Addr, given bool, err error) {
	s := p.state
	if s.config.gateway.none {
		return p.noGateway(ctx, a)
	}
	is := s.rec.Gateway
	if named := s.config.gateway.of(s.prefix); named.IsValid() {
		is = named
	}
	switch {
	case is.IsValid() && a.IsValid() && a != is:
		return netip.Addr{}, false, refuse(ErrInUse, "the gateway is %s already", is)
	case is.IsValid() && is != s.rec.Gateway, is.IsValid() && is == s.config.gateway.of(s.prefix):
		return is, false, nil
	case is.IsValid():
		return p.sameGateway(ctx, a, lease)
	}
	next := s.rec
	next.Invented = !a.IsValid()
	if !a.IsValid() {
		a = s.first()
	}
	next.Gateway = a
	if err := p.give(ctx, a, lease, &next); err != nil {
		return netip.Addr{}, false, err
	}
	return a, true, nil
}

// sameGateway answers the gateway that the pool has. One that was invented is not any more once somebody asks for it by
// address, and each network that shares the pool holds it.
func (p *pool) sameGateway(ctx context.Context, a netip.Addr, lease leaseRecord) (gw netip.Addr, given bool, err error) {
	s := p.state
	gw = s.rec.Gateway
	var next *poolRecord
	if a.IsValid() && s.rec.Invented {
		rec := s.rec
		rec.Invented = false
		next = &rec
	}
	var conds []store.Cond
	var ops []store.Op
	if len(lease.Holders) > 0 {
		kv, err := p.ledger.store.Get(ctx, leaseKey(p.id, gw))
		if errors.Is(err, store.ErrNotFound) {
			p.state, err = nil, errChanged
		}
		if err != nil {
			return netip.Addr{}, false, err
		}
		held, err := decodeLease(kv)
		if err == nil && held.Kind != kindGateway { // somebody else's since
			p.state, err = nil, errChanged
		}
		if err != nil {
			return netip.Addr{}, false, err
		}
		if given = !slices.Contains(held.Holders, lease.Holders[0]); given {
			held.Holders = append(held.Holders, lease.Holders[0])
			op, err := put(kv.Key, held)
			if err != nil {
				return netip.Addr{}, false, err
			}
			conds, ops = append(conds, store.Unchanged(kv)), append(ops, op)
		}
	}
	if next == nil && len(ops) == 0 {
		return gw, false, nil
	}
	write := func(ctx context.Context) (store.Result, error) { return p.write(ctx, conds, next, ops...) }
	if given {
		once, back := write, errand{Do: doRelease, Share: lease.Holders[0], Addr: gw}
		write = func(ctx context.Context) (store.Result, error) { return p.surely(ctx, back, once) }
	}
	r, err := write(ctx)
	if err == nil && !r.OK {
		p.state, err = nil, errChanged
	}
	return gw, given, err
}

// noGateway answers an engine that insists on a gateway where there is to be none. It gets the subnet's own address,
// which no container can have, so that none loses the one that it could have had.
func (p *pool) noGateway(ctx context.Context, a netip.Addr) (netip.Addr, bool, error) {
	s := p.state
	if a.IsValid() {
		return netip.Addr{}, false, refuse(ErrInvalid, "option gateway=none says that there is none")
	}
	next := s.rec
	if next.Gateway, next.Invented = s.prefix.Addr(), true; next.Gateway == s.rec.Gateway {
		return next.Gateway, false, nil
	}
	_, err := p.write(ctx, nil, &next)
	return next.Gateway, false, err
}
