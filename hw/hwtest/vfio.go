package hwtest

import (
	"fmt"
	"strconv"
)

// vfioPCI is the driver that gives a function to a program.
const vfioPCI = "vfio-pci"

// groupLocked puts a function into an IOMMU group: one of its own, or its PF's if the bus does not isolate them. name is "" unless the group
// is one that only vfio has made.
func (k *Kernel) groupLocked(d *device, name string) {
	if d.pf != nil && d.conf.OneGroup {
		d.group = d.pf.group
	} else {
		k.groups++
		d.group = k.groups
	}
	dir := "kernel/iommu_groups/" + strconv.Itoa(d.group)
	if name != "" {
		k.tree.file(dir+"/name", name, nil)
	}
	k.tree.link(d.path+"/iommu_group", dir)
	k.tree.link(dir+"/devices/"+d.addr, d.path)
}

// ungroupLocked takes a function out of its group.
func (k *Kernel) ungroupLocked(d *device) {
	k.tree.remove(d.path + "/iommu_group")
	k.tree.remove(fmt.Sprintf("kernel/iommu_groups/%d/devices/%s", d.group, d.addr))
	d.group = 0
}

// noIOMMU reports whether a function is in a group that only vfio has made.
func (d *device) noIOMMU() bool { return d.driver == vfioPCI && d.alone }

// vfioServesLocked reports whether vfio-pci takes a function. Without an IOMMU it does so only in its unsafe mode, in which it makes a group for
// the function (drivers/vfio/group.c, vfio_noiommu_group_alloc, Linux 6.12).
func (k *Kernel) vfioServesLocked(d *device) bool {
	if d.group != 0 {
		return true
	}
	unsafe, err := k.tree.ReadFile("module/vfio/parameters/enable_unsafe_noiommu_mode")
	if err != nil || string(unsafe) != "Y\n" {
		return false
	}
	k.groupLocked(d, "vfio-noiommu")
	d.alone = true
	return true
}

// OpenFunction is a program that opens a function which is bound to vfio-pci: its group, and with it the function itself.
func (k *Kernel) OpenFunction(pci string) { k.setOpened(pci, true) }

// CloseFunction is a program that closes it, as it also does when it is killed.
func (k *Kernel) CloseFunction(pci string) { k.setOpened(pci, false) }

func (k *Kernel) setOpened(pci string, opened bool) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.needPFLocked(pci)
	if d.driver != vfioPCI {
		k.t.Fatalf("hwtest: %s is bound to %q, not to vfio-pci", pci, d.driver)
	}
	d.opened = opened
	k.showConfigLocked(d)
	k.released.Broadcast()
}
