package hw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/mellanox/passthrough/hw/devnode"
)

// Bind makes sure that a VF is bound to its driver and has a netdev with its final name. A VF that is bound already is
// left alone, unless its PF was reset since, see cutOff: it is unbound first. The error matches ErrDeviceFault if the VF gets
// no driver or no netdev in time.
func (h *binder) Bind(ctx context.Context, pf PF, vf VF) (Netdev, error) {
	if h.cutOff(vf) {
		if err := h.unbind(vf); err != nil {
			return Netdev{}, err
		}
		vf.Driver = ""
	}
	fresh := vf.Driver == ""
	if fresh {
		if err := h.bindUnbound(ctx, pf, vf); err != nil {
			return Netdev{}, &Error{Dev: vf.String(), Op: "bind to its driver", Err: err}
		}
	}
	if fresh {
		vf.Netdev = Netdev{} // it has another one
	}
	n, err := h.awaitNetdev(ctx, pf, vf)
	if err != nil {
		return Netdev{}, &Error{Dev: vf.String(), Op: "wait for its netdev", Err: err}
	}
	if fresh {
		return h.nameVF(pf, vf, n)
	}
	return n, nil
}

// cutOff returns true if a VF is bound to a driver and may not access memory: its PF was reset, which has cleared the
// configuration of the VF, and its driver has not noticed (drivers/pci/iov.c, sriov_restore_state, restores the PF's part only;
// Linux 6.12). Such a VF never has carrier; waiting for that would take half of a call. A driver has the bus master bit set
// while it is bound (pci_set_master). Of a function that does not answer all bits are set.
func (h *binder) cutOff(vf VF) bool {
	const command, busMaster = 4, 1 << 2 // PCI_COMMAND, PCI_COMMAND_MASTER
	if vf.Driver == "" {
		return false
	}
	config, ok := h.sys.head(pciDir(vf.PCI)+"/config", command+1)
	return ok && config[command]&busMaster == 0
}

// Lost returns why a container is without the netdev that it got of a PCI function, in words that follow the device's name; "" if it may
// have it, also if the netdev is in the host: that is for the caller to judge. ended is true if that netdev is no more, false if it may work
// again.
func (h *binder) Lost(id ID) (why string, ended bool) {
	dir := pciDir(id.PCI())
	here, err := h.sys.present(dir)
	if err != nil {
		return "", false
	}
	if !here {
		return "is gone, with the driver of its pf or with the nic", true
	}
	driver, err := h.driverOf(id.PCI())
	switch {
	case err != nil || isUserDriver(driver):
		return "", false
	case driver == "":
		return "has no driver", true
	case h.sys.exists(dir+"/physfn") && h.cutOff(VF{PCI: id.PCI(), Driver: driver}):
		return "does nothing: its pf was reset, which its driver has not noticed", false
	}
	return "", false
}

// nameVF gives a new netdev a stable name if udev has not: the kernel uses the first ethN that is free in the host, so
// a VF could get the name of a device that is away, which then could not return under it. The name is the one that
// systemd gives to VFs.
func (h *binder) nameVF(pf PF, vf VF, n Netdev) (Netdev, error) {
	const longest = 15 // IFNAMSIZ-1
	name := fmt.Sprintf("%sv%d", pf.Name, vf.Index)
	if h.naming(n.Name) != byKernel || len(name) > longest {
		return n, nil
	}
	if err := h.rename(n, name, h.kernel.SetLink); errors.Is(err, fs.ErrExist) {
		return n, nil
	} else if err != nil {
		return Netdev{}, err
	}
	return h.Find(n.ID)
}

// Rebind unbinds a VF from its driver and binds it again: igbvf reads a MAC that the PF has set only then, and a VF
// that its driver has lost works again. The VF has a new netdev afterwards.
func (h *binder) Rebind(ctx context.Context, pf PF, vf VF) (Netdev, error) {
	if err := h.unbind(vf); err != nil {
		return Netdev{}, err
	}
	vf.Driver = ""
	return h.Bind(ctx, pf, vf)
}

// unbind unbinds a VF from its driver, if it is bound to one. The kernel deletes the netdev, with all that was made of it.
func (h *binder) unbind(vf VF) error {
	if vf.Driver == "" {
		return nil
	}
	err := h.kernel.WriteAttr(pciDir(vf.PCI)+"/driver/unbind", vf.PCI)
	return wrapped(vf.String(), "unbind", err)
}

// bindUnbound has the kernel bind an unbound VF. Under sriov_drivers_autoprobe=0 the kernel does so only for a device
// with a driver_override (drivers/pci/pci-driver.c, pci_device_can_probe), which is restored afterwards. The driver
// must be loaded: udev does that when the VF appears, a plugin cannot.
func (h *binder) bindUnbound(ctx context.Context, pf PF, vf VF) error {
	driver := vfDrivers[pf.Driver]
	if driver != "" {
		err := wait(ctx, probeBound, func() (bool, error) { return h.sys.exists("bus/pci/drivers/" + driver), nil })
		if timedOut(err) {
			return fmt.Errorf("driver %s is not loaded; load it (modprobe %s)", driver, driver) // not the fault of the VF
		}
		if err != nil {
			return err
		}
		if err := h.kernel.WriteAttr(pciDir(vf.PCI)+"/driver_override", driver); err != nil {
			return err
		}
	}
	err := h.kernel.WriteAttr("bus/pci/drivers_probe", vf.PCI)
	if err == nil {
		err = faultIfTimedOut(h.awaitDriver(ctx, vf))
	}
	if driver == "" {
		return err
	}
	return errors.Join(err, h.kernel.WriteAttr(pciDir(vf.PCI)+"/driver_override", overrideText(vf.Override)))
}

// awaitDriver waits until a VF has a driver.
func (h *binder) awaitDriver(ctx context.Context, vf VF) error {
	return wait(ctx, probeBound, func() (bool, error) {
		d, err := h.driverOf(vf.PCI)
		return d != "", err
	})
}

// bindUser binds a VF to a driver for programs, such as vfio-pci, instead of its own. The driver_override stays: no other driver takes the VF
// meanwhile. The error is the driver's own, as the file bind returns it (drivers/base/bus.c, bind_store, Linux 6.12).
func (h *binder) bindUser(ctx context.Context, vf VF, driver string) error {
	if err := h.unbind(vf); err != nil {
		return err
	}
	err := h.kernel.WriteAttr(pciDir(vf.PCI)+"/driver_override", driver)
	if err == nil {
		err = h.kernel.WriteAttr("bus/pci/drivers/"+driver+"/bind", vf.PCI)
	}
	if err == nil {
		err = h.awaitDriver(ctx, vf)
	}
	if err == nil {
		err = h.CheckBound(vf.ID(), driver)
	}
	return wrapped(vf.String(), "bind to "+driver, err)
}

// CheckBound returns an error if a device is not bound to a driver.
func (h *binder) CheckBound(id ID, driver string) error {
	is, err := h.driverOf(id.PCI())
	switch {
	case err != nil:
		return &Error{Dev: string(id), Err: err}
	case is == "":
		return &Error{Dev: string(id), Err: fmt.Errorf("it is not bound to %s, nor to another driver", driver)}
	case is != driver:
		return &Error{Dev: string(id), Err: fmt.Errorf("it is bound to %s, not to %s", is, driver)}
	}
	return nil
}

// unbindUser unbinds a VF from a driver for programs. While a program has it open the kernel would wait for that in the file unbind, without
// end and without being interrupted (drivers/vfio/vfio_main.c, vfio_unregister_group_dev, Linux 6.12). So it is not asked to: then the error
// matches ErrAway, and also if it waits all the same, for a program that was faster. Such a wait goes on, and is not begun again.
func (h *binder) unbindUser(ctx context.Context, vf VF) error {
	inUse := &Error{Dev: vf.String(), Op: "unbind from " + vf.Driver, Err: Because(ErrAway, "a program has it open")}
	if open, err := h.OpenByProgram(vf); err != nil || open {
		return cmp.Or(err, error(inUse))
	}
	if _, waits := h.unbinding.LoadOrStore(vf.PCI, true); waits {
		return inUse
	}
	done := make(chan error, 1)
	go func() {
		err := h.unbind(vf)
		h.unbinding.Delete(vf.PCI)
		done <- err
	}()
	timer := time.NewTimer(unbindBound)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
	case <-ctx.Done():
	}
	return inUse
}

// OpenByProgram reports whether a program has a VF open that is bound to a driver for programs, which enables it meanwhile
// (drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_enable and vfio_pci_core_disable, Linux 6.12).
func (h *binder) OpenByProgram(vf VF) (bool, error) {
	n, known, err := h.sys.number(pciDir(vf.PCI) + "/enable")
	return known && n > 0, err
}

// BindUserVF binds a VF that is free to a driver for programs. One that is bound to it stays as it is, and so does its file in /dev.
func (h *binder) BindUserVF(ctx context.Context, vf VF, driver string) error {
	if vf.Driver == driver {
		return nil
	}
	return h.bindUser(ctx, vf, driver)
}

// CheckUserDriver refuses a driver for programs that is not loaded, and a PF that no IOMMU keeps apart from the rest of the machine: a program
// could have the VF read and write all memory. What there is without an IOMMU (vfio's enable_unsafe_noiommu_mode) is accepted only with force.
// The error of a PF without an IOMMU matches ErrUnsupported.
func (h *binder) CheckUserDriver(pf PF, driver string, force bool) error {
	if !h.sys.exists("bus/pci/drivers/" + driver) {
		return fmt.Errorf("driver %s is not loaded; load it on the host: modprobe %s", driver, driver)
	}
	group, err := h.sys.link(pciDir(pf.PCI()) + "/iommu_group")
	if group != "" || err != nil {
		return err
	}
	unsafe, _, err := h.sys.text("module/vfio/parameters/enable_unsafe_noiommu_mode")
	switch {
	case err != nil:
		return err
	case unsafe != "Y":
		return &Error{Dev: pf.String(), Err: Because(ErrUnsupported, "the machine has no iommu, or that is off, and %s needs one; switch it on in the "+
			"firmware (VT-d or AMD-Vi), and for an Intel CPU with intel_iommu=on on the kernel's command line", driver)}
	case !force:
		return &Error{Dev: pf.String(), Err: Because(ErrUnsupported, "there is no iommu, and vfio is in its unsafe mode: a program that has a vf can have "+
			"it read and write all memory of the machine; if that is meant, say force=yes")}
	}
	return nil
}

// sharesGroup are drivers of other functions in the IOMMU group of one that a program has: they have the functions do no DMA
// (driver_managed_dma in drivers/pci/pci-stub.c and drivers/pci/pcie/portdrv.c, Linux 6.12).
var sharesGroup = map[string]bool{"": true, "pci-stub": true, "pcieport": true}

// NotIsolated says, in words that follow its name, why a VF cannot be given to a program alone: its IOMMU group has other functions with
// drivers, and vfio opens a group once, and as a whole (drivers/iommu/iommu.c, iommu_group_claim_dma_owner, Linux 6.12). It is "" for a VF that can.
func (h *binder) NotIsolated(vf VF) (string, error) {
	group, err := h.sys.link(pciDir(vf.PCI) + "/iommu_group")
	if group == "" || err != nil {
		return "", err
	}
	members, err := h.sys.list("kernel/iommu_groups/" + group + "/devices")
	if err != nil {
		return "", err
	}
	var others []string
	for _, pci := range members {
		driver, err := h.driverOf(pci)
		if err != nil {
			return "", err
		}
		if pci != vf.PCI && !sharesGroup[driver] {
			others = append(others, fmt.Sprintf("%s (%s)", pci, driver))
		}
	}
	if len(others) == 0 {
		return "", nil
	}
	return fmt.Sprintf("is in iommu group %s with %s, and a group is given to one program as a whole; unbind those, or use a slot whose functions "+
		"are isolated (ACS)", group, strings.Join(others, ", ")), nil
}

// IOMMUGroup returns the name that the group of a device which is bound to vfio-pci has in /dev/vfio; "" if it is in none.
func (h *binder) IOMMUGroup(id ID) (string, error) {
	nodes, err := devnode.Of(h.sys.FS, id.PCI())
	if len(nodes.VFIO) == 0 || err != nil {
		return "", err
	}
	return path.Base(nodes.VFIO[0]), nil
}

// overrideText returns what to write to get a driver_override: a lone newline clears it (drivers/base/driver.c,
// driver_set_override).
func overrideText(driver string) string { return driver + "\n" }

// awaitNetdev waits for a bound VF's netdev and for its final name. The netdev appears as ethN and udev renames it a
// moment later; a name that is read in between is useless. If the PF still has a name of the kernel, there is no udev
// that renames, and awaitNetdev does not wait for it. A VF that has its netdev already was read just now.
func (h *binder) awaitNetdev(ctx context.Context, pf PF, vf VF) (n Netdev, err error) {
	if n = vf.Netdev; n.Index == 0 {
		err = wait(ctx, probeBound, func() (ok bool, err error) {
			n, ok, err = h.tryFind(vf.ID(), n)
			return ok, err
		})
	}
	if err != nil || h.naming(pf.Name) == byKernel {
		return n, faultIfTimedOut(err)
	}
	return h.awaitName(ctx, vf.ID(), n)
}
