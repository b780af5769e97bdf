package hwtest

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// WriteAttr implements hw.Kernel.
func (k *Kernel) WriteAttr(path, value string) error {
	return k.call(func() error { return k.tree.write(path, value) },
		func() string { return "write " + path + " " + strings.TrimSuffix(value, "\n") })
}

// LoadDriver loads a PCI driver, such as vfio-pci. It takes the functions that are its own and may be probed.
func (k *Kernel) LoadDriver(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.loadLocked(name)
}

func (k *Kernel) loadLocked(name string) {
	if k.drivers[name] {
		return
	}
	k.drivers[name] = true
	dir := path.Join("bus/pci/drivers", name)
	k.tree.file(dir+"/bind", "", func(addr string) error { return k.bindStore(name, addr) })
	k.tree.file(dir+"/unbind", "", func(addr string) error {
		d := k.deviceLocked(addr)
		for d != nil && d.opened && !k.closed { // the kernel waits for the program (drivers/vfio/vfio_main.c, vfio_unregister_group_dev)
			k.released.Wait()
		}
		if d == nil || d.driver != name {
			return syscall.ENODEV
		}
		k.unbindLocked(d)
		return nil
	})
	if name == vfioPCI {
		const unsafe = "module/vfio/parameters/enable_unsafe_noiommu_mode"
		k.tree.file(unsafe, "N", func(v string) error { k.tree.file(unsafe, v, nil); return nil })
	}
	for _, d := range k.devices {
		k.probeLocked(d)
	}
}

// bindStore is a write to a driver's bind.
func (k *Kernel) bindStore(name, addr string) error {
	d := k.deviceLocked(addr)
	switch {
	case d == nil || d.wants() != name:
		return syscall.ENODEV
	case d.driver != "":
		return syscall.EBUSY
	case !d.mayProbe():
		return syscall.ENODEV
	case name == vfioPCI && !k.vfioServesLocked(d):
		return syscall.EINVAL
	}
	k.bindLocked(d, name)
	return nil
}

// probeStore is a write to drivers_probe. It succeeds also when no driver takes the function.
func (k *Kernel) probeStore(addr string) error {
	d := k.deviceLocked(addr)
	if d == nil {
		return syscall.ENODEV
	}
	k.probeLocked(d)
	return nil
}

// wants is the one driver that a function can be bound to.
func (d *device) wants() string {
	switch {
	case d.override != "":
		return d.override
	case d.pf != nil:
		return d.conf.VFDriver
	default:
		return d.conf.Driver
	}
}

// mayProbe tells whether a function may be bound: VFs whose PF has sriov_drivers_autoprobe=0 only with an override.
func (d *device) mayProbe() bool { return d.pf == nil || d.pf.autoprobe || d.override != "" }

// probeLocked binds a function to its driver if that has been loaded.
func (k *Kernel) probeLocked(d *device) {
	if d.driver == "" && d.mayProbe() && k.drivers[d.wants()] && (d.wants() != vfioPCI || k.vfioServesLocked(d)) {
		k.bindLocked(d, d.wants())
	}
}

// bindLocked binds a function. A network driver makes a netdev, called ethN until udev has seen it; the only PF that
// can be bound here is one that has been unbound before.
func (k *Kernel) bindLocked(d *device, name string) {
	k.boundLocked(d, name)
	if name != d.conf.VFDriver && name != d.conf.Driver {
		return
	}
	if !d.resetting { // iavf registers its netdev once it can be set up
		d.opens = time.Time{}
	}
	d.probes++
	probe := d.probes
	k.afterLocked(d.conf.ProbeTakes, func() {
		if d.driver == name && d.probes == probe {
			k.makeNetdevLocked(d)
		}
	})
}

func (k *Kernel) makeNetdevLocked(d *device) {
	l := &link{dev: d, port: d.conf.Port, cable: !d.conf.Unplugged, assign: nameByKernel, udevName: d.conf.Name,
		Link: hw.Link{Name: k.freeNameLocked("eth"), Type: "ether", MAC: d.conf.MAC, MTU: 1500, TxQLen: 1000, Segments: segments}}
	if d.pf != nil {
		l.cable = true
		l.udevName = fmt.Sprintf("%sv%d", d.pf.conf.Name, d.index)
		for _, flag := range d.pf.conf.VFFlags {
			l.controls = append(l.controls, hw.PrivateFlag(flag, false))
		}
		d.dead = d.pf.net == nil || !d.pf.net.Up || d.probes <= d.conf.DeadProbes
		if l.MAC = d.state.MAC; d.dead || !d.adminMAC { // the PF has none to give
			l.MAC = ""
		}
	}
	if l.MAC == "" && !d.conf.InfiniBand {
		l.MAC = k.drawMAC()
	}
	l.PermMAC = l.MAC // igbvf calls also a drawn one permanent
	if d.conf.InfiniBand {
		k.overInfiniBandLocked(d, l)
	} else if d.pf != nil && !d.dead {
		d.reportMAC(l.MAC)
	}
	k.addRDMALocked(d)
	d.net = l
	k.registerLocked(l)
	k.giveIRQsLocked(d, d.vectors(tunedLocked(l).Queues))
	k.udevLocked(l)
}

// reportMAC is a VF telling its PF the MAC that it uses.
func (d *device) reportMAC(mac hw.MAC) {
	if d.conf.ReportsOwnMAC || d.adminMAC {
		d.state.MAC = mac
	}
}

// udevLocked is udev naming a link that has appeared.
func (k *Kernel) udevLocked(l *link) {
	if k.NoUdev {
		return
	}
	k.afterLocked(k.UdevAfter, func() {
		if l.ns == hostNS && l.assign == nameByKernel && slices.Contains(k.links, l) {
			// A name that is taken stays with the link that has it, as with udev.
			_ = k.renameLocked(l, l.udevName)
		}
	})
}

// sriovFilesLocked shows what only PFs have.
func (k *Kernel) sriovFilesLocked(d *device) {
	k.tree.files(d.path, map[string]string{
		"sriov_totalvfs": strconv.Itoa(d.conf.TotalVFs), "sriov_offset": strconv.Itoa(d.conf.VFOffset),
		"sriov_stride": strconv.Itoa(d.conf.VFStride), "sriov_vf_device": strings.TrimPrefix(d.conf.VFDevice, "0x"),
	})
	k.tree.file(d.path+"/sriov_drivers_autoprobe", "1", func(v string) error {
		if v != "0" && v != "1" {
			return syscall.EINVAL
		}
		d.autoprobe = v == "1"
		k.tree.file(d.path+"/sriov_drivers_autoprobe", v, nil)
		return nil
	})
	k.tree.file(d.path+"/sriov_numvfs", "0", number(func(n int) error { return k.setNumVFsLocked(d, n) }))
}

// setNumVFsLocked makes or removes a PF's VFs, the latter wherever they are.
func (k *Kernel) setNumVFsLocked(d *device, n int) error {
	switch {
	case n < 0:
		return syscall.EINVAL
	case n > d.conf.TotalVFs:
		return syscall.ERANGE
	case n == len(d.vfs):
		return nil
	case n > 0 && len(d.vfs) > 0:
		return syscall.EBUSY
	case n > 0 && d.driver == "":
		return syscall.ENOENT
	}
	for n == 0 && len(d.vfs) > 0 {
		k.removeDeviceLocked(d.vfs[len(d.vfs)-1])
	}
	for i := range n {
		if err := k.addVFLocked(d, i); err != nil {
			return err
		}
	}
	k.tree.file(d.path+"/sriov_numvfs", strconv.Itoa(n), nil)
	if d.net != nil && d.net.trained { // the driver resets its port
		d.net.trained = false
		d.net.ups++
		k.trainLocked(d.net, d.conf.ResetTakes)
	}
	if n > 0 {
		k.afterLocked(d.conf.VFDriverAfter, func() { k.loadLocked(d.conf.VFDriver) })
	}
	for _, vf := range d.vfs {
		k.probeLocked(vf)
	}
	return nil
}

// addVFLocked makes one VF as the PF's driver does: spoofchk on, trust off, no VLAN, no MAC unless the firmware has
// one.
func (k *Kernel) addVFLocked(pf *device, i int) error {
	addr, err := vfAddr(pf.conf, i)
	if err != nil {
		return err
	}
	vf := &device{addr: addr, path: path.Join(path.Dir(pf.path), addr), conf: pf.conf, pf: pf, index: i, state: freshVF(pf.conf)}
	if pf.conf.InfiniBand {
		vf.state, vf.off = hw.VFState{LinkMode: hw.LinkDisable}, true
	}
	if pf.conf.VFMAC != nil {
		vf.state.MAC = pf.conf.VFMAC(i)
		vf.adminMAC = vf.state.MAC != ""
	}
	pf.vfs = append(pf.vfs, vf)
	k.addDeviceLocked(vf)
	k.tree.link(vf.path+"/physfn", pf.path)
	k.tree.link(fmt.Sprintf("%s/virtfn%d", pf.path, i), vf.path)
	k.vendorTreeLocked(vf)
	k.showTrunkLocked(vf)
	if pf.conf.Switchdev {
		k.representLocked(vf)
	}
	return nil
}

// representLocked makes the representor of a VF, down. udev names it after the PF and its phys_port_name.
func (k *Kernel) representLocked(vf *device) {
	name := fmt.Sprintf(vf.conf.PortForm, vf.index)
	n := k.addLocked(hostNS, hw.Link{Name: strings.TrimSuffix(vf.conf.Name, "np0") + "n" + name})
	k.hideLocked(n)
	n.portName, n.represents, vf.port = name, vf, n
	if !vf.conf.Apart {
		n.dir = vf.pf.path
	}
	k.appearLocked(n)
}

// freshVF is what a PF's driver has set for a VF that it has just made.
func freshVF(c PF) hw.VFState { return hw.VFState{Spoofchk: c.Spoofchk && c.SpoofchkDefault} }

// vfAddr is the PCI address of a VF: its PF's plus offset and strides.
func vfAddr(c PF, i int) (string, error) {
	var domain, bus, slot, fn int
	if _, err := fmt.Sscanf(c.PCI, "%x:%x:%x.%x", &domain, &bus, &slot, &fn); err != nil {
		return "", fmt.Errorf("pci address %q: %w", c.PCI, err)
	}
	rid := bus<<8 + slot<<3 + fn + c.VFOffset + i*c.VFStride
	return fmt.Sprintf("%04x:%02x:%02x.%x", domain, rid>>8, rid>>3&0x1f, rid&7), nil
}

// Driver is the driver that a PCI function is bound to, "" for none.
func (k *Kernel) Driver(pci string) string {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.deviceLocked(pci)
	if d == nil {
		return ""
	}
	return d.driver
}
