package netdrv

import (
	"context"
	"errors"
	"fmt"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// child gives each container a link of its own on the network's device, which stays in the host: a macvlan, an ipvlan, or
// an IPoIB interface. It is made for the container and removed after it.
type child struct{ *Driver }

// check finds the device and refuses one that cannot have such children beside what it is used for.
func (d child) check(ctx context.Context, c *option.Network, others []ledger.Network) ([]ledger.Device, error) {
	n, err := d.device(c.Netdevice)
	if err != nil {
		return nil, err
	}
	if err := d.fit(c, n); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	for _, o := range others {
		if !d.standsOn(o, n) {
			continue
		}
		if err := beside(c, n, o); err != nil {
			return nil, err
		}
	}
	loans, err := d.allocs.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range loans {
		if l.Mode == option.ModePassthrough && d.is(l.LowerDevice(), n) {
			return nil, fmt.Errorf("option netdevice: %s", l.Holder())
		}
	}
	return []ledger.Device{{ID: n.ID, Name: n.Name}}, nil
}

// fit refuses a device that can have no children of the kind.
func (d child) fit(c *option.Network, n hw.Netdev) error {
	want := "ether"
	if c.Mode == option.ModeIPoIB {
		want = "infiniband"
	}
	if n.Type != want {
		return fmt.Errorf("%s is of type %s; mode=%s is for devices of type %s", n.Name, n.Type, c.Mode, want)
	}
	if n.Master == 0 || c.Mode == option.ModeIPoIB {
		return nil
	}
	snap, err := d.host.SnapshotNetdev(n)
	if err != nil {
		return err
	}
	master := snap.Link.Master
	return fmt.Errorf("%s is a port of %s, which takes its frames; say netdevice=%s", n.Name, master, master)
}

// beside refuses what the device's other networks leave no room for: the kernel has macvlans or ipvlans on a device, and
// all ipvlans in one mode (drivers/net/ipvlan/ipvlan_main.c, Linux 6.12).
func beside(c *option.Network, n hw.Netdev, o ledger.Network) error {
	have, err := option.Parse(o.Options)
	if err != nil {
		return fmt.Errorf("network %s: %w", ledger.ShortID(o.ID), err)
	}
	mode := have.ChildSpec().Mode
	switch {
	case have.Mode == option.ModePassthrough:
		return used(o.ID, "option netdevice: %s is handed over whole by network %s", n.Name, ledger.ShortID(o.ID))
	case have.Mode == option.ModeSRIOV:
		return nil
	case have.Mode != c.Mode:
		return used(o.ID, "option mode: %s has %s children for network %s, and a device cannot have both kinds",
			n.Name, have.Mode, ledger.ShortID(o.ID))
	case c.Mode == option.ModeIPVlan && mode != c.ChildSpec().Mode:
		return used(o.ID, "option ipvlan_mode: must be %s, as network %s has it on %s: a device has one for all its children",
			mode, ledger.ShortID(o.ID), n.Name)
	}
	return nil
}

// claim says what is to be made. It is known by the endpoint: no other will ever be the same.
func (d child) claim(_ context.Context, n *network, loans alloc.Set) (*alloc.Allocation, error) {
	parent, err := d.find(n)
	if err != nil {
		return nil, fmt.Errorf("network %s: netdev %s: %w", ledger.ShortID(n.ID), n.Devices[0].Name, err)
	}
	if err := refuseMAC(n, parent, loans); err != nil {
		return nil, err
	}
	if n.MTU != nil && *n.MTU > parent.MTU {
		return nil, fmt.Errorf("option mtu: %d is above %d, which %s has; raise that first", *n.MTU, parent.MTU, parent.Name)
	}
	spec := n.ChildSpec()
	spec.Key, spec.Parent = n.endpoint, parent.ID
	id := hw.MadeID(spec.Key)
	if l := loans[id]; l != nil {
		return nil, &allInUse{l.Holder(), l.FreeSoon()}
	}
	return &alloc.Allocation{Record: alloc.Record{Device: id, Mode: n.Mode, Label: spec.Kind + " on " + parent.Name,
		Parent: parent.ID, Child: &spec, LinkSpec: n.LinkSpec(nil)}}, nil
}

// refuseMAC refuses a MAC that the child cannot have, or that another on the device has: it could not be set up.
func refuseMAC(n *network, parent hw.Netdev, loans alloc.Set) error {
	if n.MAC == "" {
		return nil
	}
	switch n.Mode {
	case option.ModeIPVlan:
		return fmt.Errorf("mac address %s: an ipvlan has the mac of its device, %s", n.MAC, parent.MAC)
	case option.ModeIPoIB:
		return fmt.Errorf("mac address %s: the address of an infiniband device cannot be chosen", n.MAC)
	}
	if n.MAC == parent.MAC {
		return fmt.Errorf("mac address %s: %s has it", n.MAC, parent.Name)
	}
	for _, l := range loans {
		if l.Parent == parent.ID && l.Child != nil && l.Child.MAC == n.MAC {
			return &allInUse{fmt.Sprintf("mac address %s: %s", n.MAC, l.Holder()), l.FreeSoon()}
		}
	}
	return nil
}

// prepare makes the child.
func (d child) prepare(ctx context.Context, l *alloc.Allocation, _ func() error) (hw.Netdev, error) {
	if l.Child == nil {
		return hw.Netdev{}, errors.New("the ledger does not say what to make")
	}
	dev, err := d.host.MakeChild(ctx, *l.Child)
	if err != nil {
		return dev, err
	}
	return d.host.SetLink(dev, l.LinkSpec, 0)
}

// release removes the child. One that died with its container is as good as removed; an IPoIB child does not die with it.
func (d child) release(_ context.Context, l *alloc.Allocation) error {
	return d.host.RemoveChild(l.Device, l.Mode)
}
