// Package pool is the allocator: one pool of addresses, its leases, and the records of both in the store.
//
// It owns the choice of an address, cooldowns, gateways, and the networks that share a pool. It must not know the engine's requests, nor
// what a node keeps for itself beside a shared store: that is behind [Outbox] and [Member].
//
//	Pool.Load ─────> cache of the records: a bitmap of taken addresses, cooldowns, shares
//	Pool.Allocate ─> next free address in the bitmap ─> lease in the store ─> bitmap
//	Pool.Release ──> lease removed from the store, or replaced by a cooldown ─> bitmap
//
// The store is the truth: each write has conditions on the records that it depends on, and what the cache says of an address only helps to
// choose one. In a store of this node alone requests choose their addresses one after another and wait for the disk at once, see [Pool.Enter].
// The cache is dropped there after a write whose outcome is not known, and loaded again by the next call.
// In a store that nodes share a [replica] reads the leases once, in the background, and is told of the writes of all nodes afterwards; requests
// read the pool's record at most. Entry point: [Pool].
package pool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// A Pool is one pool. A caller locks it for one request, with Lock or Enter; requests to other pools do not wait for it. All methods but these,
// Unlock and Remove need the lock and, unless they say otherwise, a loaded pool. Those that write anything but the lease of an address for any
// container, or its release, need Lock.
type Pool struct {
	id     string
	key    string // of its record
	ledger Ledger
	outbox Outbox // nil if the store is this node's alone

	lock
	// inFlight are the addresses that requests which wait for the store lease, or whose records they remove.
	inFlight map[netip.Addr]bool

	// cache is nil until the pool's first use, and whenever it may differ from the store; see Load.
	cache *cache

	// last is the address that this node allocated last, if nodes share the store. Then each node keeps its own: if all wrote it to the
	// record, they would fail each other with every address, and if all started at the same one, they would meet at every address.
	last netip.Addr
}

// cache is the copy of what the store says of a pool.
type cache struct {
	addr.Subnet
	config    option.Config
	rec       Record
	rev       int64        // of rec in the store
	cursor    netip.Addr   // the address that was chosen last; rec has the one whose lease was written last
	stale     bool         // rec may not be what is in the store
	taken     *addr.Bitmap // indexes of the addresses that are leased or in cooldown
	cooldowns cooldowns
	collided  uint64   // collisions in a row, see collide
	replica   *replica // of the leases in a store that nodes share; nil in a store of this node alone

	// shares are the networks of a shared pool, by share. In a store that nodes share they are those that this node has used.
	shares map[string]share
}

// share is what a cache has of a share's record.
type share struct {
	rev           int64
	node, network string
	unreadable    bool
}

// New returns a pool that is not loaded. outbox is nil if the store is this node's alone.
func New(id string, l Ledger, outbox Outbox) *Pool {
	return &Pool{id: id, key: Key(id), ledger: l, outbox: outbox, lock: newLock(l.shared()), inFlight: map[netip.Addr]bool{}}
}

// UnlockAfter runs the last use of the pool and unlocks it, also if use panics, which the server survives. After a panic the cache may differ
// from the store, and is dropped.
func (p *Pool) UnlockAfter(use func() error) error {
	returned := false
	defer func() {
		if !returned {
			p.Close()
		}
		p.Unlock()
	}()
	err := use()
	returned = true
	return err
}

// Invalidate makes the next Load read the store: all of the pool or, in a store that nodes share, its record.
func (p *Pool) Invalidate() {
	if p.cache != nil {
		p.cache.stale = true
	}
}

// Close drops the cache, and ends its replica. The pool can be used again.
func (p *Pool) Close() {
	if p.cache != nil && p.cache.replica != nil {
		p.cache.replica.stop()
	}
	p.cache = nil
}

// ID returns the pool's ID.
func (p *Pool) ID() string { return p.id }

// Subnet returns the pool's subnet.
func (p *Pool) Subnet() addr.Subnet { return p.cache.Subnet }

// Config returns the pool's options.
func (p *Pool) Config() option.Config { return p.cache.config }

// Record returns the pool's record.
func (p *Pool) Record() Record { return p.cache.rec }

// Load fills the cache from the store if it is empty: in a store of this node alone with the whole pool, otherwise with the pool's record, see
// also [Pool.Follow]. The error matches [store.ErrNotFound] if the pool does not exist.
func (p *Pool) Load(ctx context.Context) error {
	if p.cache != nil && !p.cache.stale {
		return nil
	}
	s, err := p.ledger.pool(ctx, p.id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		p.Close()
		return err
	case err != nil:
		return err
	case p.ledger.shared():
		if s.keep(p.cache); !p.last.IsValid() { // a random start, where no other node is likely to start
			p.last = s.random()
		}
		s.cursor, p.cache = p.last, s
		return nil
	}
	if err = s.loadLeases(ctx, p.ledger, p.id); err == nil {
		s.shares, err = p.ledger.shares(ctx, p.id)
	}
	if err != nil {
		return err
	}
	for a := range p.inFlight {
		s.markTaken(a)
		s.cooldowns.remove(a)
	}
	if s.cursor = s.rec.Cursor; p.cache != nil && len(p.inFlight) > 0 {
		s.cursor = p.cache.cursor
	}
	p.cache = s
	return nil
}

// keep gives a cache that has the pool's record only what the old one has beside it, if there is one: subnet and options of a pool do not
// change.
func (s *cache) keep(old *cache) {
	if old != nil {
		s.taken, s.cooldowns, s.replica, s.shares = old.taken, old.cooldowns, old.replica, old.shares
	}
}

// random returns a random address of those to allocate.
func (s *cache) random() netip.Addr { return s.Addr(s.Lo + rand.Uint64N(s.Hi-s.Lo+1)) }

// loadLeases fills the bitmap and the cooldowns with the leases of the pool id. A lease that cannot be read counts as taken.
func (s *cache) loadLeases(ctx context.Context, l Ledger, id string) error {
	err := l.Leases(ctx, id, func(a netip.Addr, kv store.KV) error {
		if !s.Prefix.Contains(a) {
			return fmt.Errorf("record %s: %w: not in subnet %s", kv.Key, store.ErrCorrupt, s.Prefix)
		}
		s.markTaken(a)
		if !bytes.Contains(kv.Value, cooldownPart) { // most are not, and to decode them takes longer than to read them
			return nil
		}
		if lease, err := DecodeLease(kv); err == nil && lease.Kind == Cooldown {
			s.cooldowns.load(a, lease, kv.Rev)
		}
		return nil
	})
	s.cooldowns.sort()
	return err
}

// Has returns true if h is a handle of the pool. In a store that nodes share it reads the record of a share that it does not know.
func (p *Pool) Has(ctx context.Context, h Handle) (bool, error) {
	s := p.cache
	if h.Share == "" || s.config.PoolName == "" {
		return h.Share == "" && s.config.PoolName == "", nil
	}
	if _, ok := s.shares[h.Share]; ok || !p.ledger.shared() {
		return ok, nil
	}
	kv, err := p.ledger.Store.Get(ctx, shareKey(h))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.shares[h.Share] = newShare(kv)
	return true, nil
}

// newShare returns what a cache has of a share's record.
func newShare(kv store.KV) share {
	rec, err := DecodeShare(kv)
	return share{rev: kv.Rev, node: rec.Node, network: rec.Network, unreadable: err != nil}
}

// shareCond returns the condition that a share exists, for what is written for its network: once the share is removed nothing may be left of
// it.
func (p *Pool) shareCond(ctx context.Context, name string) (store.Cond, error) {
	h := Handle{p.id, name}
	ok, err := p.Has(ctx, h)
	if err == nil && !ok {
		err = Refuse(ErrUnknownPool, "no such pool; create the network again")
	}
	return store.Cond{Key: shareKey(h), Rev: p.cache.shares[name].rev}, err
}

// markTaken sets a's bit, if it has an index.
func (s *cache) markTaken(a netip.Addr) {
	if n, ok := s.Index(a); ok {
		s.taken.Add(n)
	}
}

// markFree clears a's bit, if it has an index.
func (s *cache) markFree(a netip.Addr) {
	if n, ok := s.Index(a); ok {
		s.taken.Remove(n)
	}
}

// write commits ops under conds, and under the condition that the pool's record is as cached. next, if not nil, becomes the pool's record in
// the same transaction. The result's OK is false only if a condition on a lease failed.
//
// For a caller that has entered it lets others go on meanwhile. Then the record is not a condition: each of them may write it, to note what it
// has allocated, and all that does anything else with it waits until they have left.
func (p *Pool) write(ctx context.Context, conds []store.Cond, next *Record, ops ...store.Op) (store.Result, error) {
	s := p.cache
	if !p.entered {
		conds = append([]store.Cond{{Key: p.key, Rev: s.rev}}, conds...) // first: with an old cache the other conditions mean nothing
	}
	if next != nil {
		op, err := record.Put(p.key, next)
		if err != nil {
			return store.Result{}, err
		}
		ops = append(ops, op)
	}
	r, err := p.commit(ctx, conds, ops)
	switch {
	case errors.Is(err, store.ErrAmbiguous):
		p.Invalidate()
		return r, err
	case err != nil:
		return r, err
	case !r.OK && r.Failed.Key == p.key:
		return r, p.changed()
	case !r.OK && strings.HasPrefix(r.Failed.Key, SharePrefix):
		delete(s.shares, strings.TrimPrefix(r.Failed.Key, SharePrefix+p.id+"/"))
		return r, p.changed()
	case !r.OK:
		return r, nil
	}
	if next != nil && (r.Rev > s.rev || r.Rev == 0) { // not if one that was written later is known already
		s.rec, s.rev = *next, r.Rev
	}
	if r.Rev == 0 {
		p.Invalidate() // applied, but the new revision is not known
	}
	return r, nil
}

// commit commits ops under conds. For a caller that has entered others go on meanwhile. If the cache was loaded again meanwhile, it may have been before
// the write or after it, and it is loaded once more.
func (p *Pool) commit(ctx context.Context, conds []store.Cond, ops []store.Op) (store.Result, error) {
	if !p.entered {
		return p.ledger.Commit(ctx, conds, ops...)
	}
	s := p.cache
	resume := p.pause()
	defer func() {
		resume()
		if p.cache != s {
			p.Invalidate()
		}
	}()
	return p.ledger.Commit(ctx, conds, ops...)
}

// changed drops the cache and returns [ErrChanged].
func (p *Pool) changed() error {
	p.Invalidate()
	return ErrChanged
}
