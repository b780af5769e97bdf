package netdrv

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/mellanox/passthrough/hw"
)

// tuneWish says how a device is to be tuned.
func tuneWish(c *config) hw.TuningSpec {
	w := hw.TuningSpec{Features: c.features, Cores: c.cores}
	for _, n := range []struct {
		said *int
		to   *int
	}{{c.queues, &w.Queues}, {c.rxRing, &w.RxRing}, {c.txRing, &w.TxRing}} {
		if n.said != nil {
			*n.to = *n.said
		}
	}
	return w
}

// checkTuning refuses, when a network is made, CPUs that there are not and offloads that nobody knows; n is any device.
func (d *Driver) checkTuning(c *config, n hw.Netdev) error {
	if err := d.host.CheckFeatures(n, c.features); err != nil {
		return fmt.Errorf("option ethtool: %w", err)
	}
	if c.cores.Empty() {
		return nil
	}
	if err := d.host.CheckCores(c.cores); err != nil {
		return fmt.Errorf("option cores: %w", err)
	}
	return nil
}

// tune sets queues, rings and offloads, then where the interrupts go: a driver may take others for another number of
// queues. What was before is on disk before it is changed.
func (d *Driver) tune(ctx context.Context, l *loan, save func() error) error {
	if l.Tune.Empty() {
		return nil
	}
	was, err := d.host.SnapshotTuning(l.Device, l.Tune)
	if err != nil {
		return err
	}
	l.Snapshot.Tuned = &was
	if err := save(); err != nil {
		return err
	}
	if err := d.host.SetTuning(l.Device, l.Tune); err != nil || l.Tune.Cores.Empty() {
		return err
	}
	if was.Affinity, err = d.host.Affinity(ctx, l.Device); err != nil {
		return err
	}
	if err := save(); err != nil {
		return err
	}
	return d.host.Spread(l.Device, l.Tune.Cores, was.Affinity)
}

// validFeature is what the names of offloads are made of.
var validFeature = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

// features reads offloads: "gro=off,tso=on".
func features(v string) (hw.Features, error) {
	all := hw.Features{}
	for _, part := range strings.Split(strings.ToLower(strings.ReplaceAll(v, " ", "")), ",") {
		name, value, _ := strings.Cut(part, "=")
		on := value == "on"
		if was, twice := all[name]; !validFeature.MatchString(name) || !on && value != "off" || twice && was != on {
			return nil, errNotAllowed
		}
		all[name] = on
	}
	return all, nil
}

// cores reads which CPUs serve the interrupts: "2,4-7", numa, or none for those that already do.
func cores(v string) (hw.Cores, error) {
	switch strings.ToLower(v) {
	case "none":
		return hw.Cores{}, nil
	case "numa":
		return hw.Cores{Near: true}, nil
	}
	cpus, err := hw.ParseCPUs(v)
	return hw.Cores{CPUs: cpus}, err
}
