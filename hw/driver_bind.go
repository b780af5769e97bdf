package hw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
		err = faultIfTimedOut(wait(ctx, probeBound, func() (bool, error) {
			d, err := h.driverOf(vf.PCI)
			return d != "", err
		}))
	}
	if driver == "" {
		return err
	}
	return errors.Join(err, h.kernel.WriteAttr(pciDir(vf.PCI)+"/driver_override", overrideText(vf.Override)))
}

// overrideText returns what to write to get a driver_override: a lone newline clears it (drivers/base/driver.c,
// driver_set_override).
func overrideText(driver string) string { return driver + "\n" }

// awaitNetdev waits for a bound VF's netdev and for its final name. The netdev appears as ethN and udev renames it a
// moment later; a name that is read in between is useless. If the PF still has a name of the kernel, there is no udev
// that renames, and awaitNetdev does not wait for it.
func (h *binder) awaitNetdev(ctx context.Context, pf PF, vf VF) (Netdev, error) {
	var n Netdev
	err := wait(ctx, probeBound, func() (ok bool, err error) {
		n, ok, err = h.tryFind(vf.ID(), n)
		return ok, err
	})
	if err != nil || h.naming(pf.Name) == byKernel {
		return n, faultIfTimedOut(err)
	}
	return h.awaitName(ctx, vf.ID(), n)
}
