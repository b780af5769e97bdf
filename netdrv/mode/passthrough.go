package mode

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// passthrough gives one container at a time the network's device, whole. A bond cannot leave its namespace: it stays in the host, and
// a proxy goes in its place, a macvlan in mode passthru that receives all its frames and has its MAC.
type passthrough struct {
	devices
	allocations *alloc.Table
	log         *zap.Logger
}

// Check finds the device and refuses one that must not be handed over.
func (m passthrough) Check(ctx context.Context, o *option.Network, others []ledger.Network) (*Plan, error) {
	n, err := m.finder.Netdev(o.Netdevice)
	if err != nil {
		return nil, err
	}
	if err := m.checkMovable(n); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	if err := m.host.CheckUnique(n); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	for _, other := range others {
		if m.uses(other, n) {
			return nil, conflict(other.ID, "option netdevice: %s is used by network %s", n.Name, ledger.ShortID(other.ID))
		}
	}
	held, err := m.allocations.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range held {
		if m.same(a.LowerDevice(), n) {
			return nil, fmt.Errorf("option netdevice: %s", a.Holder())
		}
	}
	used, err := m.refuseUsed(o, n)
	if err := errors.Join(m.checkVFsUnheld(n, held), err); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	if err := checkTunable(o, n); err != nil {
		return nil, fmt.Errorf("option netdevice: %w", err)
	}
	if o.MTU != nil && n.MaxMTU > 0 && *o.MTU > n.MaxMTU {
		return nil, fmt.Errorf("option mtu: %d is above %d, the most that %s can have", *o.MTU, n.MaxMTU, n.Name)
	}
	if err := checkGSO(&o.Container, n, n.Name); err != nil {
		return nil, err
	}
	if err := checkTuning(m.host, o, n); err != nil {
		return nil, err
	}
	if err := m.host.CheckTuning(n, o.TuningSpec()); err != nil {
		return nil, err
	}
	p := &Plan{whole: n, use: used, Devices: []ledger.Device{{ID: n.ID, Name: n.Name}}}
	p.step("%s is handed over whole, to one container at a time", n.Name)
	if len(used.addrs)+len(used.uses) > 0 {
		p.step("while a container has %s, the host is without this: %s", n.Name, strings.Join(slices.Concat(used.uses, used.addrs), ", "))
	}
	if n.Kind != hw.Bond { // which stays at home
		p.Untried = []string{"what of the settings of " + n.Name + " will be lost with the first container, such as sysctls that the plugin may not " +
			"write: they are written to find out; the log names them"}
	}
	return p, nil
}

// Make logs what the host will be without, and what the device will not have any more when it comes home. A bond stays at home.
func (m passthrough) Make(_ context.Context, _ *option.Network, p *Plan) ([]ledger.Device, error) {
	m.logUse(p.whole, p.use, zap.WarnLevel)
	if p.whole.Kind == hw.Bond {
		return p.Devices, nil
	}
	lost, err := m.host.NotRestored(p.whole)
	if len(lost) > 0 {
		m.log.Warn("device has settings that will be lost with the first container", zap.String("device", p.whole.Name), zap.Strings("lost", lost))
	}
	return p.Devices, err
}

// checkTunable refuses options about queues, rings, offloads and interrupts for a bond.
func checkTunable(o *option.Network, n hw.Netdev) error {
	if n.Kind == hw.Bond && !o.TuningSpec().Empty() {
		return fmt.Errorf("%s is a bond, of which queues, rings, offloads and interrupts are its ports'; set them there", n.Name)
	}
	return nil
}

// checkMovable refuses a device that can be in no container, neither itself nor, as a bond, by its proxy.
func (m passthrough) checkMovable(n hw.Netdev) error {
	if n.Kind == hw.Bond && n.Type == "ether" {
		return nil
	}
	err := m.host.CheckMovable(n)
	if errors.Is(err, hw.ErrUnsupported) {
		err = fmt.Errorf("%w%s", err, remedies[n.Kind])
	}
	return err
}

// remedies say what to do about devices that cannot be handed over, by their kind.
var remedies = map[string]string{
	"bridge":      "; use mode=macvlan on it, or hand over one of its ports",
	"team":        "; make a bond of its ports, or use mode=macvlan on it",
	"openvswitch": "; hand over one of its ports",
	"vrf":         "; hand over one of its ports",
	"bond":        "; hand over one of its ports",
}

// hostUse is what the host is without while a container has a device.
type hostUse struct{ uses, addrs []string }

// refuseUsed refuses a device that the host uses, unless the user gave the option force. Addresses alone are no reason: they come back
// with the device. That the host is without them meanwhile is for the log.
func (m passthrough) refuseUsed(o *option.Network, n hw.Netdev) (used hostUse, err error) {
	if used.uses, err = m.host.HostUse(n); err != nil {
		return used, err
	}
	if len(used.uses) > 0 && !o.Force {
		return used, fmt.Errorf("%s %s; the host would lose that; if that is meant, say force=yes", n.Name, strings.Join(used.uses, " and "))
	}
	used.addrs, err = m.host.Addresses(n)
	return used, err
}

// logUse logs what the host is without while a container has a device.
func (m passthrough) logUse(n hw.Netdev, used hostUse, level zapcore.Level) {
	if len(used.addrs)+len(used.uses) > 0 {
		m.log.Log(level, "the host uses the device, and is without this while a container has it", zap.String("device", n.Name),
			zap.Strings("uses", used.uses), zap.Strings("addresses", used.addrs))
	}
}

// checkVFsUnheld refuses a PF with a VF that an endpoint holds.
func (m passthrough) checkVFsUnheld(n hw.Netdev, held alloc.Set) error {
	pf, err := m.host.PF(n.Name)
	if errors.Is(err, hw.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	vfs, err := m.host.VFs(pf)
	if err != nil {
		return err
	}
	for _, vf := range vfs {
		if a := held[vf.ID()]; a != nil {
			return &vfpool.BusyError{Text: fmt.Sprintf("%s has vfs in use: %s", pf, a.Holder()), Soon: a.FreeSoon()}
		}
	}
	return nil
}

// Competes: only one container can have the device.
func (passthrough) Competes(*Request) bool { return true }

// Claim takes the network's device.
func (m passthrough) Claim(ctx context.Context, r *Request) (*alloc.Allocation, error) {
	held, err := m.allocations.List(ctx)
	if err != nil {
		return nil, err
	}
	dev, err := m.of(r)
	for _, a := range held {
		ours := r.Network.Has(a.LowerDevice()) || a.Network == r.Network.ID
		if a.LowerDevice() == dev.ID || ours && (err != nil || a.State != alloc.Quarantined) {
			return nil, vfpool.Busy(a.Holder()+"; a device that is handed over whole serves one container at a time", a)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("network %s: netdev %s: %w", ledger.ShortID(r.Network.ID), r.Network.Devices[0].Name, err)
	}
	used, err := m.refuseUsed(r.Options, dev)
	if err := errors.Join(checkTunable(r.Options, dev), m.host.CheckUnique(dev), m.checkVFsUnheld(dev, held), err); err != nil {
		return nil, err
	}
	m.logUse(dev, used, zap.InfoLevel)
	mac := r.Options.MAC
	if mac != "" && dev.Type != "ether" {
		return nil, fmt.Errorf("mac address %s: %s is an %s device, whose address cannot be chosen", mac, dev.Name, dev.Type)
	}
	if err := m.checkMAC(dev, mac, dev.ID, held); err != nil {
		return nil, err
	}
	snap, err := m.host.SnapshotNetdev(dev)
	if err != nil {
		return nil, err
	}
	a := &alloc.Allocation{Record: alloc.Record{Device: dev.ID, Mode: option.ModePassthrough, Label: dev.Name, Snapshot: snap,
		VFSpec: hw.VFSpec{VFState: hw.VFState{MAC: mac}}, LinkSpec: r.Options.LinkSpec(snap.Link), Tuning: r.Options.TuningSpec(),
		Forced: r.Options.Force}}
	if dev.Kind == hw.Bond {
		proxyFor(a, dev.ID, mac)
		return a, nil
	}
	return a, m.host.SnapshotUses(dev, &a.Snapshot)
}

// proxyFor makes an allocation that of the macvlan that takes a bond's place.
func proxyFor(a *alloc.Allocation, bond hw.ID, mac hw.MAC) {
	a.Device, a.Parent = hw.MadeID(string(bond)), bond
	a.Child = &hw.ChildSpec{Key: string(bond), Parent: bond, Kind: hw.Macvlan, Mode: option.Passthru, MAC: mac}
}

// Prepare marks the device and sets the wanted MAC. In place of a bond it creates the bond's proxy.
func (m passthrough) Prepare(ctx context.Context, a *alloc.Allocation, save Save) (hw.Netdev, error) {
	if a.Child != nil {
		return m.prepareProxy(ctx, a)
	}
	if err := m.refuseUnseen(a, save); err != nil {
		return hw.Netdev{}, err
	}
	dev, err := m.host.PrepareNetdev(a.Device, a.VFSpec.MAC)
	if err == nil {
		dev, err = m.host.SetLink(dev, a.LinkSpec, 0)
	}
	if err != nil {
		return dev, err
	}
	return dev, tune(ctx, m.host, a, save)
}

// refuseUnseen refuses a device with a macvlan or ipvlan in a namespace that the host does not know, such as those that Podman and CNI
// plugins make there, unless the user gave the option force. It is found by trying, so only when the allocation is in the ledger.
func (m passthrough) refuseUnseen(a *alloc.Allocation, save Save) error {
	if a.Snapshot.Shared {
		return nil
	}
	childless, err := m.host.Childless(a.Device)
	switch {
	case err != nil || childless:
		return err
	case !a.Forced:
		return fmt.Errorf("%s carries a macvlan or ipvlan in a network namespace that the host does not know, such as a Podman container's; "+
			"the host would lose that; if that is meant, say force=yes", a.Label)
	}
	a.Snapshot.Shared = true
	return save(a)
}

// prepareProxy creates the macvlan that takes a bond's place. Its MTU cannot be above the bond's.
func (m passthrough) prepareProxy(ctx context.Context, a *alloc.Allocation) (hw.Netdev, error) {
	bond, err := m.host.PrepareNetdev(a.Parent, "")
	if err != nil {
		return hw.Netdev{}, err
	}
	if a.LinkSpec.Policies[hw.LinkMTU] == hw.Required && a.LinkSpec.MTU > bond.MTU {
		raised := hw.LinkSpec{LinkState: a.LinkSpec.LinkState, Policies: map[hw.LinkAttr]hw.Policy{hw.LinkMTU: hw.Required}}
		if _, err := m.host.SetLink(bond, raised, 0); err != nil {
			return hw.Netdev{}, err
		}
	}
	dev, err := m.host.CreateChild(ctx, *a.Child)
	if err != nil {
		return dev, err
	}
	return m.host.SetLink(dev, a.LinkSpec, 0)
}

// Release restores the device, after what its container has left on it was removed: once, for the administrator may use it afterwards. A
// bond's proxy goes first: it has the bond's MAC.
func (m passthrough) Release(ctx context.Context, a *alloc.Allocation) error {
	var unrestored *hw.UnrestoredError
	if a.Child == nil && !a.Clean {
		if err := m.host.CleanNetdev(a.Device, a.Snapshot); err != nil && !errors.As(err, &unrestored) {
			return err
		}
		if err := m.allocations.MarkClean(ctx, a); err != nil {
			return err
		}
	}
	if a.Child == nil {
		if err := m.host.ForgetProbe(a.Device); err != nil {
			return err
		}
	}
	switch {
	case a.Child == nil && a.State == alloc.Quarantined: // for so long that the administrator may have taken it into use
		return unrestored.With(m.host.RestoreInUse(a.Device, a.Snapshot))
	case a.Child == nil:
		return unrestored.With(m.host.RestoreNetdev(a.Device, a.Snapshot))
	}
	if err := m.host.RemoveChild(a.Device, a.Child.Kind); err != nil {
		return err
	}
	return m.host.RestoreParent(a.Parent, a.Snapshot)
}
