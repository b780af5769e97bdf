package netdrv

import (
	"context"
	"slices"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// modeBond is the mode of a bond's allocation in the ledger. A user asks for it with mode=sriov and the option bond.
const modeBond = "bond"

// A mode turns a network's options into a device and back. Each method may be called again with the same arguments;
// release knows only what the ledger knows.
type mode interface {
	// check finds the network's devices and refuses what cannot work, at network create, where the user sees it. others
	// are the networks there are. Devices that it has made VFs on it returns also when it fails.
	check(ctx context.Context, c *option.Network, others []ledger.Network) ([]ledger.Device, error)
	// claim chooses a device and reads its snapshot, without touching it. allocations are the devices that are not free.
	claim(ctx context.Context, n *network, loans alloc.Set) (*alloc.Allocation, error)
	// prepare sets the device up and verifies it; save stores a snapshot that could only be completed on the way. It
	// returns the device's netdev.
	prepare(ctx context.Context, l *alloc.Allocation, save func() error) (hw.Netdev, error)
	// release puts the device back from its snapshot and verifies that. The error matches hw.ErrAway while the device is
	// not in the host.
	release(ctx context.Context, l *alloc.Allocation) error
}

// modeOf returns what turns these options into devices.
func (d *Driver) modeOf(c *option.Network) mode {
	if c.Bond != "" {
		return d.mode(modeBond)
	}
	return d.mode(c.Mode)
}

// mode returns the mode of that name; names come from the options table or the ledger, which know no others.
func (d *Driver) mode(name string) mode {
	switch name {
	case option.ModePassthrough:
		return passthrough{d}
	case modeBond:
		return bonded{sriov{d}}
	case option.ModeMacvlan, option.ModeIPVlan, option.ModeIPoIB:
		return child{d}
	}
	return sriov{d}
}

// find returns a network's device. One without a PCI address may have been made anew since, by the host's own
// configuration at boot: the name is what the user gave, so the device of that name is the one.
func (d *Driver) find(n *network) (hw.Netdev, error) {
	id := n.Devices[0].ID
	dev, err := d.host.Find(id)
	if err != nil && !id.IsPCI() {
		return d.device(n.Netdevice)
	}
	return dev, err
}

// is tells whether a device is the one that was known by an ID: while a bond is lent its MAC may be another, and so the ID
// that it seems to have.
func (d *Driver) is(id hw.ID, dev hw.Netdev) bool {
	if id == dev.ID {
		return true
	}
	n, err := d.host.Find(id)
	return err == nil && n.Index == dev.Index
}

// standsOn tells whether a device is one of a network's.
func (d *Driver) standsOn(n ledger.Network, dev hw.Netdev) bool {
	return slices.ContainsFunc(n.Devices, func(have ledger.Device) bool { return d.is(have.ID, dev) })
}
