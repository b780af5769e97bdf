package mode

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// devices finds the one device of a network, for modes that use a device as it is.
type devices struct {
	host   *hw.Host
	finder *vfpool.Finder
}

// of returns a network's device. A device without a PCI address may have been created again since by the host's own configuration, as
// at boot: then the device that has the name is meant.
func (d devices) of(r *Request) (hw.Netdev, error) {
	id := r.Network.Devices[0].ID
	dev, err := d.host.Find(id)
	if err != nil && !id.IsPCI() {
		return d.finder.Netdev(r.Options.Netdevice)
	}
	return dev, err
}

// same reports whether dev is the device of an ID. While a bond is attached it may have another MAC, and with that another ID.
func (d devices) same(id hw.ID, dev hw.Netdev) bool {
	if id == dev.ID {
		return true
	}
	n, err := d.host.Find(id)
	return err == nil && n.Index == dev.Index
}

// uses reports whether dev is one of a network's devices.
func (d devices) uses(n ledger.Network, dev hw.Netdev) bool {
	return slices.ContainsFunc(n.Devices, func(have ledger.Device) bool { return d.same(have.ID, dev) })
}

// checkMAC refuses a MAC that another function of a PF has, or a container's device on it. n may be any device; except is the one that is
// to get the MAC.
func (d devices) checkMAC(n hw.Netdev, mac hw.MAC, except hw.ID, held alloc.Set) error {
	pf, err := d.host.PF(n.Name)
	if mac == "" || errors.Is(err, hw.ErrUnsupported) { // no PF
		return nil
	}
	if err != nil {
		return err
	}
	all := vfpool.PF{PF: pf}
	if all.VFs, err = d.host.VFs(pf); err != nil {
		return err
	}
	if all.States, err = d.host.VFStates(pf); err != nil {
		return err
	}
	if owner, soon := all.MACOwner(mac, except, held); owner != "" {
		return &vfpool.BusyError{Text: fmt.Sprintf("mac address %s: %s", mac, owner), Soon: soon}
	}
	return nil
}

// checkTuning refuses, when a network is created, CPUs and offloads that do not exist. Any device will do as n.
func checkTuning(host *hw.Host, o *option.Network, n hw.Netdev) error {
	if err := host.CheckFeatures(n, o.Features); err != nil {
		return fmt.Errorf("option ethtool: %w", err)
	}
	if o.Cores.Empty() {
		return nil
	}
	if err := host.CheckCores(o.Cores); err != nil {
		return fmt.Errorf("option cores: %w", err)
	}
	return nil
}

// checkGSO refuses packets that are larger than what a device's driver cuts into frames. name is what the error calls the device.
func checkGSO(o *option.Container, n hw.Netdev, name string) error {
	for _, size := range []struct {
		option string
		n      *int
	}{{"gso_max_size", o.GSO}, {"gso_ipv4_max_size", o.GSOIPv4}} {
		if size.n != nil && n.MaxGSO > 0 && *size.n > n.MaxGSO {
			return fmt.Errorf("option %s: %d is above %d, the most that %s can have", size.option, *size.n, n.MaxGSO, name)
		}
	}
	return nil
}

// tune sets queues, rings and offloads, then the CPUs of the interrupts: a driver may use other interrupts for another number of
// queues. The snapshot is saved before each change.
func tune(ctx context.Context, host *hw.Host, a *alloc.Allocation, save Save) error {
	if a.Tuning.Empty() {
		return nil
	}
	before, err := host.SnapshotTuning(a.Device, a.Tuning)
	if err != nil {
		return err
	}
	a.Snapshot.Tuned = &before
	if err := save(a); err != nil {
		return err
	}
	if err := host.SetTuning(a.Device, a.Tuning); err != nil || a.Tuning.Cores.Empty() {
		return err
	}
	if before.Affinity, err = host.IRQAffinity(ctx, a.Device); err != nil {
		return err
	}
	if err := save(a); err != nil {
		return err
	}
	return host.SpreadIRQs(a.Device, a.Tuning.Cores, before.Affinity)
}
