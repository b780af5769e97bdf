package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mellanox/passthrough/store"
)

// pool is one pool in RAM. Requests to it take turns; those to other pools do not wait for it.
type pool struct {
	id     string
	ledger ledger
	turn   // of requests to it

	// state is nil until the pool's first use and whenever it may differ from the ledger; see load.
	state *state
}

// state is the copy of what the ledger says of a pool.
type state struct {
	subnet
	config
	rec   poolRecord
	rev   int64 // of rec in the ledger
	used  *set  // the numbers of the addresses that are leased or rest
	rests rests // what was leased and rests

	shares map[string]bool // the networks that share the pool; none when it is not shared
}

// newPool is a pool that has not been looked up yet.
func newPool(id string, l ledger) *pool {
	return &pool{id: id, ledger: l, turn: newTurn()}
}

// load makes state from the ledger when there is none. The error matches [store.ErrNotFound] when the pool does not
// exist. The caller has the turn, as in all methods below.
func (p *pool) load(ctx context.Context) error {
	if p.state != nil {
		return nil
	}
	kv, err := p.ledger.store.Get(ctx, poolKey(p.id))
	if err != nil {
		return err
	}
	rec, err := decodePool(kv)
	if err != nil {
		return err
	}
	c, err := parseOptions(rec.Options)
	if err != nil {
		return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, err)
	}
	s := &state{subnet: newSubnet(rec.Subnet, rec.Range, c.exclude), config: c, rec: rec, rev: kv.Rev, used: newSet()}
	err = p.ledger.leases(ctx, p.id, func(a netip.Addr, kv store.KV) error {
		if !s.prefix.Contains(a) {
			return fmt.Errorf("record %s: %w: not in subnet %s", kv.Key, store.ErrCorrupt, s.prefix)
		}
		s.mark(a, (*set).add)
		if l, err := decodeLease(kv); err == nil && l.Kind == kindResting {
			s.rests.add(a, l, kv.Rev)
		}
		return nil // a lease that cannot be read is somebody's
	})
	if err != nil {
		return err
	}
	s.rests.sort()
	s.shares, err = p.sharesOf(ctx)
	if err == nil {
		p.state = s
	}
	return err
}

// sharesOf lists the networks that share the pool.
func (p *pool) sharesOf(ctx context.Context) (map[string]bool, error) {
	keys, err := p.ledger.keys(ctx, sharePrefix+p.id+"/")
	shares := map[string]bool{}
	for _, key := range keys {
		shares[strings.TrimPrefix(key, sharePrefix+p.id+"/")] = true
	}
	return shares, err
}

// knows says whether h is a handle of the pool.
func (p *pool) knows(h handle) bool {
	if len(p.state.shares) == 0 {
		return h.share == ""
	}
	return p.state.shares[h.share]
}

// mark changes a's place in the index, if it has one.
func (s *state) mark(a netip.Addr, change func(*set, uint64) bool) {
	if n, ok := s.number(a); ok {
		change(s.used, n)
	}
}

// write commits ops under conds and under the condition that the pool is as we know it. next, when not nil, becomes the
// pool's record in the same transaction. The result's OK is false only when a condition on a lease failed.
func (p *pool) write(ctx context.Context, conds []store.Cond, next *poolRecord, ops ...store.Op) (store.Result, error) {
	s := p.state
	conds = append([]store.Cond{{Key: poolKey(p.id), Rev: s.rev}}, conds...) // first: who is not up to date judges nothing
	if next != nil {
		op, err := put(poolKey(p.id), next)
		if err != nil {
			return store.Result{}, err
		}
		ops = append(ops, op)
	}
	r, err := p.ledger.commit(ctx, conds, ops...)
	switch {
	case errors.Is(err, store.ErrAmbiguous):
		p.state = nil
		return r, err
	case err != nil:
		return r, err
	case !r.OK && r.Failed.Key == poolKey(p.id):
		p.state = nil
		return r, errChanged
	case !r.OK:
		return r, nil
	}
	if next != nil {
		s.rec, s.rev = *next, r.Rev
	}
	if r.Rev == 0 {
		p.state = nil // applied, but the new revision is not known
	}
	return r, nil
}

// give leases address a, which the caller has chosen or was asked for, and which may rest. next and more are as in write.
func (p *pool) give(ctx context.Context, a netip.Addr, lease leaseRecord, next *poolRecord, more ...store.Op) error {
	s := p.state
	if err := p.givable(a); err != nil {
		return err
	}
	op, err := put(leaseKey(p.id, a), lease)
	if err != nil {
		return err
	}
	conds := []store.Cond{{Key: op.Key, Rev: s.rests.rev(a)}}
	r, err := p.write(ctx, conds, next, append([]store.Op{op}, more...)...)
	if err != nil {
		return err
	}
	if !r.OK {
		return p.inUse(ctx, a)
	}
	s.rests.remove(a)
	s.mark(a, (*set).add)
	return nil
}

// givable refuses an address that the pool cannot give.
func (p *pool) givable(a netip.Addr) error {
	s := p.state
	switch what := s.reserved(a); {
	case a.Is4() != s.prefix.Addr().Is4():
		return refuse(ErrInvalid, "the pool is %s", s.family())
	case !s.prefix.Contains(a):
		return refuse(ErrInvalid, "not in the subnet")
	case what != "":
		return refuse(ErrInvalid, "it is %s", what)
	}
	return nil
}

// inUse is the error for an address that somebody has.
func (p *pool) inUse(ctx context.Context, a netip.Addr) error {
	kv, err := p.ledger.store.Get(ctx, leaseKey(p.id, a))
	if err != nil {
		return err
	}
	lease, err := decodeLease(kv)
	if err != nil {
		return refuse(ErrInUse, "in use (%v)", err)
	}
	if lease.Kind == kindResting { // since we looked
		p.state = nil
		return errChanged
	}
	return refuse(ErrInUse, "in use %s", lease.holder(a))
}

// giveAsked leases the address that somebody asked for. One that a container asks for is probed; what --aux-address names is
// somebody's, and does not say whose.
func (p *pool) giveAsked(ctx context.Context, a netip.Addr, lease leaseRecord, ask prober) error {
	if err := p.givable(a); err != nil {
		return err
	}
	if len(lease.owners()) > 0 {
		mac, err := ask.holder(ctx, a)
		if err != nil {
			return err
		}
		if mac != "" {
			return refuse(ErrInUse, "%s has it, says option probe (%s)", mac, ask.device)
		}
	}
	return p.give(ctx, a, lease, nil)
}

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
	next := s.rec
	next.Cursor = a
	over := s.rests.forget(a)
	var forget []store.Op
	for _, b := range over {
		forget = append(forget, store.Del(leaseKey(p.id, b)))
	}
	if err := p.give(ctx, a, lease, &next, forget...); err != nil {
		if errors.Is(err, ErrInUse) {
			p.state, err = nil, errChanged // the index said free
		}
		return netip.Addr{}, err
	}
	for _, b := range over {
		s.rests.remove(b)
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
	if s.slaac && s.base.Is6() { // other hosts on the segment do the same, and nobody asks whether it is free
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

// expire ends the rest of those that have rested long enough.
func (s *state) expire(now time.Time) {
	s.rests.expire(now, s.quarantine, s.sticky, func(a netip.Addr) { s.mark(a, (*set).remove) })
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
	what := fmt.Sprintf("all %d addresses%s are in use", count, where)
	if count == 1 {
		what = fmt.Sprintf("the one address%s is in use", strings.Replace(where, "are not", "is not", 1))
	}
	if n := s.rests.len() - s.rests.strange; n > 0 {
		what += fmt.Sprintf(", %d of them in quarantine", n)
	}
	if n := s.rests.strange; n > 0 {
		what += fmt.Sprintf(", %d of them outside, says option probe", n)
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

// end ends the lease that a has for share, as often as it takes.
func (p *pool) end(ctx context.Context, a netip.Addr, share string) (released bool, err error) {
	err = again(func() (err error) {
		if err = p.load(ctx); err == nil {
			released, err = p.release(ctx, a, share, time.Now())
		}
		return err
	})
	return released, err
}

// release ends the lease of a for share, if there is one; released is false when there was none. What comes next is the
// address's rest, if the pool's options want one.
func (p *pool) release(ctx context.Context, a netip.Addr, share string, now time.Time) (released bool, err error) {
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
	case decodeErr != nil: // one that cannot be read can be released
	case lease.Kind == kindResting, a == s.config.gateway.of(s.prefix):
		return false, nil
	case share != "" && !slices.Contains(lease.Holders, share):
		return false, nil // another network's
	case len(lease.Holders) > 1:
		lease.Holders = without(lease.Holders, share)
		return p.keep(ctx, kv, lease)
	}
	return p.free(ctx, a, kv, lease.rest(now), lease.Kind != kindGateway && decodeErr == nil)
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
