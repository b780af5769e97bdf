package netdrv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/netdrv/engineview"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/store"
)

// orReplace adds to a conflict what the user can do if the other network is stale.
func orReplace(err error) error {
	var c *mode.ConflictError
	if !errors.As(err, &c) {
		return err
	}
	return fmt.Errorf("%w (if the engine does not have that network, a crash has left it: say replace=%s)", err, ledger.ShortID(c.Network))
}

// suspect reports whether one of networks has the ID, and the engine may have forgotten it.
func (d *Driver) suspect(nid string, networks []ledger.Network) bool {
	return slices.ContainsFunc(networks, func(n ledger.Network) bool {
		return n.ID == nid && d.engine.Staleness(n) != engineview.Known
	})
}

// removeStale removes stale networks, with endpoints that they still have. The caller holds the lock of all networks.
func (d *Driver) removeStale(ctx context.Context) error {
	_, all, err := d.networks(ctx, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range all {
		if d.engine.Staleness(n) == engineview.Stale {
			d.counters.Count("networks_outlived")
			d.log.Warn("network was forgotten by the engine", zap.String("network", ledger.ShortID(n.ID)))
			errs = append(errs, d.dropNetwork(ctx, n.ID))
		}
	}
	return errors.Join(errs...)
}

// removeUnneeded removes stale networks, and the VFs that the plugin created and that are not needed any more. The caller holds the lock of
// all networks.
func (d *Driver) removeUnneeded(ctx context.Context) error {
	return errors.Join(d.removeStale(ctx), d.pool.RemoveAllUnused(ctx))
}

// replace removes the record of a network that is stale, as the user says or as it seems, and returns the others. It is an error if the
// network has endpoints.
func (d *Driver) replace(ctx context.Context, id string, others []ledger.Network) ([]ledger.Network, error) {
	i := slices.IndexFunc(others, func(n ledger.Network) bool { return strings.HasPrefix(n.ID, id) })
	if i < 0 { // it was replaced already, or never created
		return others, nil
	}
	nid := others[i].ID
	endpoints, err := ledger.List[ledger.Endpoint](ctx, d.store, ledger.EndpointsOf(nid))
	if err == nil && len(endpoints) > 0 {
		err = fmt.Errorf("option replace: network %s has %d endpoints", ledger.ShortID(nid), len(endpoints))
	}
	if err != nil {
		return nil, err
	}
	r, err := ledger.Get[ledger.Network](ctx, d.store, ledger.NetworkKey(nid))
	if err == nil {
		err = d.forget(ctx, r)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	d.counters.Count("networks_replaced")
	d.log.Warn("network was forgotten by the engine or by a crash", zap.String("network", ledger.ShortID(nid)))
	d.reconciler.nudge() // the VFs of its PFs may not be needed any more
	return slices.Delete(others, i, i+1), nil
}

// forget removes a network's record, and the affinities of its containers.
func (d *Driver) forget(ctx context.Context, r ledger.Rev[ledger.Network]) error {
	forgotten, err := d.allocs.ForgetAffinity(ctx, r.Rec.ID)
	if err != nil {
		return err
	}
	_, err = ledger.Commit(ctx, d.store, store.Unchanged(r.KV), append(forgotten, ledger.Del(r.KV.Key))...)
	return err
}
