package mode

import (
	"context"
	"errors"
	"fmt"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/hostdev"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store"
)

// child gives each container a link of its own on the network's device, which stays in the host: a macvlan, an ipvlan, or an IPoIB
// interface. It is created for the container and removed after it.
type child struct {
	devices
	pool        *vfpool.Pool
	allocations *alloc.Table
	vlans       *hostdev.VLANs
}

// Check finds the device and refuses one that cannot have such children beside what it is used for. Of the plan's devices, the first is the one
// that has the children: a VLAN device that is not there yet has the identity that it will have.
func (m child) Check(ctx context.Context, o *option.Network, others []ledger.Network) (*Plan, error) {
	p, err := m.resolve(o)
	if err != nil {
		return nil, err
	}
	n := p.Netdev
	if p.vlan > 0 {
		if n, err = m.vlans.Plan(ctx, p.Netdev, p.vlan); err != nil {
			return nil, fmt.Errorf("option %s: %w", p.option, err)
		}
	}
	if err := m.checkType(o, n); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	if err := checkChildSizes(&o.Container, n); err != nil {
		return nil, err
	}
	if err := m.checkOthers(ctx, o, p, n, others); err != nil {
		return nil, err
	}
	plan := &Plan{parent: p, Devices: []ledger.Device{{ID: n.ID, Name: n.Name}}}
	if p.vlan > 0 {
		plan.Devices = append(plan.Devices, ledger.Device{ID: p.ID, Name: p.Name})
	}
	if n.Index == 0 {
		plan.step("%s is created, the device of vlan %d on %s, and removed with its last network", n.Name, p.vlan, p.Name)
		plan.Untried = []string{"whether the kernel can create " + n.Name}
	}
	plan.step("%s stays in the host; each container gets a device of kind %s on it", n.Name, o.Mode)
	if !p.Up {
		plan.step("%s is down, and is brought up when it is needed", p.Name)
	}
	return plan, nil
}

// Make creates a VLAN device that is not there yet.
func (m child) Make(ctx context.Context, _ *option.Network, p *Plan) ([]ledger.Device, error) {
	if p.parent.vlan == 0 {
		return p.Devices, nil
	}
	n, err := m.vlans.Ensure(ctx, p.parent.Netdev, p.parent.vlan)
	if err != nil {
		return nil, fmt.Errorf("option %s: %w", p.parent.option, err)
	}
	return []ledger.Device{{ID: n.ID, Name: n.Name}, p.Devices[1]}, nil
}

// checkOthers refuses a network that does not go together with others, or with a container that has the device whole. n is the device that
// is to have the children.
func (m child) checkOthers(ctx context.Context, o *option.Network, p parent, n hw.Netdev, others []ledger.Network) error {
	for _, other := range others {
		below := p.vlan > 0 && m.uses(other, p.Netdev) && m.handsOver(other)
		if !below && (len(other.Devices) == 0 || !m.same(other.Devices[0].ID, n)) {
			continue
		}
		if err := checkBeside(o, n, other); err != nil {
			return err
		}
	}
	held, err := m.allocations.List(ctx)
	if err != nil {
		return err
	}
	for _, a := range held {
		if a.Mode == option.ModePassthrough && (m.same(a.LowerDevice(), n) || p.vlan > 0 && m.same(a.LowerDevice(), p.Netdev)) {
			return fmt.Errorf("option netdevice: %s", a.Holder())
		}
	}
	return nil
}

// handsOver reports whether a network hands its device over whole.
func (m child) handsOver(n ledger.Network) bool {
	o, err := option.ParseStored(n.Options)
	return err == nil && o.Mode == option.ModePassthrough
}

// A parent is the device that a network's options name.
type parent struct {
	hw.Netdev
	vlan   int    // of its VLAN device that has the children; 0 if it has them itself
	option string // that names the VLAN
}

// resolve finds the parent that the options name: netdevice=eth0 with vlan=100, or netdevice=eth0.100. A VLAN device that an administrator
// has created may have any name.
func (m child) resolve(o *option.Network) (parent, error) {
	n, err := m.finder.Netdev(o.Netdevice)
	switch {
	case o.Mode == option.ModeIPoIB:
		return parent{Netdev: n}, err
	case err == nil && o.VLAN != nil && *o.VLAN > 0:
		if n.Kind == hw.VLANDevice {
			err = fmt.Errorf("option vlan: %s is a device of one vlan itself; leave the option out, or name another device", n.Name)
		}
		return parent{n, *o.VLAN, "vlan"}, err
	case err == nil && n.VLAN > 0:
		below, findErr := m.host.VLANParent(n)
		if errors.Is(findErr, hw.ErrNotFound) { // it is in another namespace: the device is used as it is
			return parent{Netdev: n}, nil
		}
		return parent{below, n.VLAN, "netdevice"}, findErr
	case errors.Is(err, hw.ErrNotFound) && o.VLAN == nil:
		below, vlan, findErr := m.finder.VLAN(o.Netdevice)
		if vlan > 0 || findErr != nil {
			return parent{below, vlan, "netdevice"}, findErr
		}
	}
	return parent{Netdev: n}, err
}

// parentOf returns the device that a container's child is to be created on, and the device below that if it is a VLAN device, otherwise the
// same. A VLAN device that is missing is created.
func (m child) parentOf(ctx context.Context, r *Request) (n, below hw.Netdev, err error) {
	devices := r.Network.Devices
	if len(devices) == 1 {
		n, err = m.of(r)
		return n, n, err
	}
	n, err = m.host.Find(devices[0].ID)
	if err == nil {
		if below, err = m.host.Find(devices[1].ID); err == nil {
			err = m.pool.CheckUp(ctx, below)
		}
		if err != nil || n.MTU == below.MTU {
			return n, below, err
		}
	}
	p, err := m.resolve(r.Options)
	if err == nil {
		err = m.pool.CheckUp(ctx, p.Netdev)
	}
	if err != nil || p.vlan == 0 {
		return p.Netdev, p.Netdev, err
	}
	n, err = m.vlans.Ensure(ctx, p.Netdev, p.vlan)
	return n, p.Netdev, err
}

// checkChildSizes refuses an MTU, or a size of packets, above the device's, which no child can have.
func checkChildSizes(o *option.Container, parent hw.Netdev) error {
	if err := checkGSO(o, parent, parent.Name); err != nil {
		return err
	}
	if o.MTU != nil && *o.MTU > parent.MTU {
		return fmt.Errorf("option mtu: %d is above %d, which %s has; raise that first", *o.MTU, parent.MTU, parent.Name)
	}
	return nil
}

// checkType refuses a device that can have no children of the kind.
func (m child) checkType(o *option.Network, n hw.Netdev) error {
	want := "ether"
	if o.Mode == option.ModeIPoIB {
		want = "infiniband"
	}
	if n.Type != want {
		return fmt.Errorf("%s is of type %s; mode=%s is for devices of type %s", n.Name, n.Type, o.Mode, want)
	}
	if o.Mode == option.ModeIPoIB || n.Index == 0 { // a VLAN device that is not there yet
		return nil
	}
	why, err := m.host.ReceiverOf(n, o.Mode)
	if err != nil || why == "" {
		return err
	}
	return fmt.Errorf("%s %s", n.Name, why)
}

// checkBeside refuses what another network of the device excludes: the kernel has either macvlans or ipvlans on a device, and all its
// ipvlans in one mode (drivers/net/ipvlan/ipvlan_main.c, Linux 6.12).
func checkBeside(o *option.Network, n hw.Netdev, other ledger.Network) error {
	have, err := option.ParseStored(other.Options)
	if err != nil {
		return fmt.Errorf("network %s: %w", ledger.ShortID(other.ID), err)
	}
	spec := have.ChildSpec()
	switch {
	case have.Mode == option.ModePassthrough:
		return conflict(other.ID, "option netdevice: %s is handed over whole by network %s", n.Name, ledger.ShortID(other.ID))
	case have.UsesVFs():
		return nil
	case have.Mode != o.Mode:
		return conflict(other.ID, "option mode: %s has %s children for network %s, and a device cannot have both kinds",
			n.Name, have.Mode, ledger.ShortID(other.ID))
	case o.Mode == option.ModeIPVlan && spec.Mode != o.ChildSpec().Mode:
		return conflict(other.ID, "option ipvlan_mode: must be %s, as network %s has it on %s: a device has one for all its children",
			spec.Mode, ledger.ShortID(other.ID), n.Name)
	case o.Mode == option.ModeIPVlan && spec.Flag != o.ChildSpec().Flag:
		return conflict(other.ID, "option ipvlan_flag: must be %s, as network %s has it on %s: a device has one for all its children",
			spec.Flag, ledger.ShortID(other.ID), n.Name)
	}
	return nil
}

// Competes: children that want no particular MAC take nothing from each other. Hundreds of containers that start at once need not
// wait for each other then.
func (m child) Competes(r *Request) bool { return r.Options.MAC != "" }

// Claim says what is to be created. Its key is the endpoint, so no other device will ever have the same ID.
func (m child) Claim(ctx context.Context, r *Request) (*alloc.Allocation, error) {
	held, err := m.held(ctx, r)
	if err != nil {
		return nil, err
	}
	parent, below, err := m.parentOf(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("network %s: netdev %s: %w", ledger.ShortID(r.Network.ID), r.Network.Devices[0].Name, err)
	}
	if parent.Master != 0 { // it has become a port since; others are not worth a listing of all links
		err = m.checkType(r.Options, parent)
	}
	if err == nil {
		err = m.pool.CheckUp(ctx, parent)
	}
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", ledger.ShortID(r.Network.ID), err)
	}
	if err := m.checkMAC(r, parent, below, held); err != nil {
		return nil, err
	}
	if err := checkChildSizes(&r.Options.Container, parent); err != nil {
		return nil, err
	}
	spec := r.Options.ChildSpec()
	spec.Key, spec.Parent = r.Endpoint, parent.ID
	id := hw.MadeID(spec.Key)
	if a := held[id]; a != nil {
		return nil, &vfpool.BusyError{Text: a.Holder(), Soon: a.FreeSoon()}
	}
	a := &alloc.Allocation{Record: alloc.Record{Device: id, Mode: r.Options.Mode, Label: spec.Kind + " on " + parent.Name,
		Parent: parent.ID, Child: &spec, LinkSpec: r.Options.LinkSpec(nil)}}
	if !r.Network.Internal {
		a.Announce = r.Options.Announced(r.Addresses)
	}
	return a, nil
}

// held reads the allocations that the child depends on: all, or only what an earlier attempt for the same endpoint has left.
func (m child) held(ctx context.Context, r *Request) (alloc.Set, error) {
	if m.Competes(r) {
		return m.allocations.List(ctx)
	}
	a, err := m.allocations.Get(ctx, hw.MadeID(r.Endpoint))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return alloc.Set{a.Device: a}, nil
}

// checkMAC refuses a MAC that the child cannot have, or that another child of the device has: it could not be set up. It also refuses one
// of the VFs of the device, which is below its VLAN device.
func (m child) checkMAC(r *Request, parent, below hw.Netdev, held alloc.Set) error {
	o := r.Options
	if o.MAC == "" {
		return nil
	}
	switch o.Mode {
	case option.ModeIPVlan:
		return fmt.Errorf("mac address %s: an ipvlan has the mac of its device, %s", o.MAC, parent.MAC)
	case option.ModeIPoIB:
		return fmt.Errorf("mac address %s: the address of an infiniband device cannot be chosen", o.MAC)
	}
	if o.MAC == parent.MAC {
		return fmt.Errorf("mac address %s: %s has it", o.MAC, parent.Name)
	}
	for _, a := range held {
		if a.Parent == parent.ID && a.Child != nil && a.Child.MAC == o.MAC {
			return &vfpool.BusyError{Text: fmt.Sprintf("mac address %s: %s", o.MAC, a.Holder()), Soon: a.FreeSoon()}
		}
	}
	return m.devices.checkMAC(below, o.MAC, hw.MadeID(r.Endpoint), held)
}

// Prepare creates the child.
func (m child) Prepare(ctx context.Context, a *alloc.Allocation, _ Save) (hw.Netdev, error) {
	if a.Child == nil {
		return hw.Netdev{}, errors.New("the ledger does not say what to make")
	}
	parent, err := m.host.Find(a.Child.Parent)
	if err != nil {
		return hw.Netdev{}, err
	}
	if !parent.Up {
		m.pool.Raising(parent)
	}
	dev, err := m.host.CreateChild(ctx, *a.Child)
	if err == nil && !parent.Up {
		err = m.pool.Raised(ctx, parent.ID)
	}
	if err != nil {
		return dev, err
	}
	return m.host.SetLink(dev, a.LinkSpec, 0)
}

// Release removes the child. One that died with its container counts as removed; an IPoIB child does not die with its container.
func (m child) Release(_ context.Context, a *alloc.Allocation) error {
	return m.host.RemoveChild(a.Device, a.Mode)
}
