package netdrv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

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
	return fmt.Errorf("%w (if the engine does not have that network, a crash has left it: say replace=%s)", err, short(c.network))
}

// replace forgets a network that the user says is no more, and returns the others. One that has endpoints is in use.
func (d *Driver) replace(ctx context.Context, id string, others []networkRecord) ([]networkRecord, error) {
	i := slices.IndexFunc(others, func(n networkRecord) bool { return strings.HasPrefix(n.ID, id) })
	if i < 0 { // it has been replaced already, or was never made
		return others, nil
	}
	nid := others[i].ID
	endpoints, err := list[endpointRecord](ctx, d.store, endpointPrefix+nid+"/")
	if err == nil && len(endpoints) > 0 {
		err = fmt.Errorf("option replace: network %s has %d endpoints", short(nid), len(endpoints))
	}
	if err != nil {
		return nil, err
	}
	r, err := read[networkRecord](ctx, d.store, networkKey(nid))
	if err == nil {
		err = d.forget(ctx, r)
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	d.count("networks_replaced")
	d.log.Warn("network was forgotten by the engine or by a crash", zap.String("network", short(nid)))
	d.nudge() // its PFs may need their VFs no more
	return slices.Delete(others, i, i+1), nil
}

// forget removes a network's record, and what it remembers of containers.
func (d *Driver) forget(ctx context.Context, r rev[networkRecord]) error {
	forgotten, err := d.forgetSticky(ctx, r.rec.ID)
	if err != nil {
		return err
	}
	_, err = commit(ctx, d.store, store.Unchanged(r.kv), append(forgotten, remove(r.kv.Key))...)
	return err
}
