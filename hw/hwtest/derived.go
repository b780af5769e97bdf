package hwtest

import (
	"fmt"
	"path"

	"github.com/mellanox/passthrough/hw"
)

// AddSubfunction adds a sub-function to a PCI function, as its driver makes it when it is activated, and returns its name on the auxiliary
// bus. Without a name of l it has no driver yet, and no netdev (mlx5/core/sf/dev/dev.c, Linux 6.12).
func (k *Kernel) AddSubfunction(pci string, id, sfnum int, l hw.Link) (name string) {
	k.t.Helper()
	k.mu.Lock()
	d := k.needPFLocked(pci)
	name = fmt.Sprintf("%s.sf.%d", d.conf.Driver, id)
	dir := path.Join(d.path, name)
	k.tree.file(dir+"/sfnum", fmt.Sprint(sfnum), nil)
	k.tree.link("bus/auxiliary/devices/"+name, dir)
	k.mu.Unlock()
	if l.Name != "" {
		k.tree.link(dir+"/driver", "bus/auxiliary/drivers/"+d.conf.Driver+".sf")
		k.AddOn(pci, name, 0, l)
	}
	return name
}

// AddVDPA adds a vDPA device to a PCI function, bound to a driver: vhost_vdpa, for virtual machines, or virtio_vdpa, which makes it a virtio
// NIC with the netdev l. The directory of that is beside the device's (drivers/virtio/virtio_vdpa.c, virtio_vdpa_probe, Linux 6.12).
func (k *Kernel) AddVDPA(pci, name, driver string, l hw.Link) {
	k.t.Helper()
	k.mu.Lock()
	d := k.needPFLocked(pci)
	dir := path.Join(d.path, name)
	k.tree.dir(dir)
	k.tree.link("bus/vdpa/devices/"+name, dir)
	k.tree.link(dir+"/driver", "bus/vdpa/drivers/"+driver)
	k.mu.Unlock()
	if l.Name != "" {
		k.AddOn(pci, "virtio7", 0, l)
	}
}
