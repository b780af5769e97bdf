package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"
)

// choose leases an address: the one that the asker had before, or else the next one that nobody outside has. The same
// transaction forgets some of those that have rested long enough.
func (p *pool) choose(ctx context.Context, lease leaseRecord, ask prober) (netip.Addr, error) {
	s := p.state
	a, own, err := s.pick(ctx, lease, ask)
	if err != nil {
		return netip.Addr{}, err
	}
	if own {
		return a, p.give(ctx, a, lease, nil)
	}
	var next *poolRecord
	if p.node == nil {
		rec := s.rec
		rec.Cursor, next = a, &rec
	}
	if err := p.give(ctx, a, lease, next, s.rests.forget(a)...); err != nil {
		if errors.Is(err, ErrInUse) {
			p.state, err = nil, errChanged // the index said free
			p.last = netip.Addr{}          // or the two nodes that have met here meet at the next as well
		}
		return netip.Addr{}, err
	}
	if p.node != nil {
		p.last, s.rec.Cursor = a, a
	}
	return a, nil
}

// pick finds the address to lease; own is true when it is the one that the asker had before.
func (s *state) pick(ctx context.Context, lease leaseRecord, ask prober) (a netip.Addr, own bool, err error) {
	for passed := 0; ; passed++ {
		now := time.Now()
		s.expire(now)
		own = false
		if s.sticky > 0 {
			a, own = s.rests.of(lease.owners())
		}
		ok := own
		if !own {
			a, ok = s.next(now)
		}
		if !ok {
			return netip.Addr{}, false, s.fullError()
		}
		if passed > 0 && !ask.inTime() {
			return netip.Addr{}, false, refuse(ErrInUse, "others have the %d addresses that were tried, says option probe (%s); "+
				"try again, or exclude them", passed, ask.device)
		}
		mac, err := ask.holder(ctx, a)
		if err != nil || mac == "" {
			return a, own, err
		}
		s.rests.addStranger(a, now)
		s.mark(a, (*set).add)
	}
}

// next is the address to choose: the first free one after that which was chosen last, going round. When there is none it
// is the one that was kept longest for somebody who has not come back.
func (s *state) next(now time.Time) (netip.Addr, bool) {
	from := s.lo
	last, ok := s.number(s.rec.Cursor)
	if s.rec.Cursor.IsValid() && ok && last >= s.lo && last < s.hi && !s.lowest {
		from = last + 1
	}
	if s.slaac && s.base.Is6() && s.hi > s.lo { // other hosts on the segment do the same, and nobody asks whether it is free
		from = s.lo + rand.Uint64N(s.hi-s.lo)
	}
	n, ok := s.free(from, s.hi)
	if !ok && from > s.lo {
		n, ok = s.free(s.lo, from-1)
	}
	if ok {
		return s.addr(n), true
	}
	return s.rests.oldestKept(now.Add(-s.quarantine), s.choosable)
}

// free is the first free number from lo to hi that may be chosen.
func (s *state) free(lo, hi uint64) (uint64, bool) {
	for _, st := range s.choice {
		if st.hi < lo || st.lo > hi {
			continue
		}
		if n, ok := s.freeIn(max(lo, st.lo), min(hi, st.hi)); ok {
			return n, true
		}
	}
	return 0, false
}

// freeIn is the first free number from lo to hi, without the one that is kept for a router.
func (s *state) freeIn(lo, hi uint64) (uint64, bool) {
	n, ok := s.used.free(lo, hi)
	if kept, is := s.kept(); ok && is && n == kept {
		if n == hi {
			return 0, false
		}
		return s.used.free(n+1, hi)
	}
	return n, ok
}

// choosable says whether a may be chosen when it is free.
func (s *state) choosable(a netip.Addr) bool {
	n, ok := s.number(a)
	kept, is := s.kept()
	return ok && s.chosen(n) && (!is || n != kept)
}

// kept is the number that is not chosen because the pool has no gateway yet.
func (s *state) kept() (uint64, bool) {
	if s.rec.Gateway.IsValid() && !s.gateway.none || s.gateway.of(s.prefix).IsValid() {
		return 0, false
	}
	return s.router()
}

// fullError says that there is nothing left to choose, how much there was, and what to do.
func (s *state) fullError() error {
	if len(s.choice) == 0 {
		return refuse(ErrFull, "option exclude leaves none to choose; ask for one with %s", flag(s.base))
	}
	count, keep := s.count(), ""
	if n, ok := s.kept(); ok && !s.used.has(n) {
		count--
		keep = fmt.Sprintf("; %s is kept for a router, a container can have it with %s", s.addr(n), flag(s.base))
	}
	where, remedy := "", "--subnet"
	if s.within.IsValid() {
		where, remedy = " of ip-range "+s.within.String(), "--ip-range"
	}
	if len(s.exclude) > 0 {
		where += " that are not excluded"
	}
	how := "in use"
	resting, strange := s.rests.len()-s.rests.strange, s.rests.strange
	if resting+strange > 0 {
		how = "taken"
	}
	what := fmt.Sprintf("all %d addresses%s are %s", count, where, how)
	if count == 1 {
		what = fmt.Sprintf("the one address%s is %s", strings.Replace(where, "are not", "is not", 1), how)
	}
	if resting > 0 {
		what += fmt.Sprintf(", %d of them in quarantine", resting)
	}
	if strange > 0 {
		what += fmt.Sprintf(", %d of them outside, says option probe", strange)
	}
	return refuse(ErrFull, "%s; remove a container, or create the network with a larger %s%s", what, remedy, keep)
}

// flag is the flag of docker run that asks for an address of a's family.
func flag(a netip.Addr) string {
	if a.Is4() {
		return "--ip"
	}
	return "--ip6"
}
