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
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/metrics"
)

// An announcer keeps the routes by which routing daemons know where containers are: one route for each destination that an allocation
// with a container names. An allocation names its destinations before their routes are added, and ends after they were removed: so the ledger
// has each route that the plugin has added. A route with the plugin's table and protocol that it does not have is of a ledger that was lost.
// Its container may be running, and the route stays.
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
	unlock, err := n.locks.Lock(ctx, announceLock)
	if err != nil {
		return err
	}
	defer unlock()
	have, named, err := n.look(ctx)
	if err != nil {
		return err
	}
	for _, r := range have {
		if d, ok := named[routeKey{r.Dst, r.Index}]; ok && !d.wanted && d.parent.ID == a.Parent && slices.Contains(a.Announce, r.Dst) {
			if err := n.host.Withdraw(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// reconcile adds routes that are missing, such as those that went when their device was set down. Those of allocations that are ending are
// withdrawn when these are released. The error names routes that are not in the ledger.
func (n *announcer) reconcile(ctx context.Context) error {
	unlock, err := n.locks.Lock(ctx, announceLock)
	if err != nil {
		return err
	}
	defer unlock()
	have, named, err := n.look(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range have {
		key := routeKey{r.Dst, r.Index}
		if _, ok := named[key]; !ok {
			errs = append(errs, fmt.Errorf("the route to %[1]s is of no container that the ledger has, and stays; if there is none: "+
				"ip route del %[1]s table %[2]d", r.Dst, hw.AnnounceTable))
		}
		delete(named, key)
	}
	for key, d := range named {
		if !d.wanted || !d.parent.Up { // the routes of a parent that is down come with it
			continue
		}
		if err := n.add(d.parent, key.dst); err != nil {
			errs = append(errs, err)
			continue
		}
		n.counters.Count("routes_repaired")
		n.log.Info("announced route was repaired", zap.String("route", key.dst), zap.String(admin.EventKey, admin.EventRepair))
	}
	return errors.Join(errs...)
}

// A destination is one that an allocation names.
type destination struct {
	parent hw.Netdev
	wanted bool // by an allocation that is lent
}

// look returns the announced routes, and the destinations that allocations name. Of two devices with one destination the first that is lent
// keeps it.
func (n *announcer) look(ctx context.Context) (have []hw.Route, named map[routeKey]destination, _ error) {
	have, err := n.host.Announced()
	if err != nil {
		return nil, nil, err
	}
	held, err := n.allocs.List(ctx)
	if err != nil {
		return nil, nil, err
	}
	bySince := slices.SortedFunc(maps.Values(held), func(a, b *alloc.Allocation) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.Device, b.Device))
	})
	named, taken := map[routeKey]destination{}, map[string]hw.ID{}
	for _, a := range bySince {
		if a.FromEarlierBoot() || len(a.Announce) == 0 {
			continue
		}
		parent, err := n.host.Find(a.Parent)
		if errors.Is(err, hw.ErrAway) || errors.Is(err, hw.ErrNotFound) {
			continue // its routes are gone with it
		}
		if err != nil {
			return nil, nil, err
		}
		for _, dst := range a.Announce {
			key := routeKey{dst, parent.Index}
			d := destination{parent: parent, wanted: named[key].wanted}
			if other, ok := taken[dst]; a.State == alloc.Lent && (!ok || other == a.Parent) {
				taken[dst], d.wanted = a.Parent, true
			}
			named[key] = d
		}
	}
	return have, named, nil
}

// add adds a route.
func (n *announcer) add(parent hw.Netdev, dst string) error {
	p, err := netip.ParsePrefix(dst)
	if err != nil {
		return fmt.Errorf("announce %s: %w", dst, err)
	}
	return n.host.Announce(parent, p)
}
