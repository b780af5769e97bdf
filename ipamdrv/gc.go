package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// A lease can lose its container: the process is killed after the lease was written and before the engine had the answer, or the engine never
// releases it. A handle can lose its network: a killed engine requests new pools for a swarm's networks, and forgets the old ones. The network
// driver on this node knows its networks and the addresses of their endpoints, so that both are found - after a grace period, because the
// engine requests an address before it creates the endpoint, and releases it after it has deleted the endpoint.

// Use is what the network driver knows of one of its networks.
type Use struct {
	Network string       // its ID, as in [Driver.BindPool]
	Addrs   []netip.Addr // of its endpoints
	// EndsBy has those of Addrs whose endpoint the engine seems to have forgotten, with the time by which it is removed if nothing changes.
	EndsBy map[netip.Addr]time.Time
}

// gcInterval is the time between two rounds.
const gcInterval = time.Minute

// gc is the garbage collection of leases and handles: it releases those that are suspect in two rounds, a grace period apart.
type gc struct {
	pools *pools
	uses  func(context.Context) ([]Use, error) // nil: nothing is collected
	every time.Duration                        // between two calls of run
	last  time.Time                            // of a round

	mu        sync.Mutex // guards the fields below
	lastStart time.Time  // of the engine or of this process
	sightings map[string]sighting
	forgotten map[forgottenAddr]time.Time // when the network driver removed the endpoint
}

// forgottenAddr is an address whose endpoint the network driver has removed, because the engine forgot it.
type forgottenAddr struct {
	network string
	addr    netip.Addr
}

// AddressesForgotten is called when the network driver has removed an endpoint with these addresses, which have prefix lengths, because the
// engine forgot it and a grace period has passed. Their leases are released in the next round of garbage collection.
func (d *Driver) AddressesForgotten(network string, addresses []string) {
	defer d.pools.background.signal()
	d.gc.mu.Lock()
	defer d.gc.mu.Unlock()
	for _, text := range addresses {
		if p, err := netip.ParsePrefix(text); err == nil {
			d.gc.forgotten[forgottenAddr{network, p.Addr()}] = time.Now()
		}
	}
}

// forgottenKept is how long a forgotten address is remembered: its lease may be in a store that is not available.
const forgottenKept = time.Hour

// isForgotten returns true if the network driver has removed the endpoint of a lease. It must have been leased long before: a younger lease of
// the address may be that of an endpoint which is being created.
func (g *gc) isForgotten(network string, a netip.Addr, l *pool.Lease) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, ok := g.forgotten[forgottenAddr{network, a}]
	return ok && l.Since.Before(at.Add(-gracePeriodAfterStart))
}

// anyForgotten returns true if there are forgotten addresses. It drops those that have been remembered for long enough.
func (g *gc) anyForgotten(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	maps.DeleteFunc(g.forgotten, func(_ forgottenAddr, at time.Time) bool { return now.Sub(at) > forgottenKept })
	return len(g.forgotten) > 0
}

// newGC returns a garbage collection for which all leases are suspect.
func newGC(ps *pools, uses func(context.Context) ([]Use, error), every time.Duration) *gc {
	return &gc{pools: ps, uses: uses, every: every, lastStart: time.Now(), forgotten: map[forgottenAddr]time.Time{}}
}

// markAllSuspect shortens the grace period of all present leases, because the engine has just started.
func (g *gc) markAllSuspect() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lastStart = time.Now()
}

// started returns the last start of the engine or of this process.
func (g *gc) started() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lastStart
}

// A sighting is when a suspect was first seen, and when it is released.
type sighting struct {
	rev         int64 // of the lease
	first, due  time.Time
	hasEndpoint bool // which the engine seems to have forgotten; it is removed by due, and the lease after it
}

// A suspect is a lease without an endpoint, or with one that ends, or, if it has no address, a handle without a network.
type suspect struct {
	h     localHandle
	addr  netip.Addr
	rev   int64
	lease *pool.Lease // nil for a handle
	why   verdict

	endsBy    time.Time // when its endpoint is removed, which the engine seems to have forgotten
	forgotten bool      // its endpoint was removed, because the engine had forgotten it
}

// key identifies a suspect across rounds.
func (s suspect) key() string { return s.h.String() + " " + s.addr.String() }

// run does a round if it is time for one.
func (g *gc) run(ctx context.Context) error {
	now := time.Now()
	if g.uses == nil || now.Sub(g.last) < gcInterval && !g.anyForgotten(now) {
		return nil
	}
	g.last = now
	suspects, err := g.suspects(ctx, now)
	if err != nil {
		return fmt.Errorf("look for addresses that are not in use: %w", err)
	}
	seen := map[string]sighting{}
	for _, s := range suspects {
		this := g.sight(s, now)
		seen[s.key()] = this
		if !this.hasEndpoint && !now.Before(this.due) {
			err = errors.Join(err, g.release(ctx, s, now))
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sightings = seen
	if err == nil {
		maps.DeleteFunc(g.forgotten, func(_ forgottenAddr, at time.Time) bool { return at.Before(now) })
	}
	return err
}

// sight returns the sighting of a suspect in the round at now, which goes on from that in the round before.
func (g *gc) sight(s suspect, now time.Time) sighting {
	if !s.endsBy.IsZero() {
		return sighting{rev: s.rev, due: s.endsBy, hasEndpoint: true}
	}
	before, ok := g.sightings[s.key()] // only this goroutine writes it
	if !ok || before.rev != s.rev || before.hasEndpoint {
		before = sighting{rev: s.rev, first: now}
	}
	before.due = before.first.Add(graceOf(s.lease, g.started()))
	if s.forgotten {
		before.due = now
	}
	return before
}

// expiryHint returns, to be appended to an error about an address in use, by when the address is free if no endpoint has it, or one that the
// engine seems to have forgotten; "" otherwise.
func (g *gc) expiryHint(ctx context.Context, h pool.Handle, a netip.Addr, err error) string {
	seen, ok := g.sighting(suspect{h: localHandle{Handle: h}, addr: a})
	if !ok || !errors.Is(err, ErrInUse) {
		return ""
	}
	kv, err := g.pools.ledger.Store.Get(ctx, pool.LeaseKey(h.ID, a))
	if err != nil || kv.Rev != seen.rev { // another lease than the one that was seen
		return ""
	}
	by := seen.due.Add(gcInterval + g.every).UTC().Format(pool.TimeFormat)
	if seen.hasEndpoint {
		return "; the engine seems to have forgotten its endpoint: if that stays so, it is free by " + by
	}
	return "; no endpoint has it: if that stays so, it is free by " + by
}

// sighting returns what the last round has seen of a suspect.
func (g *gc) sighting(s suspect) (sighting, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	seen, ok := g.sightings[s.key()]
	return seen, ok
}

// release releases a suspect, if it is unchanged.
func (g *gc) release(ctx context.Context, s suspect, now time.Time) error {
	if s.lease == nil {
		g.pools.log.Warn("pool is released: no network has it", zap.Stringer("pool", s.h.subnet), zap.Stringer("id", s.h.Handle),
			zap.String("network", s.h.network), zap.String("verdict", string(s.why)), zap.String(admin.EventKey, admin.EventSweep))
		return g.pools.release(ctx, s.h.Handle)
	}
	g.pools.log.Warn("address is released: no endpoint has it", zap.Stringer("address", s.addr), zap.String("container", s.lease.Name),
		zap.Time("since", s.lease.Since), zap.Stringer("id", s.h.Handle), zap.String("network", s.h.network),
		zap.String(admin.EventKey, admin.EventSweep))
	p, err := g.pools.open(ctx, s.h.Handle)
	if errors.Is(err, ErrUnknownPool) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Unlock()
	_, err = p.Release(ctx, s.addr, pool.Released{Share: s.h.Share, Token: s.lease.Token, At: now})
	return err
}

// suspects lists the suspect leases and handles of this node's engine.
func (g *gc) suspects(ctx context.Context, now time.Time) ([]suspect, error) {
	networks, err := g.uses(ctx)
	if err != nil {
		return nil, err
	}
	if err := g.pools.confirmNetworks(ctx, networks); err != nil {
		return nil, err
	}
	all, err := g.pools.localHandles(ctx)
	if err != nil {
		return nil, err
	}
	var found []suspect
	for _, h := range all {
		some, err := g.suspectsOf(ctx, h, all, networks, now)
		if errors.Is(err, pool.ErrLoading) || errors.Is(err, ErrUnknownPool) {
			continue // judged in a later round; removed since
		}
		if err != nil {
			return nil, err
		}
		found = append(found, some...)
	}
	return found, nil
}

// suspectsOf lists the suspects of one handle: the handle itself, or leases of it.
func (g *gc) suspectsOf(ctx context.Context, h localHandle, all []localHandle, networks []Use, now time.Time) ([]suspect, error) {
	i := slices.IndexFunc(networks, func(u Use) bool { return u.Network == h.network })
	facts := handleFacts{bound: h.network != "", networkExists: i >= 0, replaced: slices.ContainsFunc(all, func(o localHandle) bool {
		return o.network == h.network && o.subnet == h.subnet && o.order > h.order
	})}
	var leases []suspect
	if facts.bound && facts.networkExists {
		var err error
		if leases, err = g.containerLeases(ctx, h); err != nil {
			return nil, err
		}
		facts.leases = len(leases)
	}
	if why := judgeHandle(facts); why.suspect() {
		return []suspect{{h: h, why: why}}, nil
	}
	var found []suspect
	for _, s := range leases {
		user, using := userOf(s, all, networks)
		facts := leaseFacts{userKnown: user != "", age: now.Sub(s.lease.Since), grace: graceOf(s.lease, g.started())}
		for _, u := range using {
			facts.hasEndpoint = facts.hasEndpoint || slices.Contains(u.Addrs, s.addr)
			if by, ok := u.EndsBy[s.addr]; ok {
				s.endsBy = by
			}
		}
		s.forgotten = facts.userKnown && !facts.hasEndpoint && g.isForgotten(user, s.addr, s.lease)
		if judgeLease(*s.lease, facts).suspect() || s.forgotten || !s.endsBy.IsZero() {
			found = append(found, s)
		}
	}
	return found, nil
}

// userOf returns the network whose container has a lease, "" for unknown, and the networks that may have its endpoint. An address that a pool
// gave in place of another one of its group is in use in the network of that one; an older version did not ask whether both are of one network.
func userOf(s suspect, all []localHandle, networks []Use) (user string, using []Use) {
	if s.lease.Via == "" {
		return s.h.network, slices.DeleteFunc(slices.Clone(networks), func(u Use) bool { return u.Network != s.h.network })
	}
	i := slices.IndexFunc(all, func(o localHandle) bool { return o.ID == s.lease.Via })
	if i < 0 {
		return "", networks
	}
	return all[i].network, networks
}

// containerLeases lists the leases of containers that belong to h. The error matches [pool.ErrLoading] while they are not known.
func (g *gc) containerLeases(ctx context.Context, h localHandle) ([]suspect, error) {
	p, err := g.pools.open(ctx, h.Handle)
	if err != nil {
		return nil, err
	}
	held, err := p.Held(ctx, h.Handle)
	p.Unlock()
	var found []suspect
	for _, l := range held {
		if l.OfContainer() {
			found = append(found, suspect{h: h, addr: l.Addr, rev: l.Rev, lease: &l.Lease, why: suspectNoEndpoint})
		}
	}
	return found, err
}

// confirmNetworks decides which handles have a network of those that an older version has recorded in the shared store.
func (ps *pools) confirmNetworks(ctx context.Context, networks []Use) error {
	if ps.node == nil {
		return nil
	}
	unknown, err := ps.node.Confirm(ctx, func(network string) bool {
		return slices.ContainsFunc(networks, func(u Use) bool { return u.Network == network })
	})
	for _, h := range unknown {
		ps.log.Warn("it is not known which network has the pool: its network was recorded by an older version, and the network driver does not "+
			"have it; addresses without a container stay in it until it is removed", zap.Stringer("id", h))
	}
	return err
}
