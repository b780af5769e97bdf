package netdrv

import (
	"context"
	"errors"
	"fmt"

	"github.com/mellanox/passthrough/hw"
)

// passthrough gives one container at a time the network's device, whole.
type passthrough struct{ *Driver }

// check finds the device and refuses one that is not the plugin's to give.
func (d passthrough) check(ctx context.Context, c *config, others []networkRecord) (hw.ID, string, error) {
	n, err := d.host.Netdev(c.netdevice)
	if err != nil {
		return "", "", fmt.Errorf("option netdevice: %w", err)
	}
	if err := n.Movable(); err != nil {
		return "", "", fmt.Errorf("option netdevice: %w", err)
	}
	if err := d.cutsOff(c, n); err != nil {
		return "", "", fmt.Errorf("option netdevice: %w", err)
	}
	if err := d.checkTuning(c, n); err != nil {
		return "", "", err
	}
	if err := d.host.CheckTuning(n, tuneWish(c)); err != nil {
		return "", "", err
	}
	for _, o := range others {
		if o.Device == n.ID {
			return "", "", fmt.Errorf("option netdevice: %s is used by network %s", n.Name, short(o.ID))
		}
	}
	if err := d.unused(ctx, n); err != nil {
		return "", "", err
	}
	return n.ID, n.Name, nil
}

// cutsOff refuses a device that the host's administrator needs, unless he insists.
func (d passthrough) cutsOff(c *config, n hw.Netdev) error {
	if c.force {
		return nil
	}
	why, err := d.host.Management(n)
	if err == nil && why != "" {
		err = fmt.Errorf("%s %s; the host would be cut off; if that is meant, say force=yes", n.Name, why)
	}
	return err
}

// unused refuses a device that is lent, and a PF whose VFs are.
func (d passthrough) unused(ctx context.Context, n hw.Netdev) error {
	loans, err := d.loans(ctx)
	if err != nil {
		return err
	}
	if l := loans[n.ID]; l != nil {
		return fmt.Errorf("option netdevice: %s", l.holder())
	}
	pf, err := d.host.PF(n.Name)
	if errors.Is(err, hw.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	vfs, err := d.host.VFs(pf)
	if err != nil {
		return err
	}
	for _, vf := range vfs {
		why := vf.InUse()
		if l := loans[vf.ID()]; l != nil {
			why = "is held by endpoint " + short(l.Endpoint)
		}
		if why != "" {
			return fmt.Errorf("option netdevice: %s has vfs in use: %s %s", pf, vf, why)
		}
	}
	return nil
}

// claim takes the network's device.
func (d passthrough) claim(ctx context.Context, n *network, loans map[hw.ID]*loan) (*loan, error) {
	dev, err := d.find(n)
	for _, l := range loans {
		if l.Device == dev.ID || (l.Device == n.Device || l.Network == n.ID) && (err != nil || l.State != quarantined) {
			return nil, &allInUse{fmt.Sprintf("%s; a device that is handed over whole serves one container at a time",
				l.holder()), l.returning()}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("network %s: netdev %s: %w", short(n.ID), n.Name, err)
	}
	if err := d.cutsOff(n.config, dev); err != nil {
		return nil, err
	}
	if n.mac != "" && dev.Type != "ether" {
		return nil, fmt.Errorf("mac address %s: %s is an %s device, whose address cannot be chosen", n.mac, dev.Name, dev.Type)
	}
	snap, err := d.host.SnapshotNetdev(dev)
	if err != nil {
		return nil, err
	}
	return &loan{loanRecord: loanRecord{Device: dev.ID, Mode: modePassthrough, Label: dev.Name, Snapshot: snap,
		Wish: hw.VFWish{VFState: hw.VFState{MAC: n.mac}}, Shape: shape(n.config, snap.Link),
		Tune: tuneWish(n.config)}}, nil
}

// find returns the network's device. One without a PCI address may have been made anew since, by the host's own
// configuration at boot: the name is what the user gave, so the device of that name is the one.
func (d passthrough) find(n *network) (hw.Netdev, error) {
	dev, err := d.host.Find(n.Device)
	if err != nil && !n.Device.IsPCI() {
		return d.host.Netdev(n.netdevice)
	}
	return dev, err
}

// prepare marks the device and gives it the wanted MAC.
func (d passthrough) prepare(ctx context.Context, l *loan, save func() error) (hw.Netdev, error) {
	if _, err := d.host.PrepareNetdev(l.Device, l.Wish.MAC); err != nil {
		return hw.Netdev{}, err
	}
	dev, err := d.host.Shape(l.Device, l.Shape, 0)
	if err != nil {
		return dev, err
	}
	return dev, d.tune(ctx, l, save)
}

// release puts the device back.
func (d passthrough) release(_ context.Context, l *loan) error {
	return d.host.RestoreNetdev(l.Device, l.Snapshot)
}
