package netdrv

import (
	"context"
	"fmt"

	"github.com/mellanox/passthrough/netdrv/alloc"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// checkTuning refuses, when a network is made, CPUs that there are not and offloads that nobody knows; n is any device.
func (d *Driver) checkTuning(c *option.Network, n hw.Netdev) error {
	if err := d.host.CheckFeatures(n, c.Features); err != nil {
		return fmt.Errorf("option ethtool: %w", err)
	}
	if c.Cores.Empty() {
		return nil
	}
	if err := d.host.CheckCores(c.Cores); err != nil {
		return fmt.Errorf("option cores: %w", err)
	}
	return nil
}

// tune sets queues, rings and offloads, then where the interrupts go: a driver may take others for another number of
// queues. What was before is on disk before it is changed.
func (d *Driver) tune(ctx context.Context, l *alloc.Allocation, save func() error) error {
	if l.Tuning.Empty() {
		return nil
	}
	was, err := d.host.SnapshotTuning(l.Device, l.Tuning)
	if err != nil {
		return err
	}
	l.Snapshot.Tuned = &was
	if err := save(); err != nil {
		return err
	}
	if err := d.host.SetTuning(l.Device, l.Tuning); err != nil || l.Tuning.Cores.Empty() {
		return err
	}
	if was.Affinity, err = d.host.Affinity(ctx, l.Device); err != nil {
		return err
	}
	if err := save(); err != nil {
		return err
	}
	return d.host.Spread(l.Device, l.Tuning.Cores, was.Affinity)
}
