package cdi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	specs "tags.cncf.io/container-device-interface/specs-go"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/devnode"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// wholeDevice is the name of the device of a network whose containers get a device whole, or children of one.
const wholeDevice = "nic"

// managed is what follows the name of a device in that of the one with the files for managing a fabric.
const managed = "-umad"

// spec returns what a network's spec should be. It has no devices if the network has none now.
func (w *Writer) spec(n ledger.Network, o *option.Network) (specs.Spec, error) {
	s := specs.Spec{Version: version, Kind: vendor + "/" + o.CDI, Annotations: map[string]string{networkKey: n.ID}}
	visible, err := w.RDMA.Devices()
	if err != nil {
		return s, err
	}
	if !o.UsesVFs() {
		if len(n.Devices) == 0 {
			return s, errors.New("its record names no device")
		}
		d := n.Devices[len(n.Devices)-1] // that of a VLAN device, which has no nodes itself
		netdev, index := d.Name, 0
		if dev, err := w.Host.Find(d.ID); err == nil { // it may have another name now
			netdev, index = dev.Name, dev.Index
		}
		pci := d.ID.PCI()
		nodes, err := devnode.Of(w.Sys, pci, madeOn(visible, index)...)
		env := []string{variable("NETDEVICE", o.CDI, netdev)}
		if pci != "" && o.Mode == option.ModePassthrough {
			env = append(env, variable("PCIDEVICE", o.CDI, pci))
		}
		s.Devices = devices(wholeDevice, o.CDI, env, nodes)
		return s, err
	}
	pfs, err := w.pfs(n)
	if err != nil {
		return s, err
	}
	for _, pf := range pfs {
		all, err := w.vfs(pf, o, len(n.Devices) == 1, visible)
		if err != nil {
			return s, err
		}
		s.Devices = append(s.Devices, all...)
	}
	return s, nil
}

// pfs returns the PFs of a network that are there.
func (w *Writer) pfs(n ledger.Network) (all []hw.PF, _ error) {
	for _, d := range n.Devices {
		pf, err := w.Host.PF(d.ID.PCI())
		switch {
		case err == nil:
			all = append(all, pf)
		case !errors.Is(err, hw.ErrNotFound) && !errors.Is(err, hw.ErrAway):
			return nil, err
		}
	}
	return all, nil
}

// bind binds a network's VFs, see [vfpool.Pool.BindEarly].
func (w *Writer) bind(ctx context.Context, n ledger.Network, o *option.Network) (more bool, _ error) {
	if !o.UsesVFs() {
		return false, nil
	}
	pfs, err := w.pfs(n)
	for _, pf := range pfs {
		unbound, bindErr := w.Pool.BindEarly(ctx, pf, vfpool.VFRange{PF: pf.PCI(), Indexes: o.VFs, Driver: o.Driver})
		more, err = more || unbound, errors.Join(err, bindErr)
	}
	return more, err
}

// programs returns the VFs of a network that are to be kept bound to a driver for programs.
func programs(n ledger.Network, o *option.Network) (all []vfpool.VFRange) {
	for _, d := range n.Devices {
		if o.Driver != "" {
			all = append(all, vfpool.VFRange{PF: d.ID.PCI(), Indexes: o.VFs, Driver: o.Driver})
		}
	}
	return all
}

// Bare returns the PCI addresses of the PFs that have no VFs, and whose VFs are to be in specs.
func (w *Writer) Bare(ctx context.Context) (all []string) {
	networks, err := ledger.List[ledger.Network](ctx, w.Store, ledger.NetworkPrefix)
	if err != nil {
		return nil // the caller comes again
	}
	for _, n := range networks {
		o, err := option.ParseStored(n.Rec.Options)
		if err != nil || o.CDI == "" || !o.UsesVFs() {
			continue
		}
		pfs, _ := w.pfs(n.Rec)
		for _, pf := range pfs {
			if pf.NumVFs == 0 {
				all = append(all, pf.PCI())
			}
		}
	}
	return all
}

// vfs returns the devices of the VFs that a network has on a PF. A VF that is not bound to its driver has no nodes yet, so it is left out: an
// engine that is asked for it says so, in place of a container without them. only is true if the network has one PF.
func (w *Writer) vfs(pf hw.PF, o *option.Network, only bool, visible []rdma.Device) (all []specs.Device, _ error) {
	vfs, err := w.Host.VFs(pf)
	if err != nil {
		return nil, err
	}
	for _, vf := range vfs {
		if vf.Driver == "" || o.Driver != "" && vf.Driver != o.Driver || len(o.VFs) > 0 && !slices.Contains(o.VFs, vf.Index) {
			continue
		}
		name := vf.PCI // an index is the same for several PFs. The option vf takes both
		if only {
			name = fmt.Sprintf("vf%d", vf.Index)
		}
		nodes, err := devnode.Of(w.Sys, vf.PCI, madeOn(visible, vf.Netdev.Index)...)
		if err != nil {
			return nil, err
		}
		all = append(all, devices(name, o.CDI, []string{variable("PCIDEVICE", o.CDI, vf.PCI)}, nodes)...)
	}
	return all, nil
}

// madeOn returns the names of the RDMA devices that software has made on a netdev of the host, by its ifindex: by its name they could be those
// of a container's netdev.
func madeOn(visible []rdma.Device, netdev int) (names []string) {
	for _, d := range rdma.Of(visible, "", netdev) {
		names = append(names, d.Name)
	}
	return names
}

// devices returns the device of a function, and the one with its files for managing a fabric if it has some.
func devices(name, class string, env []string, n devnode.Nodes) []specs.Device {
	if len(n.RDMA) > 0 {
		env = append(env, variable("RDMADEVICE", class, strings.Join(n.RDMA, ",")))
	}
	edits := specs.ContainerEdits{Env: env, DeviceNodes: nodes(n.Verbs, n.VFIO)}
	all := []specs.Device{{Name: name, ContainerEdits: edits}}
	if len(n.MAD) > 0 {
		all = append(all, specs.Device{Name: name + managed, ContainerEdits: specs.ContainerEdits{DeviceNodes: nodes(n.MAD)}})
	}
	return all
}

// nodes returns files as a spec has them. Containers may read and write them, but not create others of the kind (mknod). Numbers are left
// out: the engine reads them when it starts a container.
func nodes(files ...[]string) (all []*specs.DeviceNode) {
	for _, f := range slices.Concat(files...) {
		all = append(all, &specs.DeviceNode{Path: f, Permissions: "rw"})
	}
	return all
}

// variable returns a variable of the environment. Its name has the kind of the device, for containers with several networks, in the form
// that programs know from sriov-network-device-plugin: PCIDEVICE_MELLANOX_COM_CUSTOMER1.
func variable(what, class, value string) string {
	name := strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToUpper(vendor+"/"+class))
	return what + "_" + name + "=" + value
}
