package ipamdrv

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// CheckIndex compares what the driver has in RAM of each pool with what it would load from the ledger now.
func CheckIndex(ctx context.Context, d *Driver) error {
	d.mu.Lock()
	pools := maps.Clone(d.pools)
	d.mu.Unlock()
	for id, p := range pools {
		if err := p.lock(ctx); err != nil {
			return err
		}
		have := p.state
		p.unlock()
		if have == nil {
			continue
		}
		fresh := newPool(id, d.ledger)
		fresh.last = p.last // each node goes round by itself
		if err := fresh.load(ctx); err != nil {
			return fmt.Errorf("pool %s: %w", id, err)
		}
		now := time.Now()
		have.expire(now)
		fresh.state.expire(now)
		if err := sameRests(have.rests, fresh.state.rests); err != nil {
			return fmt.Errorf("pool %s: %w", id, err)
		}
		if !sameSet(have.used, fresh.state.used) {
			return fmt.Errorf("pool %s: the index has %d addresses, the ledger %d, or they differ", id, have.used.n,
				fresh.state.used.n)
		}
		if !maps.Equal(have.shares, fresh.state.shares) {
			return fmt.Errorf("pool %s: shared by %v in RAM, %v in the ledger", id, have.shares, fresh.state.shares)
		}
		if !reflect.DeepEqual(have.rec, fresh.state.rec) || have.rev != fresh.state.rev {
			return fmt.Errorf("pool %s: %+v at %d in RAM, %+v at %d in the ledger", id, have.rec, have.rev, fresh.state.rec,
				fresh.state.rev)
		}
	}
	return nil
}

// sameRests compares what rests in RAM and in the ledger.
func sameRests(a, b rests) error {
	if len(a.all)+len(b.all) > 0 && !reflect.DeepEqual(a.all, b.all) {
		return fmt.Errorf("at rest are %v in RAM, %v in the ledger", a.all, b.all)
	}
	for _, r := range []rests{a, b} {
		for _, had := range r.owner {
			slices.SortFunc(had, netip.Addr.Compare)
		}
	}
	if a.len() != b.len() || len(a.owner)+len(b.owner) > 0 && !reflect.DeepEqual(a.owner, b.owner) {
		return fmt.Errorf("kept are %v (%d) in RAM, %v (%d) in the ledger", a.owner, a.len(), b.owner, b.len())
	}
	return nil
}

// sameSet compares two sets word by word; both keep only what they must, so equal sets have equal words.
func sameSet(a, b *set) bool {
	for k := range a.level {
		if !maps.Equal(a.level[k], b.level[k]) {
			return false
		}
	}
	return a.n == b.n && a.root == b.root
}

// Set lets the tests at the index itself.
type Set struct{ s *set }

func NewSet() Set                                    { return Set{newSet()} }
func (s Set) Add(x uint64) bool                      { return s.s.add(x) }
func (s Set) Remove(x uint64) bool                   { return s.s.remove(x) }
func (s Set) Has(x uint64) bool                      { return s.s.has(x) }
func (s Set) Free(lo, hi uint64) (x uint64, ok bool) { return s.s.free(lo, hi) }
func (s Set) Len() uint64                            { return s.s.n }

// Words is the number of words that the set stores.
func (s Set) Words() (n int) {
	for _, l := range s.s.level {
		n += len(l)
	}
	return n
}

// Owed is how many pools a node has errands for.
func (d *Driver) Owed(ctx context.Context) (int, error) {
	pools, err := d.node.owing(ctx)
	return len(pools), err
}
