package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// A lease can lose its container: the process is killed after the lease was written and before the engine heard of it, or
// the engine never asks for its release. A whole handle can lose its network: an engine that is killed takes new pools for
// a swarm's networks, and forgets the old ones. The network driver on this node knows its networks and the addresses of their
// endpoints, so that both are seen - but not at once: the engine asks for an address before it makes the endpoint, and for
// the release after it is gone.

// Use is what the network driver knows of one of its networks.
type Use struct {
	Network string       // its ID, as it was told to [Driver.GotPool]
	Addrs   []netip.Addr // of its endpoints
}

const (
	sweepEvery = time.Minute
	// sweepAge is how old a lease must be, and how long it must have been seen without an endpoint. Between the calls for
	// an address and for its endpoint lie milliseconds.
	sweepAge = 10 * time.Minute
	// sweepSoon is that for a lease from before the engine or this process was started, which is when a call can be lost. What was
	// under way then is over: an engine tries for 30 seconds to reach a plugin that is being started again, with each of
	// the two calls for an address and the one for the endpoint.
	sweepSoon = 3 * time.Minute
)

// sweep ends leases and handles that nobody has: those that two looks, far enough apart, find so.
type sweep struct {
	last time.Time

	mu    sync.Mutex      // guards the fields below
	since time.Time       // leases from before this are in doubt
	first map[string]look // by what it is about
}

// newSweep has seen nothing yet, and doubts all that there is.
func newSweep() *sweep { return &sweep{since: time.Now()} }

// doubt puts every lease that there is now in doubt.
func (s *sweep) doubt() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since = time.Now()
}

// patience is how long a suspect is left alone.
func (s *sweep) patience(l suspect) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.addr.IsValid() && l.rec.Since.Before(s.since) {
		return sweepSoon
	}
	return sweepAge
}

// look is when something was seen for the first time, and when it will have been seen often enough.
type look struct {
	rev     int64
	at, due time.Time
}

// suspect is a lease that no endpoint has, or, without an address, a handle that no network has.
type suspect struct {
	h    held
	addr netip.Addr
	rev  int64
	rec  leaseRecord
}

// key is what a suspect is known by.
func (s suspect) key() string { return s.h.String() + " " + s.addr.String() }

// run looks, if it is time for that.
func (s *sweep) run(ctx context.Context, d *Driver) error {
	now := time.Now()
	if d.uses == nil || now.Sub(s.last) < sweepEvery {
		return nil
	}
	s.last = now
	suspects, err := d.suspects(ctx, now)
	if err != nil {
		return fmt.Errorf("look for addresses that nobody has: %w", err)
	}
	seen := map[string]look{}
	for _, l := range suspects {
		before, ok := s.first[l.key()] // nobody else writes it
		if !ok || before.rev != l.rev {
			before = look{rev: l.rev, at: now}
		}
		before.due = before.at.Add(s.patience(l))
		seen[l.key()] = before
		if !now.Before(before.due) {
			err = errors.Join(err, d.endSuspect(ctx, l, now))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = seen
	return err
}

// hope says, behind an error about an address that somebody has, by when it will be free if nobody seems to have it; "" otherwise.
func (d *Driver) hope(ctx context.Context, h handle, a netip.Addr, err error) string {
	seen, ok := d.sweep.seen(suspect{h: held{handle: h}, addr: a})
	if !ok || !errors.Is(err, ErrInUse) {
		return ""
	}
	kv, err := d.ledger.store.Get(ctx, leaseKey(h.id, a))
	if err != nil || kv.Rev != seen.rev { // another lease than the one that was seen
		return ""
	}
	by := seen.due.Add(sweepEvery + d.every).UTC().Format(timeFormat)
	return "; no endpoint has it: if that stays so, it is free by " + by
}

// seen is what was seen of a suspect at the last look.
func (s *sweep) seen(l suspect) (look, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen, ok := s.first[l.key()]
	return seen, ok
}

// endSuspect ends a lease or a handle, if it still is what was seen.
func (d *Driver) endSuspect(ctx context.Context, l suspect, now time.Time) error {
	if !l.addr.IsValid() {
		d.log.Warn("pool is released: no network has it", zap.Stringer("pool", l.h.subnet), zap.Stringer("id", l.h.handle),
			zap.String("network", l.h.network))
		return d.releasePool(ctx, l.h.handle)
	}
	d.log.Warn("address is released: no endpoint has it", zap.Stringer("address", l.addr), zap.String("container", l.rec.Name),
		zap.Time("since", l.rec.Since), zap.Stringer("id", l.h.handle), zap.String("network", l.h.network))
	_, p, err := d.pool(ctx, l.h.String())
	if errors.Is(err, ErrUnknownPool) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.unlock()
	_, err = p.end(ctx, l.addr, ending{share: l.h.share, token: l.rec.Token, at: now})
	return err
}

// suspects lists the leases of networks of the network driver on this node that no endpoint has, and the handles that none
// of its networks has.
func (d *Driver) suspects(ctx context.Context, now time.Time) ([]suspect, error) {
	networks, err := d.uses(ctx)
	if err != nil {
		return nil, err
	}
	all, err := d.handles(ctx)
	if err != nil {
		return nil, err
	}
	var found []suspect
	for _, h := range all {
		if h.network == "" {
			continue // another network driver's, for all that is known
		}
		some, err := d.suspectsOf(ctx, h, all, networks, now)
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// suspectsOf lists those of one handle. One whose network has taken another since is not used any more; it ends after its
// leases, of which some may still have endpoints.
func (d *Driver) suspectsOf(ctx context.Context, h held, all []held, networks []Use, now time.Time) ([]suspect, error) {
	dead := []suspect{{h: h}}
	i := slices.IndexFunc(networks, func(u Use) bool { return u.Network == h.network })
	if i < 0 {
		return dead, nil
	}
	leases, err := d.containerLeases(ctx, h)
	if err != nil {
		return nil, err
	}
	followed := slices.ContainsFunc(all, func(o held) bool {
		return o.network == h.network && o.subnet == h.subnet && o.created.After(h.created)
	})
	if followed && len(leases) == 0 {
		return dead, nil
	}
	return slices.DeleteFunc(leases, func(l suspect) bool {
		return now.Sub(l.rec.Since) < d.sweep.patience(l) || slices.Contains(networks[i].Addrs, l.addr)
	}), nil
}

// containerLeases lists the leases of h that containers have. An address that somebody named before the network was known may be
// an --aux-address, which has no endpoint.
func (d *Driver) containerLeases(ctx context.Context, h held) ([]suspect, error) {
	var found []suspect
	err := d.ledger.leases(ctx, h.id, func(a netip.Addr, kv store.KV) error {
		l, err := decodeLease(kv)
		container := l.Kind == kindChosen || l.Kind == kindAsked && (l.Container || l.Name != "")
		if err == nil && container && (h.share == "" || slices.Contains(l.Holders, h.share)) {
			found = append(found, suspect{h, a, kv.Rev, l})
		}
		return nil
	})
	return found, err
}
