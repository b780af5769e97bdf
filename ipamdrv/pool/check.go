package pool

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"
)

// CheckCache compares the cache of the pool with the store, and returns an error that names the first difference. Without a cache that
// is in use, or while its leases are being read, it returns nil. In a store that nodes share no node may write meanwhile.
func CheckCache(ctx context.Context, p *Pool) error {
	if p.cache == nil || p.cache.stale || p.cache.loading() {
		return nil
	}
	if p.ledger.shared() {
		return p.ledger.checkReplica(ctx, p.id, p.cache)
	}
	cached, fresh := p.cache, New(p.id, p.ledger, p.outbox)
	fresh.last = p.last // each node has its own
	if err := fresh.Load(ctx); err != nil {
		return fmt.Errorf("pool %s: %w", p.id, err)
	}
	stored, now := fresh.cache, time.Now()
	cached.expire(now)
	stored.expire(now)
	switch {
	case !cached.cooldowns.equal(&stored.cooldowns):
		return fmt.Errorf("pool %s: cooldowns are %+v in the cache, %+v in the store", p.id, cached.cooldowns, stored.cooldowns)
	case !cached.taken.Equal(stored.taken):
		return fmt.Errorf("pool %s: the cache has %d addresses, the store %d, or they differ", p.id, cached.taken.Len(), stored.taken.Len())
	case !maps.Equal(cached.shares, stored.shares):
		return fmt.Errorf("pool %s: shared by %v in the cache, %v in the store", p.id, cached.shares, stored.shares)
	case !reflect.DeepEqual(cached.rec, stored.rec) || cached.rev != stored.rev:
		return fmt.Errorf("pool %s: %+v at %d in the cache, %+v at %d in the store", p.id, cached.rec, cached.rev, stored.rec, stored.rev)
	}
	return nil
}

// checkReplica is CheckCache in a store that nodes share. Nodes have seen the start of a cooldown at different times, so that an address may be
// free for one of them already.
func (l Ledger) checkReplica(ctx context.Context, id string, s *cache) error {
	stored, err := l.pool(ctx, id)
	if err == nil {
		err = stored.loadLeases(ctx, l, id)
	}
	if err != nil {
		return fmt.Errorf("pool %s: %w", id, err)
	}
	known := func(c *cache, n uint64) bool {
		_, cooling := c.cooldowns.all[c.Addr(n)]
		return cooling || c.taken.Has(n)
	}
	for n := s.Lo; n <= s.Hi; n++ {
		if here, there := known(s, n), known(stored, n); here != there {
			return fmt.Errorf("pool %s: %s has a lease in the replica: %v (%+v), in the store: %v", id, s.Addr(n), here,
				s.cooldowns.all[s.Addr(n)], there)
		}
	}
	return nil
}

// equal compares cooldowns. The order in which addresses were kept for a container does not count.
func (c *cooldowns) equal(o *cooldowns) bool {
	if len(c.all)+len(o.all) > 0 && !reflect.DeepEqual(c.all, o.all) {
		return false
	}
	for _, cd := range []*cooldowns{c, o} {
		for _, had := range cd.kept {
			slices.SortFunc(had, netip.Addr.Compare)
		}
	}
	return c.keptCount == o.keptCount && (len(c.kept)+len(o.kept) == 0 || reflect.DeepEqual(c.kept, o.kept))
}
