package netdrv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/netdrv/ledger"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// A conflict is an error about what another network has. That network may be one that the engine knows no more: an engine
// does not repeat the removal of a network in which the plugin was killed, nor undo the making of one.
type conflict struct {
	network string
	text    string
}

// Error says what another network has.
func (c *conflict) Error() string { return c.text }

// used is a conflict with a network.
func used(network, format string, args ...any) error {
	return &conflict{network, fmt.Sprintf(format, args...)}
}

// orReplace tells whoever makes a network what to do about a conflict with one that is not there.
func orReplace(err error) error {
	var c *conflict
	if !errors.As(err, &c) {
		return err
	}
	return fmt.Errorf("%w (if the engine does not have that network, a crash has left it: say replace=%s)", err, ledger.ShortID(c.network))
}

// replace forgets a network that the user says is no more, and returns the others. One that has endpoints is in use.
func (d *Driver) replace(ctx context.Context, id string, others []ledger.Network) ([]ledger.Network, error) {
	i := slices.IndexFunc(others, func(n ledger.Network) bool { return strings.HasPrefix(n.ID, id) })
	if i < 0 { // it has been replaced already, or was never made
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
	d.nudge() // its PFs may need their VFs no more
	return slices.Delete(others, i, i+1), nil
}

// forget removes a network's record, and what it remembers of containers.
func (d *Driver) forget(ctx context.Context, r ledger.Rev[ledger.Network]) error {
	forgotten, err := d.allocs.ForgetAffinity(ctx, r.Rec.ID)
	if err != nil {
		return err
	}
	_, err = ledger.Commit(ctx, d.store, store.Unchanged(r.KV), append(forgotten, ledger.Del(r.KV.Key))...)
	return err
}
