package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// releaseAddress releases a lease: now, or later, while the store is not available, or until this node is upgraded so that it can read the
// pool. The engine does not ask twice. A token, unless it is "", is that of the lease.
func (ps *pools) releaseAddress(ctx context.Context, h pool.Handle, a netip.Addr, token string) error {
	now := time.Now()
	err := ps.breaker.Unavailable()
	if err == nil {
		err = ps.releaseAddressNow(ctx, h, a, token, now)
		ps.breaker.Report(err)
	}
	if !ps.retryable(err) && (ps.node == nil || !errors.Is(err, store.ErrNewer)) {
		return err
	}
	ps.log.Warn("address is released later", zap.Stringer("address", a), zap.Stringer("id", h), zap.Error(err))
	return ps.enqueue(ctx, h.ID, pool.Op{Do: pool.ReleaseAddress, Share: h.Share, Addr: a, Token: token, At: now.UTC()})
}

// releaseAddressNow releases a lease in the store.
func (ps *pools) releaseAddressNow(ctx context.Context, h pool.Handle, a netip.Addr, token string, at time.Time) error {
	p, err := ps.enter(ctx, h)
	if errors.Is(err, ErrUnknownPool) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pool %.80q: release address %s: %w", h, a, err)
	}
	subnet, group := p.Subnet(), p.Config().Group
	var released bool
	ref, ended := leaseRef{h.ID, a}, dhcpLease{segment: segmentOf(p)}
	err = p.UnlockAfter(func() (err error) {
		ended.lease, ended.token = ps.dhcpLease(ctx, p, a)
		released, err = p.Release(ctx, a, pool.Released{Share: h.Share, Token: token, At: at})
		return err
	})
	if err == nil && group != "" && !subnet.Prefix.Contains(a) {
		released, err = ps.releaseFromGroup(ctx, h.ID, group, a, at)
	}
	if err != nil {
		return fmt.Errorf("pool %s: release address %s: %w", subnet.Prefix, a, err)
	}
	if released && ended.token != "" {
		ps.leases.end(ctx, ref, ended)
	}
	ps.remote.wake.signal()
	if entry := ps.log.Check(zap.DebugLevel, "address released"); entry != nil {
		entry.Write(zap.Stringer("address", a), zap.Bool("was_leased", released), zap.Stringer("pool", subnet.Prefix), zap.Stringer("id", h))
	}
	return nil
}

// release removes a handle: now, or, while a shared store is not available, later. In a shared store it writes down before that it will: an
// engine whose plugin is killed meanwhile does not retry.
func (ps *pools) release(ctx context.Context, h pool.Handle) error {
	ps.unbound.remove(h)
	if err := ps.breaker.Unavailable(); err != nil {
		return ps.releaseLater(ctx, h, err)
	}
	p := ps.get(h.ID)
	if err := p.Lock(ctx); err != nil {
		return ps.releaseLater(ctx, h, err)
	}
	defer p.Unlock()
	if ps.node == nil {
		if err := ps.releaseNow(ctx, p, h); err != nil {
			return ps.releaseLater(ctx, h, err)
		}
		return nil
	}
	intent, err := ps.node.BeginIntent(ctx, h.ID, pool.Op{Do: pool.ReleaseHandle, Share: h.Share})
	if err != nil {
		return err
	}
	if err = ps.releaseNow(ctx, p, h); err != nil {
		ps.breaker.Report(err)
		err = ps.releaseLater(ctx, h, err)
	}
	return errors.Join(err, ps.node.Dequeue(ctx, h.ID, intent))
}

// releaseNow removes a handle from the store. The caller has the lock.
func (ps *pools) releaseNow(ctx context.Context, p *pool.Pool, h pool.Handle) error {
	var rec pool.Record
	err := pool.Retry(ctx, func() (err error) {
		var gone bool
		if rec, gone, err = p.Remove(ctx, h); err == nil && gone || errors.Is(err, store.ErrNotFound) {
			ps.drop(p)
		}
		return err
	})
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	default:
		ps.log.Info("pool released", zap.String("pool", rec.Subnet.String()), zap.Stringer("id", h))
	}
	return ps.dropHandle(ctx, p, h)
}

// dropHandle removes a handle that was removed from the store from this node, and the pool if that was its last one. The caller has the lock.
func (ps *pools) dropHandle(ctx context.Context, p *pool.Pool, h pool.Handle) error {
	if err := ps.node.Drop(ctx, h); err != nil {
		return err
	}
	used, err := ps.node.HasPool(ctx, p.ID())
	if err == nil && !used {
		ps.drop(p)
	}
	return err
}

// releaseLater enqueues the removal of a handle if failure means that the store is not available.
func (ps *pools) releaseLater(ctx context.Context, h pool.Handle, failure error) error {
	if !ps.retryable(failure) {
		return failure
	}
	ps.log.Warn("pool is released later", zap.Stringer("id", h), zap.Error(failure))
	if ps.node == nil {
		return ps.enqueue(ctx, h.ID, pool.Op{Do: pool.ReleaseHandle, Share: h.Share})
	}
	return ps.node.Drop(ctx, h, pool.Op{Do: pool.ReleaseHandle, Share: h.Share})
}
