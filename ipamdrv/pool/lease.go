package pool

import (
	"context"
	"errors"
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// lease leases address a, which was allocated or requested, and may be in cooldown. next is as in write. The same transaction removes the
// records of the expired cooldowns, if they are as cached: another node may have leased such an address since. The error matches errTaken if a
// is leased.
//
// For a caller that has entered others go on meanwhile, and must not choose these addresses.
func (p *Pool) lease(ctx context.Context, a netip.Addr, lease Lease, next *Record, expired ...netip.Addr) error {
	s := p.cache
	if err := s.checkLeasable(a); err != nil {
		return err
	}
	op, err := record.Put(LeaseKey(p.id, a), &lease)
	if err != nil {
		return err
	}
	conds, ops := []store.Cond{{Key: op.Key, Rev: s.cooldowns.rev(a)}}, append(make([]store.Op, 0, 2), op) // write may append the pool's record
	if lease.Remote != "" {
		ops = append(ops, store.Del(remotePrefix+lease.Remote))
	}
	if len(lease.Holders) > 0 {
		exists, err := p.shareCond(ctx, lease.Holders[0])
		if err != nil {
			return err
		}
		conds = append(conds, exists)
	}
	for _, b := range expired {
		conds = append(conds, store.Cond{Key: LeaseKey(p.id, b), Rev: s.cooldowns.rev(b)})
		ops = append(ops, store.Del(LeaseKey(p.id, b)))
	}
	written := false
	if p.entered {
		done := p.markInFlight(a, expired)
		defer func() { done(written) }()
	}
	undo := Op{Do: ReleaseAddress, Addr: a, Token: lease.Token}
	r, err := p.withUndo(ctx, undo, func(ctx context.Context) (store.Result, error) { return p.write(ctx, conds, next, ops...) })
	switch {
	case err != nil:
		return err
	case !r.OK && r.Failed.Key == op.Key:
		return errTaken
	case !r.OK && p.entered: // it is loaded again before the next attempt
		return p.changed()
	case !r.OK:
		s.distrust(r.Failed)
		return p.lease(ctx, a, lease, next)
	}
	written = true
	for _, b := range expired {
		s.cooldowns.remove(b)
		s.replica.wrote(b, r.Rev, nil)
	}
	s.setLease(a, r.Rev, lease)
	return nil
}

// markInFlight takes addresses out of the choice while a is leased and the records of others are removed. It returns what puts back those that
// are free then.
func (p *Pool) markInFlight(a netip.Addr, others []netip.Addr) (done func(written bool)) {
	s, rested := p.cache, false
	all := append([]netip.Addr{a}, others...)
	for _, b := range all {
		rested = rested || s.cooldowns.has(b)
		s.cooldowns.remove(b)
		s.markTaken(b)
		p.inFlight[b] = true
	}
	return func(written bool) {
		for _, b := range all {
			delete(p.inFlight, b)
		}
		switch {
		case rested && !written: // what the cache had of them is gone
			p.Invalidate()
		case written:
			all = others
			fallthrough
		default:
			for _, b := range all {
				s.markFree(b)
			}
		}
	}
}

// setLease caches a lease that this node has written; rev is 0 if its revision is not known.
func (s *cache) setLease(a netip.Addr, rev int64, lease Lease) {
	s.cooldowns.remove(a)
	s.markTaken(a)
	s.replica.wrote(a, rev, &lease)
}

// distrust drops the cooldown whose record another node has changed, so that the condition on it has failed. The address counts as taken until
// the replica is told what it is.
func (s *cache) distrust(failed store.Cond) {
	if a, ok := addressOf(failed.Key); ok {
		s.cooldowns.remove(a)
		s.markTaken(a)
	}
}

// checkObeyed returns an error if the pool has options that this version cannot obey. What the pool has given can be released all the same.
func (s *cache) checkObeyed() error {
	if len(s.config.Newer) == 0 {
		return nil
	}
	return RefuseNewer(s.Prefix.String(), s.config.Newer)
}

// checkLeasable returns an error for an address that the pool cannot have.
func (s *cache) checkLeasable(a netip.Addr) error {
	switch what := s.Reserved(a); {
	case a.Is4() != s.Prefix.Addr().Is4():
		return Refuse(ErrInvalid, "the pool is %s", s.Family())
	case !s.Prefix.Contains(a):
		return Refuse(ErrInvalid, "not in the subnet")
	case what != "":
		return Refuse(ErrInvalid, "it is %s", what)
	case addr.Unusable(a) != "" && addr.Unusable(s.Prefix.Addr()) == "": // a pool of an older version can be of such addresses alone
		return Refuse(ErrInvalid, "%s cannot be given to a container", addr.Unusable(a))
	}
	return nil
}

// inUse returns the error for an address that is leased.
func (p *Pool) inUse(ctx context.Context, a netip.Addr) error {
	kv, err := p.ledger.Store.Get(ctx, LeaseKey(p.id, a))
	if errors.Is(err, store.ErrNotFound) { // released meanwhile
		p.cache.cooldowns.remove(a)
		return p.changed()
	}
	if err != nil {
		return err
	}
	lease, err := DecodeLease(kv)
	if err != nil {
		return Refuse(ErrInUse, "in use (%v)", err)
	}
	if lease.Kind == Cooldown { // released meanwhile
		p.cache.replica.tell(p.cache, kv)
		return p.changed()
	}
	return Refuse(ErrInUse, "in use %s", lease.holder(a))
}

// AllocateExact leases the address that was requested. It probes an address that a container requests, but not one of --aux-address, which
// is in use by design.
func (p *Pool) AllocateExact(ctx context.Context, a netip.Addr, lease Lease, probe Probe) error {
	if err := p.cache.checkObeyed(); err != nil {
		return err
	}
	if err := p.cache.checkLeasable(a); err != nil {
		return err
	}
	if lease.HasIdentity() {
		mac, err := probe.holder(ctx, a)
		if err != nil {
			return err
		}
		if mac != "" {
			return Refuse(ErrInUse, "%s has it, says option probe (%s)", mac, probe.Device)
		}
	}
	err := p.lease(ctx, a, lease, nil)
	if errors.Is(err, errTaken) {
		err = p.inUse(ctx, a)
	}
	return err
}

// A Released says which lease to release: that of this share, if the pool is shared, and with this token, if there is one. The address is in
// cooldown from At on; the zero time means no cooldown.
type Released struct {
	Share, Token string
	At           time.Time
}

// Release releases the lease of a. It returns false if there was none. Release loads the pool, and retries after a change by another node.
func (p *Pool) Release(ctx context.Context, a netip.Addr, which Released) (released bool, err error) {
	err = Retry(ctx, func() (err error) {
		if err = p.Load(ctx); err == nil {
			released, err = p.releaseOnce(ctx, a, which)
		}
		return err
	})
	return released, err
}

// releaseOnce is one attempt of Release. The address is in cooldown afterwards if the pool's options say so.
func (p *Pool) releaseOnce(ctx context.Context, a netip.Addr, which Released) (released bool, err error) {
	s := p.cache
	kv, err := p.ledger.Store.Get(ctx, LeaseKey(p.id, a))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	lease, decodeErr := DecodeLease(kv)
	switch {
	case which.Token != "" && lease.Token != which.Token:
		return false, nil // a later lease
	case decodeErr != nil: // a lease that cannot be read can be released
	case lease.Kind == Prefetched && which.Token == "":
		return false, nil // no container's yet; an earlier container of it releases it twice
	case lease.Kind == Cooldown, a == s.config.Gateway.For(s.Prefix):
		return false, nil
	case which.Share != "" && !slices.Contains(lease.Holders, which.Share):
		return false, nil // another network's
	}
	var next *Lease
	if decodeErr == nil {
		next = s.afterRelease(lease, which)
	}
	err = p.replaceLease(ctx, a, kv, next)
	if errors.Is(err, store.ErrNoSpace) && next != nil && next.Kind == Cooldown && s.config.Quarantine == 0 && s.config.StickyByDefault {
		err = p.replaceLease(ctx, a, kv, nil) // the user did not ask for the cooldown
	}
	return err == nil, err
}

// afterRelease returns what a lease becomes: that of its other holders, or a cooldown; nil for nothing.
func (s *cache) afterRelease(lease Lease, which Released) *Lease {
	if len(lease.Holders) > 1 {
		shared := lease
		shared.Holders = without(lease.Holders, which.Share)
		return &shared
	}
	if lease.Kind == Gateway || lease.Kind == Prefetched || which.At.IsZero() || !s.wantsCooldown(lease) {
		return nil
	}
	cooldown := lease.cooldown(which.At)
	cooldown.Node = s.nodeOf(lease)
	return &cooldown
}

// replaceLease replaces the lease in kv by next: a lease with a holder less, a cooldown, or nothing. If the gateway's lease ends, the pool has
// no gateway any more.
func (p *Pool) replaceLease(ctx context.Context, a netip.Addr, kv store.KV, next *Lease) (err error) {
	s := p.cache
	ends := next == nil || next.Kind == Cooldown
	op := store.Del(kv.Key)
	if next != nil {
		if op, err = record.Put(kv.Key, next); err != nil {
			return err
		}
	}
	ops := []store.Op{op}
	if ends {
		more, err := owedFor(p.id, kv)
		if err != nil {
			return err
		}
		ops = append(ops, more...)
	}
	var rec *Record
	if ends && a == s.rec.Gateway {
		without := s.rec
		without.Gateway, without.Invented = netip.Addr{}, false
		rec = &without
		if !p.Upgrade() {
			return ErrChanged
		}
	}
	r, err := p.write(ctx, []store.Cond{store.Unchanged(kv)}, rec, ops...)
	switch {
	case err != nil:
		return err
	case !r.OK:
		return p.changed()
	case !ends:
		s.setLease(a, r.Rev, *next)
		return nil
	case next != nil:
		s.cooldowns.add(a, *next, r.Rev)
	default:
		s.markFree(a)
	}
	s.replica.wrote(a, r.Rev, nil)
	return nil
}

// wantsCooldown returns true if the pool's options want a cooldown after this lease, or may want it: nodes that know these options end it.
func (s *cache) wantsCooldown(released Lease) bool {
	return len(s.config.Newer) > 0 || s.config.Quarantine > 0 || s.config.Sticky > 0 && released.HasIdentity()
}

// nodeOf returns the node of the container that has a lease of a shared pool, "" for unknown.
func (s *cache) nodeOf(lease Lease) string {
	if len(lease.Holders) == 0 {
		return ""
	}
	return s.shares[lease.Holders[0]].node
}

// keptMax is how many addresses of a pool are kept for containers by default. Each has a record and a place in the cache, and containers that
// run once, under a name that is never used again, would leave any number.
const keptMax = 4096

// expire expires the cooldowns that have lasted long enough.
func (s *cache) expire(now time.Time) {
	limit := math.MaxInt
	if s.config.StickyByDefault && !s.loading() { // until all are read they are not in order
		limit = keptMax
	}
	s.cooldowns.expire(now, s.config.Quarantine, s.config.Sticky, limit, s.markFree)
}

// Assign records who has a prefetched address. In a store that was restored from a backup the prefetched lease may be missing: then Assign
// makes the lease. The error matches [ErrInUse] if another request has the address. Assign loads the pool.
func (p *Pool) Assign(ctx context.Context, op Op) error {
	if err := p.Load(ctx); err != nil {
		return err
	}
	if ok, err := p.Has(ctx, Handle{p.id, op.Share}); err != nil || !ok {
		return err // nil if it was removed with the network
	}
	kv, err := p.ledger.Store.Get(ctx, LeaseKey(p.id, op.Addr))
	var lease Lease
	if errors.Is(err, store.ErrNotFound) {
		kv, err = store.KV{Key: LeaseKey(p.id, op.Addr)}, nil
	} else if err == nil {
		lease, err = DecodeLease(kv)
	}
	switch free := kv.Rev == 0 || lease.Kind == Cooldown; {
	case err != nil:
		return err
	case !free && lease.Token == op.Lease.Token: // by an earlier attempt
		return nil
	case !free && lease.Token != op.Token:
		return Refuse(ErrInUse, "in use %s", lease.holder(op.Addr))
	}
	put, err := record.Put(kv.Key, op.Lease)
	if err != nil {
		return err
	}
	conds := []store.Cond{store.Unchanged(kv)}
	if op.Share != "" {
		exists, err := p.shareCond(ctx, op.Share)
		if err != nil {
			return err
		}
		conds = append(conds, exists)
	}
	s := p.cache
	r, err := p.write(ctx, conds, nil, put)
	if err == nil && !r.OK {
		err = p.changed()
	}
	if err == nil {
		s.setLease(op.Addr, r.Rev, *op.Lease)
	}
	return err
}

// Prefetched returns the leases of a handle that were leased ahead. A lease that cannot be read is none of them. In a store that nodes share
// the error matches [ErrLoading] until all leases were read.
func (p *Pool) Prefetched(ctx context.Context, h Handle) (map[netip.Addr]Lease, error) {
	if p.cache.loading() {
		return nil, ErrLoading
	}
	all, err := p.leasesOf(ctx, h)
	found := map[netip.Addr]Lease{}
	for _, l := range all {
		if l.Kind == Prefetched {
			found[l.Addr] = l.Lease
		}
	}
	return found, err
}
