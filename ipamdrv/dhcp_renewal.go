package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv/dhcp"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// The leases of DHCP servers are renewed by this process for as long as they are in the ledger. What leaves the ledger is released at its
// server: at once when the engine releases it, otherwise when the next scan finds that it is gone.

const (
	// scanEvery is the time between two comparisons of the leases with the ledger.
	scanEvery = time.Minute
	// renewEvery is the shortest pause between two rounds of renewals, unless a lease is added.
	renewEvery = time.Second
	// renewTime bounds one attempt to renew a lease, renewAtOnce the attempts at one time: with a server that is away all take as long.
	renewTime, renewAtOnce = 5 * time.Second, 32
	// releaseTime bounds the release of a lease at its server, which does not answer.
	releaseTime = time.Second
)

// expiredBackoff is the pause after a failure to lease again an address whose lease has expired.
var expiredBackoff = retry.Backoff{First: 5 * time.Second, Max: 5 * time.Minute}

// leaseRef names a lease.
type leaseRef struct {
	pool string // ID
	addr netip.Addr
}

// A dhcpLease is the lease of a container that a DHCP server has given.
type dhcpLease struct {
	segment  dhcp.Segment
	lease    dhcp.Lease
	token    string // of the record
	name     string // of the container; "" for unknown
	added    time.Time
	next     time.Time // of the next attempt to renew it; zero for never
	failures int       // in a row
}

// dhcpLeases are the leases that DHCP servers have given to this node's containers.
type dhcpLeases struct {
	pools   *pools
	servers DHCP // nil if this is not possible
	log     *zap.Logger

	// clients are locked by client while one leases an address and records it, or ends a lease: the late release of a former lease must not
	// end a new one.
	clients keylock.Map
	scanned time.Time // of the last scan; only run uses it
	failing bool      // the last scan failed; only run uses it
	wake    wakeup    // of run

	mu  sync.Mutex
	all map[leaseRef]dhcpLease // guarded by mu
}

// RenewLeases renews the leases of DHCP servers, and releases there and at an IPAM server what is released here, until ctx ends. It returns an
// error that matches that of ctx.
func (d *Driver) RenewLeases(ctx context.Context) error {
	var loops errgroup.Group
	loops.Go(func() error { return d.pools.leases.run(ctx) })
	loops.Go(func() error { return d.pools.remote.run(ctx) })
	return loops.Wait()
}

// run renews and releases until ctx ends.
func (s *dhcpLeases) run(ctx context.Context) error {
	if s.servers == nil || s.pools.node != nil {
		<-ctx.Done()
	}
	for ctx.Err() == nil {
		s.round(ctx)
		s.wake.wait(ctx, s.pause(time.Now()))
	}
	return ctx.Err()
}

// pause returns how long run waits for its next round: until the next lease is to be renewed, or the next scan.
func (s *dhcpLeases) pause(now time.Time) time.Duration {
	if s.failing {
		return renewEvery
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	until := s.scanned.Add(scanEvery).Sub(now)
	for _, l := range s.all {
		if !l.next.IsZero() {
			until = min(until, l.next.Sub(now))
		}
	}
	return max(until, renewEvery)
}

// round is one round of run.
func (s *dhcpLeases) round(ctx context.Context) {
	if now := time.Now(); now.Sub(s.scanned) >= scanEvery || s.scanned.IsZero() {
		err := s.scan(ctx, now)
		if err == nil {
			s.scanned = now
		} else if ctx.Err() == nil && !s.failing {
			s.log.Warn("leases of DHCP servers cannot be compared with the ledger; it is retried", zap.Error(err))
		}
		s.failing = err != nil
	}
	var renewals errgroup.Group
	renewals.SetLimit(renewAtOnce)
	for ref, l := range s.due(time.Now()) {
		renewals.Go(func() error {
			s.renew(ctx, ref, l)
			return nil
		})
	}
	_ = renewals.Wait() // there is no error
}

// add adds a lease that is in the ledger.
func (s *dhcpLeases) add(ref leaseRef, seg dhcp.Segment, l pool.Lease) {
	defer s.wake.signal()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all[ref] = dhcpLease{segment: seg, lease: *l.DHCP, token: l.Token, name: l.Name, added: time.Now(), next: l.DHCP.Renew}
}

// scan compares the leases with the ledger.
func (s *dhcpLeases) scan(ctx context.Context, now time.Time) error {
	handles, err := s.pools.localHandles(ctx)
	if err != nil {
		return err
	}
	for _, h := range handles {
		if !h.dhcp {
			continue
		}
		if err := s.scanPool(ctx, h.Handle); err != nil && !errors.Is(err, ErrUnknownPool) {
			return fmt.Errorf("pool %s: %w", h.subnet, err)
		}
	}
	for ref, l := range s.before(now) {
		if had, ok, err := s.pools.ledger.LeaseOf(ctx, ref.pool, ref.addr); err != nil || ok && had.Token == l.token {
			continue
		}
		s.end(ctx, ref, l)
	}
	return nil
}

// scanPool adds the leases of a pool that are not known: those that another process has made.
func (s *dhcpLeases) scanPool(ctx context.Context, h pool.Handle) error {
	p, err := s.pools.open(ctx, h)
	if err != nil {
		return err
	}
	seg := segmentOf(p)
	held, err := p.Held(ctx, h)
	p.Unlock()
	if err != nil {
		return err
	}
	for _, l := range held {
		ref := leaseRef{h.ID, l.Addr}
		if known, ok := s.get(ref); l.DHCP == nil || ok && known.token == l.Token {
			continue
		}
		s.add(ref, seg, l.Lease)
		if isExpired(*l.DHCP, time.Now()) {
			s.log.Warn("the lease of a container's address expired while it was not renewed: the DHCP server may have given the address away; "+
				"it is asked for the same one", zap.Stringer("address", l.Addr), zap.String("container", l.Name), zap.Time("expired", l.DHCP.Expires))
		}
	}
	return nil
}

// isExpired returns true if a lease has ended.
func isExpired(l dhcp.Lease, now time.Time) bool {
	return !l.Expires.IsZero() && !now.Before(l.Expires)
}

// get returns a lease.
func (s *dhcpLeases) get(ref leaseRef) (dhcpLease, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.all[ref]
	return l, ok
}

// before returns the leases that were added before a time.
func (s *dhcpLeases) before(t time.Time) map[leaseRef]dhcpLease {
	return s.choose(func(l dhcpLease) bool { return l.added.Before(t) })
}

// due returns the leases that are to be renewed.
func (s *dhcpLeases) due(now time.Time) map[leaseRef]dhcpLease {
	return s.choose(func(l dhcpLease) bool { return !l.next.IsZero() && !now.Before(l.next) })
}

// choose returns the leases for which ok is true.
func (s *dhcpLeases) choose(ok func(dhcpLease) bool) map[leaseRef]dhcpLease {
	s.mu.Lock()
	defer s.mu.Unlock()
	some := map[leaseRef]dhcpLease{}
	for ref, l := range s.all {
		if ok(l) {
			some[ref] = l
		}
	}
	return some
}

// replace replaces a lease if it is still the same one; now is what it becomes.
func (s *dhcpLeases) replace(ref leaseRef, now dhcpLease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.all[ref]; ok && l.token == now.token {
		s.all[ref] = now
	}
}

// end forgets a lease, and releases it at its server.
func (s *dhcpLeases) end(ctx context.Context, ref leaseRef, l dhcpLease) {
	s.mu.Lock()
	if s.all[ref].token == l.token {
		delete(s.all, ref)
	}
	s.mu.Unlock()
	unlock, err := s.clients.Lock(ctx, cmp.Or(l.lease.Client, l.lease.MAC))
	if err != nil {
		return // the lease expires
	}
	defer unlock()
	now, ok, err := s.pools.ledger.LeaseOf(ctx, ref.pool, ref.addr)
	if err == nil && !(ok && isOf(now, l.lease)) {
		s.tellReleased(ctx, l.segment, ref.addr, l.lease)
	}
}

// isOf returns true if a record has a lease of the same client.
func isOf(rec pool.Lease, l dhcp.Lease) bool {
	return rec.DHCP != nil && rec.DHCP.Client == l.Client && rec.DHCP.MAC == l.MAC
}

// dhcpLease returns the lease that a DHCP server has given, and the token of its record, if a has one in p. The caller has the lock on p.
func (ps *pools) dhcpLease(ctx context.Context, p *pool.Pool, a netip.Addr) (dhcp.Lease, string) {
	if !pool.UsesDHCP(p) {
		return dhcp.Lease{}, ""
	}
	rec, ok, err := ps.ledger.LeaseOf(ctx, p.ID(), a)
	if err != nil || !ok || rec.DHCP == nil {
		return dhcp.Lease{}, "" // what cannot be read is released as well, and expires at the server
	}
	return *rec.DHCP, rec.Token
}

// tellReleased releases a lease at its server. If that fails, the lease expires.
func (s *dhcpLeases) tellReleased(ctx context.Context, seg dhcp.Segment, a netip.Addr, l dhcp.Lease) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTime)
	defer cancel()
	err := s.servers.Release(ctx, seg, a, l)
	log := s.log.With(zap.Stringer("address", a), zap.Stringer("server", l.Server))
	if err != nil {
		log.Warn("address not released at the DHCP server: it is free there when its lease expires", zap.Time("expires", l.Expires), zap.Error(err))
		return
	}
	log.Debug("address released at the DHCP server")
}

// renew renews a lease: at its server, then at any, and after its end by asking for the same address again.
func (s *dhcpLeases) renew(ctx context.Context, ref leaseRef, l dhcpLease) {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	now := time.Now()
	var renewed dhcp.Lease
	var err error
	if !isExpired(l.lease, now) {
		renewed, err = s.servers.Renew(ctx, l.segment, ref.addr, l.lease, !now.Before(l.lease.Rebind))
		if errors.Is(err, dhcp.ErrRefused) { // the lease has ended
			l.lease.Expires = now
		}
	}
	if isExpired(l.lease, now) {
		var again error
		if _, renewed, again = s.servers.Acquire(ctx, l.segment, l.lease.Identity(), ref.addr); again != nil {
			err = errors.Join(err, again)
		} else {
			err = nil
		}
	}
	if err != nil {
		s.failed(ref, l, err)
		return
	}
	s.renewed(ctx, ref, l, renewed)
}

// failed notes a failure to renew a lease. It is retried after half of what is left until T2 or the lease's end (RFC 2131 4.4.5).
func (s *dhcpLeases) failed(ref leaseRef, l dhcpLease, err error) {
	now := time.Now()
	l.failures++
	left := l.lease.Rebind.Sub(now)
	if left <= 0 {
		left = l.lease.Expires.Sub(now)
	}
	wait := min(max(left/2, renewEvery), expiredBackoff.Max)
	log := s.log.With(zap.Stringer("address", ref.addr), zap.String("container", l.name), zap.String("device", l.segment.Device),
		zap.Time("expires", l.lease.Expires), zap.Error(err))
	switch {
	case isExpired(l.lease, now):
		wait = expiredBackoff.Delay(l.failures)
		log.Error("a container uses an address that is not leased to it any more: another machine may get it; restart the container",
			zap.Duration("retry_in", wait))
	case l.failures == 1:
		log.Warn("lease of a container's address not renewed; it is retried", zap.Duration("retry_in", wait))
	}
	l.next = now.Add(wait)
	s.replace(ref, l)
}

// renewed records a renewed lease.
func (s *dhcpLeases) renewed(ctx context.Context, ref leaseRef, l dhcpLease, renewed dhcp.Lease) {
	log := s.log.With(zap.Stringer("address", ref.addr), zap.String("container", l.name), zap.Time("expires", renewed.Expires))
	if l.failures > 0 || isExpired(l.lease, time.Now()) {
		log.Info("lease of a container's address renewed after all")
	} else {
		log.Debug("lease of a container's address renewed")
	}
	l.lease, l.next, l.failures = renewed, renewed.Renew, 0
	s.replace(ref, l)
	p := s.pools.get(ref.pool)
	if err := p.Lock(ctx); err != nil {
		log.Warn("renewed lease not recorded", zap.Error(err)) // after a restart it is renewed earlier than it would have to be
		return
	}
	var ok bool
	err := p.UnlockAfter(func() (err error) {
		ok, err = p.SetDHCP(ctx, ref.addr, l.token, renewed)
		if errors.Is(err, store.ErrNotFound) {
			return nil
		}
		return err
	})
	switch {
	case err != nil:
		log.Warn("renewed lease not recorded", zap.Error(err))
	case !ok: // released meanwhile, and perhaps leased again by the renewal
		s.end(ctx, ref, l)
	}
}
