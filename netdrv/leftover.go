package netdrv

import (
	"context"
	"errors"
	"regexp"
	"slices"

	"github.com/mellanox/passthrough/netdrv/ledger"

	"go.uber.org/zap"
)

// swarmID is what a swarm calls its networks (swarmkit, identity/randomid.go); those of an engine have 64 digits.
var swarmID = regexp.MustCompile(`^[a-z0-9]{25}$`)

// A swarm makes its networks on a node with the first task there and removes them with the last. Its engine does not write
// them down: when it is killed, or the machine is, nobody ever removes them. If a task needs one again it is made again,
// under the same ID. What is left until then would keep its VLAN and its VFs from others.

// made notes in which boot, and by which process, a swarm's network was made or confirmed.
func (d *Driver) made(rec *ledger.Network) {
	if swarmID.MatchString(rec.ID) {
		rec.Boot, rec.Process = d.host.Boot(), d.process
	}
}

// outlived tells whether a network was left by an engine that ended with the machine.
func (d *Driver) outlived(r ledger.Network) bool {
	return r.Boot != "" && r.Boot != d.host.Boot()
}

// doubtful tells whether one of these networks may be left by an engine that was killed: this process, which ends with the
// engine's, has not heard of it. The plugin may have been restarted alone, though: should the network be alive after all, its
// next task fails once, and the swarm makes it again.
func (d *Driver) doubtful(nid string, networks []ledger.Network) bool {
	return slices.ContainsFunc(networks, func(r ledger.Network) bool {
		return r.ID == nid && swarmID.MatchString(nid) && r.Process != d.process
	})
}

// forgetOutlived removes the networks that have outlived their engine, with endpoints that they still have. The caller holds
// the lock of all networks.
func (d *Driver) forgetOutlived(ctx context.Context) error {
	_, all, err := d.networks(ctx, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range all {
		if d.outlived(n) {
			d.counters.Count("networks_outlived")
			d.log.Warn("network was forgotten by the engine", zap.String("network", ledger.ShortID(n.ID)))
			errs = append(errs, d.dropNetwork(ctx, n.ID))
		}
	}
	return errors.Join(errs...)
}
