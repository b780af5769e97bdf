package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
)

// collisionsMax is how many addresses Allocate tries that other nodes have leased meanwhile.
const collisionsMax = 64

// A Choice says which addresses Allocate may give, a set of bits.
type Choice uint8

// The addresses in the order in which Allocate chooses them.
const (
	OwnKept   Choice = 1 << iota // the one that is kept for the container
	Free                         // the next free one that no host answers for
	OtherKept                    // the one that has been kept longest for a container that has not come back
	// Unread: without a wait for the leases that are still being read, by which the address that is kept for the container by default may not
	// be known.
	Unread

	AnyAddress = OwnKept | Free | OtherKept
)

// Allocate leases an address of those that from allows. The same transaction removes some cooldowns that have expired. In a store that nodes
// share the error matches [ErrLoading] if the leases that were read so far do not tell which address is free, and [ErrLoadingKept] if they do
// not tell which is kept for the container.
func (p *Pool) Allocate(ctx context.Context, lease Lease, from Choice, probe Probe) (netip.Addr, error) {
	if err := p.cache.checkObeyed(); err != nil {
		return netip.Addr{}, err
	}
	for range collisionsMax {
		s := p.cache
		if err := s.checkRead(lease, from); err != nil {
			return netip.Addr{}, err
		}
		a, kept, err := s.pick(ctx, lease, from, probe)
		if errors.Is(err, ErrFull) && s.loading() && from&^Unread != OwnKept {
			err = ErrLoading
		}
		if errors.Is(err, ErrFull) && from&^Unread != OwnKept && !p.Upgrade() { // an address that others release, or do not get, is free now
			err = ErrChanged
		}
		if err != nil {
			return netip.Addr{}, err
		}
		err = p.allocate(ctx, a, kept, lease)
		switch {
		case err == nil:
			return a, nil
		case !errors.Is(err, errTaken):
			return netip.Addr{}, err
		case !p.ledger.shared(): // the bitmap said free
			return netip.Addr{}, p.changed()
		}
		s.collide(a)
	}
	return netip.Addr{}, ErrChanged
}

// checkRead returns an error if leases that are still being read decide which address the lease gets.
func (s *cache) checkRead(lease Lease, from Choice) error {
	switch {
	case !s.loading():
	case s.config.Lowest, s.config.Sticky > 0 && !s.config.StickyByDefault:
		return ErrLoading
	case s.config.Sticky > 0 && from&OwnKept != 0 && from&Unread == 0 && lease.HasIdentity():
		return ErrLoadingKept
	}
	return nil
}

// allocate leases the address that was picked. The error matches errTaken if it is leased.
func (p *Pool) allocate(ctx context.Context, a netip.Addr, kept bool, lease Lease) error {
	s := p.cache
	if kept {
		return p.lease(ctx, a, lease, nil)
	}
	var next *Record
	if !p.ledger.shared() {
		rec := s.rec
		rec.Cursor, next = a, &rec
	}
	before := s.cursor
	s.cursor = a // others may choose the next one before this one is written
	if err := p.lease(ctx, a, lease, next, s.cooldowns.expired(a)...); err != nil {
		if s.cursor == a {
			s.cursor = before
		}
		return err
	}
	if p.ledger.shared() {
		p.last, s.collided = a, 0
	}
	return nil
}

// collide marks an address that another node has leased; the replica is told of that lease soon. The next address to try is elsewhere, or the
// two nodes that have met here would meet at the next one as well.
func (s *cache) collide(a netip.Addr) {
	s.cooldowns.remove(a)
	s.markTaken(a)
	s.collided = min(s.collided+1, 20)
	s.cursor = s.random()
}

// pick returns the address to lease; kept is true if it was kept for this container.
func (s *cache) pick(ctx context.Context, lease Lease, from Choice, probe Probe) (a netip.Addr, kept bool, err error) {
	for skipped := 0; ; skipped++ {
		now := time.Now()
		s.expire(now)
		kept = false
		if s.config.Sticky > 0 && from&OwnKept != 0 {
			a, kept = s.cooldowns.keptFor(lease.identityKeys(), s.nodeOf(lease))
		}
		ok := kept
		if !ok && from&Free != 0 {
			a, ok = s.next()
		}
		if !ok && from&OtherKept != 0 && !s.loading() {
			a, ok = s.cooldowns.oldestKept(now.Add(-s.config.Quarantine), s.allocatable)
		}
		if !ok && from&OtherKept == 0 { // there may be more of them
			return netip.Addr{}, false, ErrFull
		}
		if !ok {
			return netip.Addr{}, false, s.fullError()
		}
		if skipped > 0 && !probe.inTime() {
			return netip.Addr{}, false, Refuse(ErrInUse, "others have the %d addresses that were tried, says option probe (%s); "+
				"try again, or exclude them", skipped, probe.Device)
		}
		mac, err := probe.holder(ctx, a)
		if err != nil || mac == "" {
			return a, kept, err
		}
		s.cooldowns.addConflict(a, now)
		s.markTaken(a)
	}
}

// next returns the free address to allocate: round-robin, the first after the last.
func (s *cache) next() (netip.Addr, bool) {
	from := s.Lo
	last, ok := s.Index(s.cursor)
	if s.cursor.IsValid() && ok && last >= s.Lo && last < s.Hi && !s.config.Lowest {
		from = last + 1
	}
	if s.config.SLAAC && s.Base.Is6() && s.Hi > s.Lo { // other hosts of the segment choose at random, too, and nothing tells what is free
		from = s.Lo + rand.Uint64N(s.Hi-s.Lo)
	}
	if s.config.Lowest && s.collided > 0 { // one of the lowest, the fewer the fewer nodes seem to look for them at once
		from = min(s.Lo+rand.Uint64N(1<<s.collided), s.Hi)
	}
	n, ok := s.nextFree(from, s.Hi)
	if !ok && from > s.Lo {
		n, ok = s.nextFree(s.Lo, from-1)
	}
	if !ok {
		return netip.Addr{}, false
	}
	return s.Addr(n), true
}

// nextFree returns the first free index from lo to hi that may be allocated.
func (s *cache) nextFree(lo, hi uint64) (uint64, bool) {
	for _, r := range s.Choice {
		if r.Hi < lo || r.Lo > hi {
			continue
		}
		if n, ok := s.nextFreeIn(max(lo, r.Lo), min(hi, r.Hi)); ok {
			return n, true
		}
	}
	return 0, false
}

// nextFreeIn returns the first free index from lo to hi, without the one that is kept for a router.
func (s *cache) nextFreeIn(lo, hi uint64) (uint64, bool) {
	n, ok := s.taken.NextFree(lo, hi)
	if router, reserved := s.routerReserved(); ok && reserved && n == router {
		if n == hi {
			return 0, false
		}
		return s.taken.NextFree(n+1, hi)
	}
	return n, ok
}

// allocatable returns true if a may be allocated when it is free.
func (s *cache) allocatable(a netip.Addr) bool {
	n, ok := s.Index(a)
	router, reserved := s.routerReserved()
	return ok && s.Chosen(n) && (!reserved || n != router)
}

// routerReserved returns the index that is kept for a router because the pool has no gateway yet.
func (s *cache) routerReserved() (uint64, bool) {
	if s.rec.Gateway.IsValid() && !s.config.Gateway.None || s.config.Gateway.For(s.Prefix).IsValid() {
		return 0, false
	}
	return s.Router()
}

// fullError says that no address is left, how many there were, whether the gateway has one of them, and what to do.
func (s *cache) fullError() error {
	if len(s.Choice) == 0 {
		return Refuse(ErrFull, "option exclude leaves none to choose; ask for one with %s", ipFlag(s.Base))
	}
	count, router := s.Count(), ""
	if n, ok := s.routerReserved(); ok && !s.taken.Has(n) {
		count--
		router = fmt.Sprintf("; %s is kept for a router, a container can have it with %s", s.Addr(n), ipFlag(s.Base))
	}
	where, remedy := "", "--subnet"
	if s.IPRange.IsValid() {
		where, remedy = " of ip-range "+s.IPRange.String(), "--ip-range"
	}
	if len(s.config.Exclude) > 0 {
		where += " that are not excluded"
	}
	how := "in use"
	released, conflicts := s.cooldowns.count(s.allocatable), s.cooldowns.conflicts
	if released+conflicts > 0 {
		how = "taken"
	}
	what := fmt.Sprintf("all %d addresses%s are %s", count, where, how)
	if count == 1 {
		what = fmt.Sprintf("the one address%s is %s", strings.Replace(where, "are not", "is not", 1), how)
	}
	if released > 0 {
		what += fmt.Sprintf(", %d of them in quarantine", released)
	}
	if conflicts > 0 {
		what += fmt.Sprintf(", %d of them outside, says option probe", conflicts)
	}
	remedy = "create the network with a larger " + remedy
	gateway := s.chosenGateway()
	if !gateway.IsValid() || count > 1 {
		remedy = "remove a container, or " + remedy
	}
	if gateway.IsValid() && s.rec.Invented {
		what += fmt.Sprintf(", %s as a gateway that the engine requested", gateway)
		remedy += " or with --ipam-opt gateway=none"
	} else if gateway.IsValid() {
		what += fmt.Sprintf(", %s as the gateway", gateway)
	}
	return Refuse(ErrFull, "%s; %s%s", what, remedy, router)
}

// chosenGateway returns the pool's gateway if it has one of the addresses that could be allocated otherwise; not valid if not.
func (s *cache) chosenGateway() netip.Addr {
	gw := s.rec.Gateway
	if option := s.config.Gateway.For(s.Prefix); option.IsValid() {
		gw = option
	}
	if n, ok := s.Index(gw); !gw.IsValid() || s.config.Gateway.None || !ok || !s.Chosen(n) || gw.Is4() != s.Base.Is4() {
		return netip.Addr{}
	}
	return gw
}

// ipFlag returns the flag of docker run that requests an address of a's family.
func ipFlag(a netip.Addr) string {
	if a.Is4() {
		return "--ip"
	}
	return "--ip6"
}
