package netdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/metrics"
)

// An announcer keeps the routes by which routing daemons know where containers are: one route for each destination that an allocation
// with a container names. The ledger says which there are to be, and they are the only routes with the plugin's table and protocol.
type announcer struct {
	host     *hw.Host
	allocs   *alloc.Table
	log      *zap.Logger
	locks    *keylock.Map
	counters *metrics.Counters
}

// announceLock is the name of the lock of all announced routes. Who has it takes no other lock.
const announceLock = "announced routes"

// A routeKey tells announced routes apart.
type routeKey struct {
	dst   string
	index int // of the device
}

// announce adds the routes of an allocation that is lent. It is an error if another device has one of the destinations: daemons tell
// destinations apart, not devices.
func (n *announcer) announce(ctx context.Context, a *alloc.Allocation) error {
	if len(a.Announce) == 0 {
		return nil
	}
	unlock, err := n.locks.Lock(ctx, announceLock)
	if err != nil {
		return err
	}
	defer unlock()
	parent, err := n.host.Find(a.Parent)
	if err != nil {
		return err
	}
	have, err := n.host.Announced()
	if err != nil {
		return err
	}
	for _, dst := range a.Announce {
		i := slices.IndexFunc(have, func(r hw.Route) bool { return r.Dst == dst && r.Index != parent.Index })
		if i >= 0 {
			return fmt.Errorf("%s: %s is announced for another device already; use another address or subnet, or announce=none "+
				"for one of the networks", a.Label, dst)
		}
		err := n.add(parent, dst)
		if errors.Is(err, hw.ErrUnsupported) { // the containers of the device reach each other all the same
			n.log.Warn("not announced", append(a.Fields(), zap.NamedError("err", err))...)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// withdraw removes the routes of an allocation that is not lent any more, but for those that others have as well.
func (n *announcer) withdraw(ctx context.Context, a *alloc.Allocation) error {
	if len(a.Announce) == 0 {
		return nil
	}
	_, err := n.sync(ctx)
	return err
}

// reconcile adds routes that are missing, such as those that went when their device was set down, and removes those that a crash has left.
func (n *announcer) reconcile(ctx context.Context) error {
	repaired, err := n.sync(ctx)
	for _, what := range repaired {
		n.counters.Count("routes_repaired")
		n.log.Info("announced route was repaired", zap.String("route", what))
	}
	return err
}

// sync makes the routes those that the ledger wants, and returns what it has changed.
func (n *announcer) sync(ctx context.Context) (changed []string, err error) {
	unlock, err := n.locks.Lock(ctx, announceLock)
	if err != nil {
		return nil, err
	}
	defer unlock()
	have, err := n.host.Announced()
	if err != nil {
		return nil, err
	}
	held, err := n.allocs.List(ctx)
	if err != nil {
		return nil, err
	}
	wanted, err := n.wanted(held)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, r := range have {
		key := routeKey{r.Dst, r.Index}
		if _, ok := wanted[key]; ok {
			delete(wanted, key)
			continue
		}
		if err := n.host.Withdraw(r); err != nil {
			errs = append(errs, err)
			continue
		}
		changed = append(changed, "removed "+r.Dst)
	}
	for key, parent := range wanted {
		if !parent.Up { // its routes come with it
			continue
		}
		if err := n.add(parent, key.dst); err != nil {
			errs = append(errs, err)
			continue
		}
		changed = append(changed, "added "+key.dst)
	}
	return changed, errors.Join(errs...)
}

// wanted returns the routes that allocations want, with their devices. Of two devices with one destination the first keeps it.
func (n *announcer) wanted(held alloc.Set) (map[routeKey]hw.Netdev, error) {
	wanted, taken := map[routeKey]hw.Netdev{}, map[string]hw.ID{}
	parents := map[hw.ID]hw.Netdev{}
	bySince := slices.SortedFunc(maps.Values(held), func(a, b *alloc.Allocation) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Device, b.Device))
	})
	for _, a := range bySince {
		if a.State != alloc.Lent || a.FromEarlierBoot() || len(a.Announce) == 0 {
			continue
		}
		parent, known := parents[a.Parent]
		if !known {
			var err error
			parent, err = n.host.Find(a.Parent)
			if err != nil && !errors.Is(err, hw.ErrAway) && !errors.Is(err, hw.ErrNotFound) {
				return nil, err
			}
			parents[a.Parent] = parent
		}
		for _, dst := range a.Announce {
			if other, ok := taken[dst]; parent.Index == 0 || ok && other != a.Parent {
				continue
			}
			taken[dst] = a.Parent
			wanted[routeKey{dst, parent.Index}] = parent
		}
	}
	return wanted, nil
}

// add adds a route.
func (n *announcer) add(parent hw.Netdev, dst string) error {
	p, err := netip.ParsePrefix(dst)
	if err != nil {
		return fmt.Errorf("announce %s: %w", dst, err)
	}
	return n.host.Announce(parent, p)
}
