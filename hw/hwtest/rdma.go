package hwtest

import (
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
)

// States of a port, as sysfs shows them (drivers/infiniband/core/sysfs.c, state_show; Linux 6.12).
const (
	portDown   = "1: DOWN"
	portInit   = "2: INIT"
	portActive = "4: ACTIVE"
)

// ipoibMAC is the address of an IPoIB netdev: a queue pair, which is another each time, the subnet's prefix and the GUID
// of the port.
func ipoibMAC(k *Kernel, guid hw.GUID) hw.MAC {
	if guid == "" {
		guid = "00:00:00:00:00:00:00:00"
	}
	k.macs++
	return hw.MAC(fmt.Sprintf("00:00:%02x:%02x:fe:80:00:00:00:00:00:00:%s", k.macs>>8&0xff, k.macs&0xff, guid))
}

// overInfiniBandLocked makes a fresh netdev one with IP over InfiniBand.
func (k *Kernel) overInfiniBandLocked(d *device, l *link) {
	l.Type, l.MTU, l.TxQLen, l.PermMAC = "infiniband", 2044, 256, ""
	if d.pf != nil {
		d.guid, d.dead = d.state.PortGUID, false
		l.MAC = ipoibMAC(k, d.guid)
	}
}

// An rdmaDevice is an RDMA device, that of a function or one that software makes on a netdev.
type rdmaDevice struct {
	index int
	name  string
	ns    string
	dev   *device // nil for one of software
	on    *link   // of software
}

// dir is its directory in the tree.
func (r *rdmaDevice) dir() string {
	if r.dev == nil {
		return "devices/virtual/infiniband/" + r.name
	}
	return path.Join(r.dev.path, "infiniband", r.name)
}

// addRDMALocked gives a function that has been bound its RDMA device.
func (k *Kernel) addRDMALocked(d *device) {
	if !d.conf.RDMA {
		return
	}
	d.rdma = &rdmaDevice{index: k.rdmas, name: k.freeRDMANameLocked(), dev: d}
	k.showRDMALocked(d.rdma)
	d.served = d.pf == nil
	k.showPortLocked(d)
	if d.pf != nil {
		k.servePortsLocked(d.pf)
	}
}

// freeRDMANameLocked is the name of a new RDMA device (drivers/infiniband/core/device.c, alloc_name, Linux 6.12).
func (k *Kernel) freeRDMANameLocked() string {
	for n := 0; ; n++ {
		name := fmt.Sprintf("mlx5_%d", n)
		if !slices.ContainsFunc(k.rdmaDevices, func(r *rdmaDevice) bool { return r.name == name }) {
			return name
		}
	}
}

// AddRXE makes an RDMA device of software on a netdev of the host, as "rdma link add NAME type rxe netdev NETDEV" does. It ends when
// the netdev leaves the namespace (drivers/infiniband/sw/rxe/rxe_net.c, rxe_notify, Linux 6.12).
func (k *Kernel) AddRXE(name, netdev string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.showRDMALocked(&rdmaDevice{index: k.rdmas, name: name, on: k.needLocked(hostNS, netdev)})
}

// AddGID gives an RDMA device of the host a GID of a netdev, which may be in any namespace.
func (k *Kernel) AddGID(name string, index int, gid, netdev string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.rdmaDevices {
		if r.name == name {
			k.tree.file(fmt.Sprintf("%s/ports/1/gids/%d", r.dir(), index), gid, nil)
			k.tree.file(fmt.Sprintf("%s/ports/1/gid_attrs/ndevs/%d", r.dir(), index), netdev, nil)
		}
	}
}

// showRDMALocked shows a new RDMA device, and its character devices, which are in no namespace.
func (k *Kernel) showRDMALocked(r *rdmaDevice) {
	k.rdmas++
	k.rdmaDevices = append(k.rdmaDevices, r)
	k.revealRDMALocked(r)
	k.showRDMAFilesLocked(r)
}

// showRDMAFilesLocked shows the character devices of an RDMA device.
func (k *Kernel) showRDMAFilesLocked(r *rdmaDevice) {
	if k.NoRDMAFiles {
		return
	}
	for _, file := range r.files() {
		k.tree.remove("class/" + file) // if it is shown already, under the name of before
		k.tree.file("class/"+file+"/ibdev", r.name, nil)
		if r.dev != nil {
			k.tree.link("class/"+file+"/device", r.dev.path)
		}
	}
	k.tree.file("class/infiniband_verbs/abi_version", "6", nil)
}

// revealRDMALocked shows an RDMA device in the tree of the host.
func (k *Kernel) revealRDMALocked(r *rdmaDevice) {
	layer, state := "Ethernet", portActive
	if r.dev != nil && r.dev.conf.InfiniBand {
		layer = "InfiniBand"
	}
	k.tree.files(r.dir()+"/ports/1", map[string]string{"link_layer": layer, "state": state})
	k.tree.file(r.dir()+"/node_guid", fmt.Sprintf("0002:c903:00a1:%04x", r.index), nil)
	k.tree.link("class/infiniband/"+r.name, r.dir())
	if r.dev != nil {
		k.tree.link(r.dir()+"/device", r.dev.path)
	}
}

// hideRDMALocked takes an RDMA device out of the tree of the host. The directory that it is in stays, empty.
func (k *Kernel) hideRDMALocked(r *rdmaDevice) {
	k.tree.remove("class/infiniband/" + r.name)
	k.tree.remove(r.dir())
}

// MoveRDMA moves an RDMA device of the host to a namespace, which is made when it does not exist, as "rdma dev set NAME netns NS" does.
func (k *Kernel) MoveRDMA(name, ns string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spaces[ns] = true
	for _, r := range k.rdmaDevices {
		if r.name == name {
			if err := k.moveRDMALocked(r, ns); err != nil {
				k.t.Fatalf("hwtest: move %s: %v", name, err)
			}
		}
	}
}

// moveRDMALocked moves an RDMA device of the host to a namespace (drivers/infiniband/core/device.c, ib_device_set_netns_put, Linux 6.12).
func (k *Kernel) moveRDMALocked(r *rdmaDevice, ns string) error {
	if !k.RDMAExclusive || r.dev == nil { // rdma_rxe cannot be taken from programs that use it
		return syscall.EOPNOTSUPP
	}
	k.hideRDMALocked(r)
	r.ns = ns
	return nil
}

// RDMANamespaces lists the RDMA devices that are in other namespaces than the host's, as NAME in NAMESPACE.
func (k *Kernel) RDMANamespaces() (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range k.rdmaDevices {
		if r.ns != hostNS {
			all = append(all, r.name+" in "+r.ns)
		}
	}
	return all
}

// homeRDMALocked returns the RDMA devices of a namespace that ends to the host (drivers/infiniband/core/device.c, rdma_dev_exit_net,
// Linux 6.12).
func (k *Kernel) homeRDMALocked(ns string) {
	for _, r := range k.rdmaDevices {
		if r.ns == ns {
			r.ns = hostNS
			k.revealRDMALocked(r)
			k.showPortLocked(r.dev)
		}
	}
}

// files is the classes and names of its character devices.
func (r *rdmaDevice) files() []string {
	return []string{fmt.Sprintf("infiniband_verbs/uverbs%d", r.index), fmt.Sprintf("infiniband_mad/umad%d", r.index),
		fmt.Sprintf("infiniband_mad/issm%d", r.index)}
}

func (k *Kernel) removeRDMALocked(d *device) {
	if d.rdma == nil {
		return
	}
	k.endRDMALocked(d.rdma)
	k.tree.remove(d.path + "/infiniband")
	d.rdma, d.guid, d.served = nil, "", false
}

// endRDMALocked takes an RDMA device out of the tree.
func (k *Kernel) endRDMALocked(r *rdmaDevice) {
	k.rdmaDevices = slices.DeleteFunc(k.rdmaDevices, func(o *rdmaDevice) bool { return o == r })
	k.hideRDMALocked(r)
	for _, file := range r.files() {
		k.tree.remove("class/" + file)
	}
}

// endSoftRDMALocked ends the RDMA devices of software on a link.
func (k *Kernel) endSoftRDMALocked(l *link) {
	for _, r := range slices.Clone(k.rdmaDevices) {
		if r.on == l {
			k.endRDMALocked(r)
		}
	}
}

// Move implements rdma.Kernel. A namespace is known by the last part of its file's name.
func (r RDMA) Move(index int, ns *os.File) error {
	name := path.Base(ns.Name())
	return r.k.call(func() error {
		d := r.deviceLocked(index)
		if d == nil || !r.k.spaces[name] {
			return syscall.ENOENT
		}
		return r.k.moveRDMALocked(d, name)
	}, func() string { return fmt.Sprintf("move rdma device %d to %s", index, name) })
}

// Rename implements rdma.Kernel. Names are taken in all namespaces.
func (r RDMA) Rename(index int, name string) error {
	return r.k.call(func() error {
		d := r.deviceLocked(index)
		if d == nil {
			return syscall.ENODEV
		}
		if slices.ContainsFunc(r.k.rdmaDevices, func(o *rdmaDevice) bool { return o.name == name }) {
			return syscall.EEXIST
		}
		r.k.hideRDMALocked(d)
		d.name = name
		r.k.revealRDMALocked(d)
		r.k.showRDMAFilesLocked(d)
		r.k.showPortLocked(d.dev)
		return nil
	}, func() string { return fmt.Sprintf("rename rdma device %d to %s", index, name) })
}

// deviceLocked returns a device of the host, nil for none.
func (r RDMA) deviceLocked(index int) *rdmaDevice {
	for _, d := range r.k.rdmaDevices {
		if d.index == index && d.ns == hostNS {
			return d
		}
	}
	return nil
}

// RDMA is the machine's RDMA devices over netlink, seen from the host.
type RDMA struct{ k *Kernel }

var _ rdma.Kernel = RDMA{}

// RDMA is the machine's RDMA devices.
func (k *Kernel) RDMA() RDMA { return RDMA{k} }

// Mode implements rdma.Kernel.
func (r RDMA) Mode() (rdma.Mode, error) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	switch {
	case r.k.rdmas == 0:
		return "", hw.FromErrno(syscall.EPROTONOSUPPORT)
	case r.k.NoRDMAModes:
		return "", hw.FromErrno(syscall.EINVAL)
	case r.k.RDMAExclusive:
		return rdma.Exclusive, nil
	}
	return rdma.Shared, nil
}

// Links implements rdma.Kernel.
func (r RDMA) Links() ([]rdma.Link, error) {
	r.k.mu.Lock()
	defer r.k.mu.Unlock()
	if r.k.rdmas == 0 {
		return nil, hw.FromErrno(syscall.EPROTONOSUPPORT)
	}
	var links []rdma.Link
	for _, d := range r.k.rdmaDevices {
		if d.ns != hostNS {
			continue
		}
		on := d.on
		if d.dev != nil {
			on = d.dev.net
		}
		l := rdma.Link{Index: d.index, Name: d.name}
		if on != nil && on.ns == hostNS {
			l.Netdev = on.Index
		}
		links = append(links, l)
	}
	return links, nil
}

// portState is the state of a function's port: that of a VF follows the PF's, or is up or down whatever that is, and needs
// a GUID and a subnet manager that has seen it.
func (d *device) portState() string {
	switch {
	case !d.conf.InfiniBand && d.net != nil && d.net.carrier():
		return portActive
	case !d.conf.InfiniBand, d.conf.Unplugged && d.state.LinkMode != hw.LinkEnable, d.off, d.pf != nil && d.guid == "":
		return portDown
	case !d.conf.SubnetManager, !d.served:
		return portInit
	}
	return portActive
}

// showPortLocked brings a function's port up to date.
func (k *Kernel) showPortLocked(d *device) {
	if d.rdma != nil && d.rdma.ns == hostNS {
		k.tree.file(d.rdma.dir()+"/ports/1/state", d.portState(), nil)
	}
	if d.net != nil {
		k.showLocked(d.net)
	}
}

// servePortsLocked is the subnet manager finding the ports of a PF's VFs after a while.
func (k *Kernel) servePortsLocked(pf *device) {
	if !pf.conf.InfiniBand {
		return
	}
	for _, vf := range pf.vfs {
		k.showPortLocked(vf)
		if vf.rdma == nil || vf.served || vf.portState() != portInit {
			continue
		}
		device := vf.rdma
		k.afterLocked(pf.conf.VFCarrierAfter, func() {
			if vf.rdma == device {
				vf.served = true
				k.showPortLocked(vf)
			}
		})
	}
}

// vendorTreeLocked shows the files of a VF that the mlx5 driver of its vendor has: sriov/N/{node,port,policy} below the PF,
// as its manual describes them.
func (k *Kernel) vendorTreeLocked(vf *device) {
	if !vf.conf.VendorTree {
		return
	}
	dir := fmt.Sprintf("%s/sriov/%d", vf.pf.path, vf.index)
	guid := func(name string, to *hw.GUID) {
		k.tree.file(dir+"/"+name, guidText(*to), func(v string) error {
			g := hw.GUID(strings.TrimSpace(v))
			if len(g) != len(guidText("")) {
				return syscall.EINVAL
			}
			if *to = g; string(g) == guidText("") {
				*to = ""
			}
			k.vendorTreeLocked(vf)
			k.servePortsLocked(vf.pf)
			return nil
		})
	}
	guid("node", &vf.state.NodeGUID)
	guid("port", &vf.state.PortGUID)
	words := map[string]hw.LinkMode{"Follow": "", "Up": hw.LinkEnable, "Down": hw.LinkDisable}
	for word, mode := range words {
		if mode != vf.state.LinkMode {
			continue
		}
		k.tree.file(dir+"/policy", word, func(v string) error {
			mode, ok := words[strings.TrimSpace(v)]
			if !ok {
				return syscall.EINVAL
			}
			vf.state.LinkMode, vf.off = mode, mode == hw.LinkDisable
			k.vendorTreeLocked(vf)
			k.servePortsLocked(vf.pf)
			return nil
		})
	}
}

// guidText is how the files show a GUID.
func guidText(g hw.GUID) string {
	if g == "" {
		return "00:00:00:00:00:00:00:00"
	}
	return string(g)
}
