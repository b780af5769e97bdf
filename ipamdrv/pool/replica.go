package pool

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/store"
)

// A replica keeps the leases in the cache of a pool as they are in a store that nodes share. It watches them, and reads them once, in the
// background: no request reads the leases of a pool, and none waits for another node's.
//
// What it has read so far is of use at once: an address that it does not know to be taken may be, then a lease collides and another address
// is tried. After the store has compacted the changes that the watch was to tell next, all is read again.
//
// The pool's lock guards all fields but those of its goroutines.
type replica struct {
	end    context.CancelFunc
	loaded chan struct{} // closed when all leases were read

	// rev is up to which the changes were told. written has the revisions of what is known to be newer than that, or than a page that may
	// still come: this node's own writes, and while leases are read all changes.
	rev     int64
	written map[netip.Addr]int64

	shared bool                     // the pool is shared
	shares map[string]bool          // of this node's networks
	held   map[netip.Addr]HeldLease // of this node's networks
}

// A HeldLease is a lease of one of this node's networks.
type HeldLease struct {
	Addr netip.Addr
	Rev  int64 // of its record; 0 if it is not known
	Lease
}

// isOf returns true if the network that has handle h has the lease.
func (l Lease) isOf(h Handle) bool { return h.Share == "" || slices.Contains(l.Holders, h.Share) }

// Follow begins to keep the leases in the cache as they are in the store, if nodes share the store. shares are those that this node's networks
// have; it reads the leases again if there is one that it did not know. The pool must be loaded.
func (p *Pool) Follow(shares ...string) {
	s := p.cache
	if !p.ledger.shared() {
		return
	}
	var loaded chan struct{} // requests may wait for it
	if r := s.replica; r != nil {
		unknown := slices.DeleteFunc(slices.Clone(shares), func(name string) bool { return r.shares[name] })
		if len(unknown) == 0 {
			return
		}
		loaded = r.loaded
		r.stop()
	}
	ctx, end := context.WithCancel(context.Background())
	r := &replica{end: end, loaded: loaded, shared: s.config.PoolName != "", shares: map[string]bool{}}
	for _, name := range shares {
		r.shares[name] = true
	}
	r.reset()
	s.replica = r
	go r.run(ctx, p)
}

// joined adds a share of this node that has no leases yet.
func (r *replica) joined(name string) {
	if r != nil {
		r.shares[name] = true
	}
}

// reset makes the replica one that has read nothing, before the watch begins.
func (r *replica) reset() {
	r.rev = 0
	if r.loaded == nil || r.complete() { // requests may wait for it
		r.loaded = make(chan struct{})
	}
	r.written, r.held = map[netip.Addr]int64{}, map[netip.Addr]HeldLease{}
}

// begin forgets what is known of leases from before the watch: nothing would tell that it has ended.
func (r *replica) begin(s *cache) {
	s.taken, s.cooldowns = addr.NewBitmap(), cooldowns{}
	r.written, r.held = map[netip.Addr]int64{}, map[netip.Addr]HeldLease{}
}

// stop ends the replica.
func (r *replica) stop() { r.end() }

// loading returns true until all leases were read.
func (s *cache) loading() bool { return s.replica != nil && !s.replica.complete() }

// complete returns true if all leases were read.
func (r *replica) complete() bool {
	select {
	case <-r.loaded:
		return true
	default:
		return false
	}
}

// Loaded returns a channel that is closed when all leases were read. The pool must be loaded.
func (p *Pool) Loaded() <-chan struct{} {
	if p.cache.replica == nil {
		done := make(chan struct{})
		close(done)
		return done
	}
	return p.cache.replica.loaded
}

// Held lists the leases of a handle of this node. In a store that nodes share the error matches [ErrLoading] until all leases were read.
func (p *Pool) Held(ctx context.Context, h Handle) ([]HeldLease, error) {
	if p.ledger.shared() {
		return p.cache.replica.leasesOf(h)
	}
	return p.leasesOf(ctx, h)
}

// leasesOf lists the leases of a handle of this node, in order. The error matches [ErrLoading] until all leases were read.
func (r *replica) leasesOf(h Handle) ([]HeldLease, error) {
	if r == nil || !r.complete() || h.Share != "" && !r.shares[h.Share] {
		return nil, ErrLoading
	}
	var all []HeldLease
	for _, l := range r.held {
		if l.isOf(h) {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b HeldLease) int { return a.Addr.Compare(b.Addr) })
	return all, nil
}

// wrote notes a write of this node to the lease of a: it is lease now, or none of a container if that is nil. rev is 0 if the revision is not
// known; then the watch tells it.
func (r *replica) wrote(a netip.Addr, rev int64, lease *Lease) {
	if r == nil {
		return
	}
	if rev > r.rev {
		r.written[a] = rev
	}
	delete(r.held, a)
	if lease != nil {
		r.held[a] = HeldLease{a, rev, *lease}
	}
}

// watchBackoff is the pause before the store is watched again.
var watchBackoff = retry.Backoff{First: 100 * time.Millisecond, Max: 10 * time.Second}

// run watches the leases until the replica is stopped or the store is closed.
func (r *replica) run(ctx context.Context, p *Pool) {
	defer r.end()
	for failures := 1; ctx.Err() == nil; failures++ {
		err := r.watch(ctx, p)
		if errors.Is(err, store.ErrClosed) {
			return
		}
		if errors.Is(err, store.ErrCompacted) {
			failures, err = 1, r.locked(ctx, p, func(*cache) { r.reset() })
		}
		if err != nil && retry.Sleep(ctx, watchBackoff.Jittered(failures)) != nil {
			return
		}
	}
}

// watch watches the leases, and reads all if that was not done. It returns when the watch fails.
func (r *replica) watch(ctx context.Context, p *Pool) error {
	ctx, cancel := context.WithCancel(ctx)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer cancel()
	started := r.rev > 0 && !r.complete()
	if started { // the watch goes on
		reading.Go(func() { r.readAll(ctx, p) })
	}
	return store.Watch(ctx, p.ledger.Store, LeasePrefix+p.id+"/", r.rev, func(c store.Changes) error {
		err := r.locked(ctx, p, func(s *cache) { r.apply(s, c) })
		if err == nil && !started && !r.complete() { // all that is read from now on is not older than what was told
			started = true
			reading.Go(func() { r.readAll(ctx, p) })
		}
		return err
	})
}

// errReplaced: the pool has another replica.
var errReplaced = errors.New("the pool was loaded again")

// locked runs use with the pool's lock, if the replica still is the pool's.
func (r *replica) locked(ctx context.Context, p *Pool, use func(*cache)) error {
	if err := p.Lock(ctx); err != nil {
		return err
	}
	defer p.Unlock()
	if p.cache == nil || p.cache.replica != r {
		r.stop()
		return errReplaced
	}
	use(p.cache)
	return nil
}

// readAll reads all leases.
func (r *replica) readAll(ctx context.Context, p *Pool) {
	for failures := 1; ; failures++ {
		err := store.Pages(ctx, p.ledger.Store, LeasePrefix+p.id+"/", func(_ int64, page []store.KV) error {
			return r.locked(ctx, p, func(s *cache) {
				for _, kv := range page {
					r.set(s, store.Event{KV: kv})
				}
			})
		})
		if err == nil {
			err = r.locked(ctx, p, func(s *cache) {
				s.cooldowns.sort()
				close(r.loaded)
				r.forget()
			})
		}
		if err == nil || retry.Sleep(ctx, watchBackoff.Jittered(failures)) != nil {
			return
		}
	}
}

// apply applies what the watch has told.
func (r *replica) apply(s *cache, c store.Changes) {
	if r.rev == 0 { // the first: changes before it, as the end of a lease that has collided, are not told
		r.begin(s)
	}
	for _, e := range c.Events {
		if a, ok := r.set(s, e); ok && !r.complete() {
			r.written[a] = e.Rev // a page that comes later may be older
		}
	}
	r.rev = max(r.rev, c.Rev)
	r.forget()
}

// forget forgets the revisions that nothing older can come after.
func (r *replica) forget() {
	if !r.complete() || len(r.written) == 0 {
		return
	}
	for a, rev := range r.written {
		if rev <= r.rev {
			delete(r.written, a)
		}
	}
}

// set sets the lease of one address as a record has it, and returns the address. It returns false for a record that is older than what is
// known, and for one of no address of the pool.
func (r *replica) set(s *cache, e store.Event) (netip.Addr, bool) {
	a, ok := addressOf(e.Key)
	if !ok || !s.Prefix.Contains(a) || e.Rev < r.written[a] {
		return a, false
	}
	if r.held[a].Rev == e.Rev || s.cooldowns.rev(a) == e.Rev { // a cooldown may have expired since
		return a, true
	}
	delete(r.held, a)
	s.cooldowns.remove(a)
	if e.Deleted {
		s.markFree(a)
		return a, true
	}
	s.markTaken(a)
	if !r.relevant(e.Value) {
		return a, true
	}
	switch lease, err := DecodeLease(e.KV); {
	case err != nil: // it counts as taken
	case lease.Kind != Cooldown:
		r.held[a] = HeldLease{a, e.Rev, lease}
	default:
		lease.Since = seenSince(lease.Since, time.Now())
		if r.complete() {
			s.cooldowns.add(a, lease, e.Rev)
		} else {
			s.cooldowns.load(a, lease, e.Rev)
		}
	}
	return a, true
}

// clockSkew is by how much the clocks of two nodes may differ.
const clockSkew = 5 * time.Minute

// tell sets the lease of an address to a record that was read just now. The watch tells it later.
func (r *replica) tell(s *cache, kv store.KV) {
	if r != nil {
		r.set(s, store.Event{KV: kv})
	}
}

// seenSince returns since when the cooldown of an address counts that another node has released at a time of its own clock. It counts from
// when this node has seen it first: by the other node's clock it may seem to be over at once. But it began at most a skew after that time.
func seenSince(released, now time.Time) time.Time {
	if latest := released.Add(clockSkew); latest.Before(now) {
		return latest
	}
	return now
}

// Parts of the records of leases, as encoding/json writes them.
var (
	holdersPart  = []byte(`"holders":["`)
	cooldownPart = []byte(`"` + string(Cooldown) + `"`)
)

// relevant returns false for the record of a lease of another node's container, of which nothing but its address matters: in a large pool
// most are such, and to decode all would take longer than to read them.
func (r *replica) relevant(value []byte) bool {
	if !r.shared || bytes.Contains(value, cooldownPart) {
		return true
	}
	_, rest, ok := bytes.Cut(value, holdersPart)
	holder, rest, ended := bytes.Cut(rest, []byte(`"`))
	return !ok || !ended || !bytes.HasPrefix(rest, []byte("]")) || r.shares[string(holder)]
}

// Counts are what a pool has in memory.
type Counts struct {
	Record   Record
	Config   option.Config
	Size     uint64      // addresses that can be chosen
	Taken    uint64      // addresses that are leased or in cooldown
	Cooldown int         // addresses in cooldown
	Named    []HeldLease // leases of this node's networks, whose containers have a name
}

// Peek returns what a pool has in memory; ok is false if that is not all, or if requests use the pool for as long as ctx lasts. The caller must not
// have the lock.
func Peek(ctx context.Context, p *Pool) (c Counts, ok bool) {
	if p.Lock(ctx) != nil {
		return c, false
	}
	defer p.Unlock()
	s := p.cache
	if s == nil || s.loading() {
		return c, false
	}
	c = Counts{Record: s.rec, Config: s.config, Size: s.Count(), Taken: s.taken.Len(), Cooldown: len(s.cooldowns.all)}
	if s.replica != nil {
		for _, l := range s.replica.held {
			if l.Name != "" && l.Kind != Cooldown {
				c.Named = append(c.Named, l)
			}
		}
	}
	return c, true
}

// PeekWait is how long a call that only reads the memory waits for pools that are in use: longer than any step without a store, and short beside
// the time that an engine has for a call, and a scraper for the metrics.
const PeekWait = time.Second

// PeekHeld returns the leases of a handle of this node and the pool's gateway as they are in memory; ok is false if they are not there, or if a
// request uses the pool for long. The caller must not have the lock.
func PeekHeld(ctx context.Context, p *Pool, h Handle) (held []HeldLease, gateway netip.Addr, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, PeekWait)
	defer cancel()
	if p.Lock(ctx) != nil {
		return nil, gateway, false
	}
	defer p.Unlock()
	if p.cache == nil {
		return nil, gateway, false
	}
	held, err := p.cache.replica.leasesOf(h)
	return held, p.cache.rec.Gateway, err == nil
}
