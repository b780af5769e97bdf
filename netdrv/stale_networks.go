package netdrv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/engineview"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/store"
)

// withRemedy adds to a conflict what the user can do if the other network is stale.
func withRemedy(err error) error {
	var c *mode.ConflictError
	if !errors.As(err, &c) {
		return err
	}
	return fmt.Errorf("%w (if the engine does not have that network, a crash has left it: say replace=%s)", err, ledger.ShortID(c.Network))
}

// suspect reports whether one of networks has the ID, and the engine may have forgotten it.
func (x *networks) suspect(nid string, networks []ledger.Network) bool {
	return slices.ContainsFunc(networks, func(n ledger.Network) bool {
		return n.ID == nid && x.engine.Staleness(n) != engineview.Known
	})
}

// removeStale removes stale networks, with endpoints that they still have. The caller holds the lock of all networks.
func (x *networks) removeStale(ctx context.Context) error {
	_, all, err := listNetworks(ctx, x.store, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range all {
		if x.engine.Staleness(n) == engineview.Stale {
			x.counters.Count("networks_outlived")
			x.log.Warn("network was forgotten by the engine", zap.String("network", ledger.ShortID(n.ID)), zap.String(admin.EventKey, admin.EventSweep))
			errs = append(errs, x.deleteLocked(ctx, n.ID))
		}
	}
	return errors.Join(errs...)
}

// usersLock is the name of the lock of an owner's network, which is held shared by calls that need the network.
func usersLock(nid string) string { return "users/" + nid }

// removeUnused removes an owner's network if it has no endpoints, no container uses an address of its pools, and no call needs it. The caller
// holds the lock of all networks.
func (x *networks) removeUnused(ctx context.Context, nid string) error {
	unlock, ok := x.locks.TryLock(usersLock(nid))
	if !ok {
		return nil
	}
	defer unlock()
	left, err := ledger.List[ledger.Endpoint](ctx, x.store, ledger.EndpointsOf(nid))
	if err != nil || len(left) > 0 {
		return err
	}
	held, err := x.allocs.List(ctx)
	if err != nil {
		return err
	}
	for _, a := range held {
		if a.Network == nid && x.endpoints.leases.mayBeUsed(a) {
			return nil
		}
	}
	return x.deleteLocked(ctx, nid)
}

// removeAllUnused removes the owners' networks that a crash has left without endpoints. The caller holds the lock of all networks.
func (x *networks) removeAllUnused(ctx context.Context) error {
	_, all, err := listNetworks(ctx, x.store, "")
	for _, n := range all {
		if n.Owner != "" {
			err = errors.Join(err, x.removeUnused(ctx, n.ID))
		}
	}
	return err
}

// removeUnneeded removes stale networks, those of owners without endpoints, and the VFs and devices of the host that the plugin created and
// that are not needed any more. Devices of the host that are needed and missing it creates again. The caller holds the lock of all networks.
func (x *networks) removeUnneeded(ctx context.Context) error {
	return errors.Join(x.removeStale(ctx), x.removeAllUnused(ctx), x.removeHostDevices(ctx),
		x.syncSpecs(ctx), // before the VFs: one that is bound to a driver for programs is not removed
		x.pool.RemoveAllUnused(ctx), x.vlans.Repair(ctx), x.hosts.Repair(ctx))
}

// trySpecs is syncSpecs for a network that has just been created or removed. It returns no error: the reconciler tries again.
func (x *networks) trySpecs(ctx context.Context, n ledger.Network) {
	if err := x.syncSpecs(ctx); err != nil {
		x.log.Warn("cdi specs are not up to date yet", zap.String("network", ledger.ShortID(n.ID)), zap.NamedError("err", err))
	}
}

// syncSpecs brings the CDI specs up to date. The caller holds the lock of all networks.
func (x *networks) syncSpecs(ctx context.Context) error {
	more, err := x.specs.Sync(ctx)
	if more {
		x.nudge()
	}
	return err
}

// replace removes the record of a network that is stale, as the user says or as it seems, and returns the others. It is an error if the
// network has endpoints that the engine does not seem to have forgotten, or if the user has not said that the network is stale.
func (x *networks) replace(ctx context.Context, id string, others []ledger.Network, said bool) ([]ledger.Network, error) {
	rest, nid := leaveOut(others, id)
	if nid == "" { // it was replaced already, or never created
		return others, nil
	}
	if err := x.removeForgotten(ctx, nid, said); err != nil {
		return nil, err
	}
	r, err := ledger.Get[ledger.Network](ctx, x.store, ledger.NetworkKey(nid))
	if err == nil {
		err = x.removeRecord(ctx, r)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err := x.hosts.RemoveUnneeded(ctx); err != nil { // the new network may have the same addresses
		return nil, err
	}
	x.counters.Count("networks_replaced")
	x.log.Warn("network was forgotten by the engine or by a crash", zap.String("network", ledger.ShortID(nid)), zap.String(admin.EventKey, admin.EventSweep))
	x.nudge() // the VFs of its PFs may not be needed any more
	return rest, nil
}

// leaveOut returns networks without the one whose ID begins with id, and its ID; "" if there is none.
func leaveOut(networks []ledger.Network, id string) (rest []ledger.Network, nid string) {
	i := slices.IndexFunc(networks, func(n ledger.Network) bool { return strings.HasPrefix(n.ID, id) })
	if i < 0 {
		return networks, ""
	}
	return slices.Delete(slices.Clone(networks), i, i+1), networks[i].ID
}

// removeForgotten removes the endpoints of a network that is to be replaced.
func (x *networks) removeForgotten(ctx context.Context, nid string, said bool) error {
	endpoints, err := x.forgotten(ctx, nid, said)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range endpoints {
		errs = append(errs, x.endpoints.delete(ctx, nid, e.Rec.ID, 0))
	}
	return errors.Join(errs...)
}

// forgotten returns the endpoints of a network that is to be replaced, as the user has said or not. It is an error if one of them is not, as
// far as can be seen, forgotten by the engine: its device may be in a container.
func (x *networks) forgotten(ctx context.Context, nid string, said bool) ([]ledger.Rev[ledger.Endpoint], error) {
	endpoints, err := ledger.List[ledger.Endpoint](ctx, x.store, ledger.EndpointsOf(nid))
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		if !said || x.allocs.EndsBy(nid, e.Rec.ID).IsZero() {
			return nil, fmt.Errorf("option replace: network %s has %d endpoints, and endpoint %s may be in use; if its container has ended, "+
				"restart the plugin, and try again when its device has been home for a moment", ledger.ShortID(nid), len(endpoints), ledger.ShortID(e.Rec.ID))
		}
	}
	return endpoints, nil
}

// removeRecord removes a network's record, and the affinities of its containers.
func (x *networks) removeRecord(ctx context.Context, r ledger.Rev[ledger.Network]) error {
	forgotten, err := x.allocs.ForgetAffinity(ctx, r.Rec.ID)
	if err != nil {
		return err
	}
	_, err = ledger.Commit(ctx, x.store, store.Unchanged(r.KV), append(forgotten, ledger.Del(r.KV.Key))...)
	if err == nil {
		x.endpoints.leases.withPools(r.Rec)
	}
	return err
}
