package pool

import (
	"context"
	"errors"
	"net/netip"

	"github.com/mellanox/passthrough/ipamdrv/dhcp"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// UsesDHCP returns true if a DHCP server leases the pool's addresses. The option is that of all pools of a network, and IPv4's alone.
func UsesDHCP(p *Pool) bool { return p.cache.config.DHCP && p.cache.Prefix.Addr().Is4() }

// LeaseOf returns the lease of an address as it is in the store; ok is false if there is none.
func (l Ledger) LeaseOf(ctx context.Context, id string, a netip.Addr) (lease Lease, ok bool, err error) {
	kv, err := l.Store.Get(ctx, LeaseKey(id, a))
	if errors.Is(err, store.ErrNotFound) {
		return Lease{}, false, nil
	}
	if err == nil {
		lease, err = DecodeLease(kv)
	}
	return lease, err == nil, err
}

// SetDHCP records that the DHCP server has renewed the lease with this token. It returns false if the lease was released meanwhile. SetDHCP
// loads the pool.
func (p *Pool) SetDHCP(ctx context.Context, a netip.Addr, token string, renewed dhcp.Lease) (ok bool, err error) {
	err = Retry(ctx, func() (err error) {
		if err = p.Load(ctx); err == nil {
			ok, err = setDHCPOnce(ctx, p, a, token, renewed)
		}
		return err
	})
	return ok, err
}

// setDHCPOnce is one attempt of SetDHCP.
func setDHCPOnce(ctx context.Context, p *Pool, a netip.Addr, token string, renewed dhcp.Lease) (bool, error) {
	kv, err := p.ledger.Store.Get(ctx, LeaseKey(p.id, a))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lease, err := DecodeLease(kv)
	if err != nil || lease.Token != token || lease.DHCP == nil {
		return false, err
	}
	lease.DHCP = &renewed
	put, err := record.Put(kv.Key, lease)
	if err != nil {
		return false, err
	}
	r, err := p.write(ctx, []store.Cond{store.Unchanged(kv)}, nil, put)
	if err == nil && !r.OK {
		err = p.changed()
	}
	if err != nil {
		return false, err
	}
	p.cache.setLease(a, r.Rev, lease)
	return true, nil
}
