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

// passthrough gives one container at a time the network's device, whole. A bond, which cannot leave its namespace, stays in
// the host, and a macvlan that receives all of its frames and has its MAC goes in its place (mode passthru).
type passthrough struct{ *Driver }

// check finds the device and refuses one that is not the plugin's to give.
func (d passthrough) check(ctx context.Context, c *option.Network, others []ledger.Network) ([]ledger.Device, error) {
	n, err := d.device(c.Netdevice)
	if err != nil {
		return nil, err
	}
	if err := movable(n); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	if err := d.host.CheckUnique(n); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	if err := d.cutsOff(c, n); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	if n.Kind == hw.Bond && !c.TuningSpec().Empty() {
		return nil, fmt.Errorf("option netdevice: %s is a bond, of which queues, rings, offloads and interrupts are its ports'; set them there", n.Name)
	}
	if err := d.checkTuning(c, n); err != nil {
		return nil, err
	}
	if err := d.host.CheckTuning(n, c.TuningSpec()); err != nil {
		return nil, err
	}
	for _, o := range others {
		if d.standsOn(o, n) {
			return nil, used(o.ID, "option netdevice: %s is used by network %s", n.Name, ledger.ShortID(o.ID))
		}
	}
	if err := d.unused(ctx, n); err != nil {
		return nil, err
	}
	return []ledger.Device{{ID: n.ID, Name: n.Name}}, nil
}

// movable refuses a device that cannot be in a container, neither itself nor, as a bond, with a macvlan in its place.
func movable(n hw.Netdev) error {
	if n.Kind == hw.Bond && n.Type == "ether" {
		return nil
	}
	err := n.Movable()
	if err != nil {
		err = fmt.Errorf("%w%s", err, instead[n.Kind])
	}
	return err
}

// instead is what to do with devices that cannot be handed over, by their kind.
var instead = map[string]string{
	"bridge":      "; use mode=macvlan on it, or hand over one of its ports",
	"team":        "; make a bond of its ports, or use mode=macvlan on it",
	"openvswitch": "; hand over one of its ports",
	"vrf":         "; hand over one of its ports",
	"bond":        "; hand over one of its ports",
}

// cutsOff refuses a device that the host's administrator needs, unless he insists.
func (d passthrough) cutsOff(c *option.Network, n hw.Netdev) error {
	if c.Force {
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
	loans, err := d.allocs.List(ctx)
	if err != nil {
		return err
	}
	for _, l := range loans {
		if d.is(l.LowerDevice(), n) {
			return fmt.Errorf("option netdevice: %s", l.Holder())
		}
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
			why = "is held by endpoint " + ledger.ShortID(l.Endpoint)
		}
		if why != "" {
			return fmt.Errorf("option netdevice: %s has vfs in use: %s %s", pf, vf, why)
		}
	}
	return nil
}

// claim takes the network's device.
func (d passthrough) claim(ctx context.Context, n *network, loans alloc.Set) (*alloc.Allocation, error) {
	dev, err := d.find(n)
	for _, l := range loans {
		if l.LowerDevice() == dev.ID || (n.Has(l.LowerDevice()) || l.Network == n.ID) && (err != nil || l.State != alloc.Quarantined) {
			return nil, &allInUse{fmt.Sprintf("%s; a device that is handed over whole serves one container at a time",
				l.Holder()), l.FreeSoon()}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("network %s: netdev %s: %w", ledger.ShortID(n.ID), n.Devices[0].Name, err)
	}
	if err := errors.Join(d.host.CheckUnique(dev), d.cutsOff(n.options, dev)); err != nil {
		return nil, err
	}
	if n.MAC != "" && dev.Type != "ether" {
		return nil, fmt.Errorf("mac address %s: %s is an %s device, whose address cannot be chosen", n.MAC, dev.Name, dev.Type)
	}
	snap, err := d.host.SnapshotNetdev(dev)
	if err != nil {
		return nil, err
	}
	l := alloc.Record{Device: dev.ID, Mode: option.ModePassthrough, Label: dev.Name, Snapshot: snap,
		VFSpec: hw.VFSpec{VFState: hw.VFState{MAC: n.MAC}}, LinkSpec: n.LinkSpec(snap.Link), Tuning: n.TuningSpec()}
	if dev.Kind == hw.Bond {
		return standIn(n, dev, l), nil
	}
	return &alloc.Allocation{Record: l}, nil
}

// standIn makes the allocation of a bond: a macvlan that takes its place.
func standIn(n *network, bond hw.Netdev, l alloc.Record) *alloc.Allocation {
	l.Device, l.Parent = hw.MadeID(string(bond.ID)), bond.ID
	l.Child = &hw.ChildSpec{Key: string(bond.ID), Parent: bond.ID, Kind: hw.Macvlan, Mode: option.Passthru, MAC: n.MAC}
	return &alloc.Allocation{Record: l}
}

// prepare marks the device and gives it the wanted MAC; in place of a bond, what is made on it.
func (d passthrough) prepare(ctx context.Context, l *alloc.Allocation, save func() error) (hw.Netdev, error) {
	if l.Child != nil {
		return d.prepareStandIn(ctx, l)
	}
	dev, err := d.host.PrepareNetdev(l.Device, l.VFSpec.MAC)
	if err == nil {
		dev, err = d.host.SetLink(dev, l.LinkSpec, 0)
	}
	if err != nil {
		return dev, err
	}
	return dev, d.tune(ctx, l, save)
}

// prepareStandIn makes the macvlan that takes a bond's place. Its MTU cannot be above the bond's.
func (d passthrough) prepareStandIn(ctx context.Context, l *alloc.Allocation) (hw.Netdev, error) {
	bond, err := d.host.PrepareNetdev(l.Parent, "")
	if err != nil {
		return hw.Netdev{}, err
	}
	if l.LinkSpec.Policies[hw.LinkMTU] == hw.Required && l.LinkSpec.MTU > bond.MTU {
		raised := hw.LinkSpec{LinkState: l.LinkSpec.LinkState, Policies: map[hw.LinkAttr]hw.Policy{hw.LinkMTU: hw.Required}}
		if _, err := d.host.SetLink(bond, raised, 0); err != nil {
			return hw.Netdev{}, err
		}
	}
	dev, err := d.host.MakeChild(ctx, *l.Child)
	if err != nil {
		return dev, err
	}
	return d.host.SetLink(dev, l.LinkSpec, 0)
}

// release puts the device back. What was made in its place goes first: it has the device's MAC.
func (d passthrough) release(_ context.Context, l *alloc.Allocation) error {
	if l.Child == nil {
		return d.host.RestoreNetdev(l.Device, l.Snapshot)
	}
	if err := d.host.RemoveChild(l.Device, l.Child.Kind); err != nil {
		return err
	}
	return d.host.RestoreParent(l.Parent, l.Snapshot)
}
