package hw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"syscall"
)

// PF is an SR-IOV physical function: a netdev that can have VFs.
type PF struct {
	Netdev
	TotalVFs int // sriov_totalvfs: how many VFs the driver can create
	NumVFs   int // sriov_numvfs: how many there are
	Node     int // numa_node: its NUMA node; -1 for none
}

// PCI returns the PF's PCI address.
func (p PF) PCI() string { return p.ID.PCI() }

// String returns the PF's name in messages: its netdev and PCI address.
func (p PF) String() string { return fmt.Sprintf("%s (%s)", p.Name, p.PCI()) }

// PF returns the physical function that ref names, a netdev name or PCI address. The error matches ErrNotFound if there
// is no such device and ErrUnsupported if it cannot have VFs.
func (h *pfs) PF(ref string) (PF, error) {
	n, err := h.Netdev(ref)
	if err != nil {
		return PF{}, err
	}
	pf := PF{Netdev: n}
	if !n.ID.IsPCI() {
		if err := h.derivedError(n.Name, func(d Derived) bool { return d.Netdev.Index == n.Index }); err != nil {
			return PF{}, err
		}
		return PF{}, &Error{Dev: n.Name, Err: Because(ErrUnsupported, "it is not a PCI device, so it has no vfs; use another mode, such as passthrough")}
	}
	if h.sys.exists(pciDir(pf.PCI()) + "/physfn") {
		return PF{}, &Error{Dev: n.Name, Err: Because(ErrUnsupported, "it is a vf itself; name its pf")}
	}
	if port, err := h.switchPort(n.Name); err != nil || port.IsRepresentor() {
		return PF{}, &Error{Dev: n.Name, Err: cmp.Or(err, Because(ErrUnsupported, "it is a port of the nic's switch, which leads to a %s; name the pf", port.Kind))}
	}
	total, ok, err := h.sys.number(pciDir(pf.PCI()) + "/sriov_totalvfs")
	if err != nil {
		return PF{}, &Error{Dev: n.Name, Err: err}
	}
	if !ok || total == 0 {
		return PF{}, &Error{Dev: pf.String(), Err: Because(ErrUnsupported,
			"sr-iov is off or missing (no sriov_totalvfs); switch it on in the firmware of the nic and of the machine")}
	}
	pf.TotalVFs = total
	if pf.NumVFs, _, err = h.sys.number(pciDir(pf.PCI()) + "/sriov_numvfs"); err != nil {
		return PF{}, &Error{Dev: n.Name, Err: err}
	}
	node, ok, err := h.sys.number(pciDir(pf.PCI()) + "/numa_node")
	if err != nil {
		return PF{}, &Error{Dev: n.Name, Err: err}
	}
	if pf.Node = node; !ok { // a kernel without CONFIG_NUMA
		pf.Node = -1
	}
	return pf, nil
}

// HealthReporters returns what a PF's driver reports of its health; nil if it reports nothing.
func (h *pfs) HealthReporters(pf PF) ([]HealthReporter, error) {
	all, err := h.kernel.HealthReporters(pf.PCI())
	if err != nil {
		return nil, &Error{Dev: pf.String(), Op: "read its health", Err: err}
	}
	return all, nil
}

// UsablePF is PF for attaching VFs. It refuses (ErrUnsupported) a function with several ports.
func (h *pfs) UsablePF(ref string) (PF, error) {
	pf, err := h.PF(ref)
	if err == nil {
		err = h.checkOnePort(pf)
	}
	if err != nil {
		return PF{}, err
	}
	return pf, nil
}

// checkOnePort refuses a function with several ports, as a ConnectX-3 (mlx4) is: which of them its VFs use is not told.
func (h *pfs) checkOnePort(pf PF) error {
	links, err := h.linksOf(pf.PCI())
	if err != nil && !errors.Is(err, errRenamed) {
		return err
	}
	all, err := h.netdevsAt(pf.PCI(), links)
	if err != nil {
		return nil // a name changes just now: another port has been there before
	}
	for _, n := range all {
		if n.ID != pf.ID {
			return &Error{Dev: pf.String(), Err: Because(ErrUnsupported, "%s is another port of the same pci function, and its vfs may be of either; "+
				"hand over a whole port or vf with mode=passthrough", n.Name)}
		}
	}
	return nil
}

// PFSnapshot is the state of a PF before EnableVFs, for DisableVFs to restore.
type PFSnapshot struct {
	Up        bool   // administratively up
	Autoprobe string // sriov_drivers_autoprobe: "0" or "1", "" where the kernel has none
}

// SnapshotPF reads the present state of a PF.
func (h *vfCount) SnapshotPF(pf PF) (PFSnapshot, error) {
	auto, _, err := h.sys.text(pciDir(pf.PCI()) + "/sriov_drivers_autoprobe")
	if err != nil {
		return PFSnapshot{}, &Error{Dev: pf.String(), Err: err}
	}
	return PFSnapshot{Up: pf.Up, Autoprobe: auto}, nil
}

// EnableVFs creates n VFs on a PF that has none. The PF is brought up and given time to get carrier first: with the PF
// down igb's VFs get random MACs and do not work (Linux 6.12). If the VFs' driver is known, they stay unbound, to be
// bound one by one when they are attached: 64 VFs must not cost 64 driver probes. Every VF without a MAC gets its
// stable one. Repeated after a crash, it completes what is missing.
func (h *vfCount) EnableVFs(ctx context.Context, pf PF, n int) error {
	if err := h.raisePF(ctx, pf); err != nil {
		return err
	}
	if vfDrivers[pf.Driver] != "" && h.sys.exists(pciDir(pf.PCI())+"/sriov_drivers_autoprobe") {
		if err := h.writePF(pf, "sriov_drivers_autoprobe", "0"); err != nil {
			return err
		}
	}
	if pf.NumVFs != n {
		before, err := h.Find(pf.ID)
		if err != nil {
			return err
		}
		if err := h.writePF(pf, "sriov_numvfs", strconv.Itoa(n)); err != nil {
			return err
		}
		if before.Carrier { // igb drops it for a moment (Linux 6.12); the VFs exist even if the caller stops waiting
			if err := h.awaitCarrier(ctx, pf); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
	vfs, err := h.VFs(pf)
	if err != nil {
		return err
	}
	states, err := h.awaitReports(ctx, pf, vfs)
	if err != nil {
		return err
	}
	var errs []error
	for _, vf := range vfs {
		if pf.Resetting(vf, states) { // for longer than a reset takes
			errs = append(errs, &Error{Dev: vf.String(), Op: "read", Err: pf.notReported()})
			continue
		}
		now, err := h.listedState(pf, vf, states)
		if err == nil {
			err = errors.Join(h.assignMAC(ctx, pf, vf, now), h.assignGUID(pf, vf, now))
		} else {
			err = &Error{Dev: vf.String(), Op: "read", Err: err}
		}
		errs = append(errs, err)
		if errors.Is(err, ErrBusy) { // the caller tries again: hundreds of VFs must not be waited for one by one
			break
		}
	}
	return errors.Join(errs...)
}

// assignMAC sets the stable MAC of a VF, unless it has one. A driver without VF operations makes up its own.
func (h *vfCount) assignMAC(ctx context.Context, pf PF, vf VF, now VFState) error {
	mac := StableMAC(pf, vf.Index)
	if now.MAC != "" || mac == "" {
		return nil
	}
	err := h.vfApplier(ctx, pf, vf).set(VFMAC, VFState{MAC: mac})
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return &Error{Dev: vf.String(), Op: "set mac " + string(mac), Err: err}
	}
	return nil
}

// raisePF brings a PF up and waits for carrier. A PF without carrier (no cable) is not an error: its VFs can still talk
// to each other.
func (h *vfLifecycle) raisePF(ctx context.Context, pf PF) error {
	if !pf.Up {
		if err := h.open(ctx, pf.Netdev); err != nil {
			return err
		}
	}
	return h.awaitCarrier(ctx, pf)
}

// awaitCarrier waits until a PF has carrier, or for as long as one with a cable can take.
func (h *vfLifecycle) awaitCarrier(ctx context.Context, pf PF) error {
	err := wait(ctx, pfCarrierBound, func() (bool, error) {
		n, err := h.Find(pf.ID)
		return n.Carrier, err
	})
	if timedOut(err) {
		return nil
	}
	return err
}

// DisableVFs removes all VFs of a PF and restores its state before EnableVFs. It refuses (ErrBusy) while a VF is in
// use, see Taken: the kernel would remove it all the same. A PF that was down, and that the host has begun to use
// since, stays up.
func (h *vfCount) DisableVFs(pf PF, was PFSnapshot) error {
	if err := h.checkVFsFree(pf); err != nil {
		return err
	}
	down := !was.Up && pf.Up
	if down {
		used, err := h.UsedByHost(pf.Netdev)
		if err != nil {
			return err
		}
		down = used == ""
	}
	var errs []error
	if pf.NumVFs > 0 {
		errs = append(errs, h.writePF(pf, "sriov_numvfs", "0"))
	}
	if was.Autoprobe != "" {
		errs = append(errs, h.writePF(pf, "sriov_drivers_autoprobe", was.Autoprobe))
	}
	if down {
		errs = append(errs, h.setUp(pf.Netdev, false))
	}
	return errors.Join(errs...)
}

// writePF writes an attribute of the PF and explains an error of the kernel.
func (h *vfCount) writePF(pf PF, attribute, value string) error {
	err := h.kernel.WriteAttr(pciDir(pf.PCI())+"/"+attribute, value)
	if err == nil {
		return nil
	}
	why := ""
	switch {
	case strings.Contains(attribute, "numvfs") && errors.Is(err, syscall.EBUSY):
		why = "; the count can only change through 0: remove the vfs first"
	case strings.Contains(attribute, "numvfs") && errors.Is(err, syscall.ENOSPC):
		why = "; the machine has no room for so many: not enough PCI bus numbers, memory or interrupts; ask for fewer (numvfs)"
	case strings.Contains(attribute, "numvfs") && errors.Is(err, syscall.EIO):
		why = "; the nic's firmware refuses so many, or is not set up for sr-iov; the kernel log (dmesg) says more"
	case strings.Contains(attribute, "numvfs"):
		why = "; the kernel log (dmesg) says why the driver refused"
	}
	return &Error{Dev: pf.String(), Op: fmt.Sprintf("write %s to %s", value, attribute), Err: fmt.Errorf("%w%s", err, why)}
}

// vendorDevice is a PCI ID as lspci -nn prints it. A PCI address has a dot as well, so the two cannot be confused.
var vendorDevice = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{4}$`)

// driverPrefix introduces the name of a PF's driver.
const driverPrefix = "driver:"

// PFs returns the PFs that ref selects: the one with that name, alternative name or PCI address, or all with a PCI ID
// ("8086:10c9"), a driver ("driver:igb") or a name that matches a pattern ("ens1f*", see path.Match). The error matches
// ErrNotFound if no device matches, ErrInvalid if the pattern is malformed; if none of the devices can have VFs it says
// why, see UsablePF. Matching devices that are not PFs are skipped.
func (h *pfs) PFs(ref string) ([]PF, error) {
	lower := strings.ToLower(ref)
	switch {
	case vendorDevice.MatchString(lower):
		return h.usable(ref, h.functions(func(pci string) (bool, error) { return h.hasPCIID(pci, lower) }))
	case strings.HasPrefix(lower, driverPrefix):
		name := ref[len(driverPrefix):]
		return h.usable(ref, h.functions(func(pci string) (bool, error) {
			d, err := h.driverOf(pci)
			return d == name, err
		}))
	case strings.ContainsAny(ref, "*?["):
		return h.usable(ref, h.named(ref))
	}
	pf, err := h.UsablePF(ref)
	if err != nil {
		return nil, err
	}
	return []PF{pf}, nil
}

// A selection lists matching devices by names or PCI addresses.
type selection func() ([]string, error)

// usable returns the PFs of a selection.
func (h *pfs) usable(ref string, list selection) ([]PF, error) {
	fits, err := list()
	if err != nil {
		return nil, &Error{Dev: ref, Err: err}
	}
	if len(fits) == 0 {
		return nil, &Error{Dev: ref, Err: Because(ErrNotFound, "nothing on this machine fits it")}
	}
	var pfs []PF
	var why error
	for _, f := range fits {
		pf, err := h.UsablePF(f)
		switch {
		case err == nil:
			pfs = append(pfs, pf)
		case errors.Is(err, ErrUnsupported) || errors.Is(err, ErrAway) || errors.Is(err, ErrNotFound):
			why = err
		default:
			return nil, err
		}
	}
	if len(pfs) == 0 {
		return nil, &Error{Dev: ref, Err: why}
	}
	return pfs, nil
}

// functions selects network functions on the PCI bus (class 02xxxx) that can have VFs.
func (h *pfs) functions(fits func(pci string) (bool, error)) selection {
	return func() ([]string, error) {
		all, err := h.sys.list("bus/pci/devices")
		if err != nil {
			return nil, err
		}
		var found []string
		for _, pci := range all {
			class, _, err := h.sys.text(pciDir(pci) + "/class")
			if err != nil {
				return nil, err
			}
			if !strings.HasPrefix(class, "0x02") || !h.sys.exists(pciDir(pci)+"/sriov_totalvfs") {
				continue
			}
			if ok, err := fits(pci); err != nil {
				return nil, err
			} else if ok {
				found = append(found, pci)
			}
		}
		return found, nil
	}
}

// hasPCIID returns true if a function has the ID "vendor:device".
func (h *pfs) hasPCIID(pci, id string) (bool, error) {
	vendor, _, err := h.sys.text(pciDir(pci) + "/vendor")
	if err != nil {
		return false, err
	}
	device, _, err := h.sys.text(pciDir(pci) + "/device")
	return strings.TrimPrefix(vendor, "0x")+":"+strings.TrimPrefix(device, "0x") == id, err
}

// named selects links in the host whose names match a pattern.
func (h *pfs) named(pattern string) selection {
	return func() ([]string, error) {
		links, err := h.kernel.Links()
		if err != nil {
			return nil, err
		}
		var found []string
		for _, l := range links {
			ok, err := path.Match(pattern, l.Name)
			if err != nil {
				return nil, Because(ErrInvalid, "not a pattern of names")
			}
			if ok {
				found = append(found, l.Name)
			}
		}
		return found, nil
	}
}

// NIC is a netdev of a PCI function that is no VF.
type NIC struct {
	Netdev
	Vendor   string // PCI vendor ID, four hexadecimal digits
	Device   string // PCI device ID
	Speed    int    // of its link in Mbit/s; 0 while that is not known
	Node     int    // its NUMA node, -1 for none
	TotalVFs int    // how many VFs it can have
	NumVFs   int    // how many it has
	NoVFs    error  // why it can have none, nil if it can; it matches ErrUnsupported
}

// NICs lists the NICs in the host's network namespace by their PCI addresses.
func (h *pfs) NICs() ([]NIC, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return nil, &Error{Dev: "nics", Op: "list links", Err: err}
	}
	var nics []NIC
	for _, l := range links {
		n, err := h.describe(l)
		if errors.Is(err, ErrNotFound) || errors.Is(err, errRenamed) {
			continue // it has just gone, or changes
		}
		if err != nil {
			return nil, err
		}
		if !n.ID.IsPCI() || h.sys.exists(pciDir(n.ID.PCI())+"/physfn") {
			continue
		}
		if port, err := h.switchPort(n.Name); err != nil || port.IsRepresentor() {
			continue // it is part of another, or has just gone
		}
		nic, err := h.nic(n)
		if err != nil {
			return nil, err
		}
		nics = append(nics, nic)
	}
	sort.Slice(nics, func(i, j int) bool {
		a, b := &nics[i], &nics[j]
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Name, b.Name)) < 0
	})
	return nics, nil
}

// nic reads one NIC.
func (h *pfs) nic(n Netdev) (NIC, error) {
	nic := NIC{Netdev: n, Node: -1}
	dir := pciDir(n.ID.PCI())
	for file, id := range map[string]*string{"/vendor": &nic.Vendor, "/device": &nic.Device} {
		text, _, err := h.sys.text(dir + file)
		if err != nil {
			return nic, &Error{Dev: n.Name, Err: err}
		}
		*id = strings.TrimPrefix(text, "0x")
	}
	// The kernel answers -1 or EINVAL while there is no link (net/core/net-sysfs.c, Linux 6.12).
	if speed, ok, err := h.sys.number("class/net/" + n.Name + "/speed"); err == nil && ok && speed > 0 {
		nic.Speed = speed
	}
	if node, ok, err := h.sys.number(dir + "/numa_node"); err == nil && ok {
		nic.Node = node
	}
	pf, err := h.PF(n.Name)
	switch {
	case err == nil:
		nic.TotalVFs, nic.NumVFs = pf.TotalVFs, pf.NumVFs
	case errors.Is(err, ErrUnsupported):
		nic.NoVFs = err
	case errors.Is(err, ErrNotFound), errors.Is(err, errRenamed): // it has just gone
	default:
		return nic, err
	}
	return nic, nil
}
