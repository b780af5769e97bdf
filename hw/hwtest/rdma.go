package hwtest

import (
	"fmt"
	"path"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
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

// addRDMALocked gives a function that has been bound its RDMA device.
func (k *Kernel) addRDMALocked(d *device) {
	if !d.conf.RDMA {
		return
	}
	d.rdma = fmt.Sprintf("mlx5_%d", k.rdmas)
	k.rdmas++
	layer := "Ethernet"
	if d.conf.InfiniBand {
		layer = "InfiniBand"
	}
	dir := path.Join(d.path, "infiniband", d.rdma)
	k.tree.file(dir+"/ports/1/link_layer", layer, nil)
	k.tree.link(dir+"/device", d.path)
	k.tree.link("class/infiniband/"+d.rdma, dir)
	d.served = d.pf == nil
	k.showPortLocked(d)
	if d.pf != nil {
		k.servePortsLocked(d.pf)
	}
}

func (k *Kernel) removeRDMALocked(d *device) {
	if d.rdma == "" {
		return
	}
	k.tree.remove("class/infiniband/" + d.rdma)
	k.tree.remove(d.path + "/infiniband")
	d.rdma, d.guid, d.served = "", "", false
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
	if d.rdma != "" {
		k.tree.file(path.Join(d.path, "infiniband", d.rdma, "ports/1/state"), d.portState(), nil)
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
		if vf.rdma == "" || vf.served || vf.portState() != portInit {
			continue
		}
		name := vf.rdma
		k.afterLocked(pf.conf.VFCarrierAfter, func() {
			if vf.rdma == name {
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
