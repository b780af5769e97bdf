package hw

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw/eswitch"
)

// Find returns the device, whatever its name is now. The error matches ErrAway if it exists but is not in the host's
// namespace or has no netdev yet, and ErrNotFound if it is gone. For a device without a PCI address the two cannot be
// distinguished: both are ErrAway.
//
// It lists all links only for a device that is not at its last known place: while hundreds of containers start, a
// listing is interrupted by links that come and go, and has to be repeated.
func (h *finder) Find(id ID) (Netdev, error) {
	if id.IsPCI() {
		return retryRenamed(string(id), func() (Netdev, error) { return h.findFunction(id) })
	}
	if n, ok := h.findDirect(id); ok {
		return n, nil
	}
	return h.look(string(id), func(links []Link) (Netdev, error) { return h.findMarked(id, links) })
}

// findFunction finds a PCI function's netdev by the names in sysfs. Of several with the same ID it returns the oldest,
// a NIC's own port before those of its switch. The error matches errRenamed if a name changed hands.
func (h *finder) findFunction(id ID) (Netdev, error) {
	if err := h.checkPresent(id.PCI()); err != nil {
		return Netdev{}, &Error{Dev: string(id), Err: err}
	}
	names, err := h.netdevsOf(id.PCI())
	if err != nil {
		return Netdev{}, err
	}
	var oldest Netdev
	for _, name := range names {
		l, err := h.kernel.LinkNamed(name)
		if errors.Is(err, ErrNotFound) {
			return Netdev{}, errRenamed
		}
		if err != nil {
			return Netdev{}, &Error{Dev: name, Op: "read link", Err: err}
		}
		switch n, err := h.describe(l); {
		case err != nil:
			return Netdev{}, err
		case n.ID.PCI() != id.PCI():
			return Netdev{}, errRenamed
		case n.ID == id && (oldest.Index == 0 || n.Index < oldest.Index):
			oldest = n
		}
	}
	if oldest.Index == 0 {
		return Netdev{}, &Error{Dev: string(id), Err: h.whyAway(id.PCI())}
	}
	return oldest, nil
}

// whyAway returns why a PCI function that is plugged in has no netdev in the host, as far as that is known. The error matches
// ErrAway, or says why it is not known.
func (h *finder) whyAway(pci string) error {
	driver, err := h.driverOf(pci)
	switch {
	case err != nil:
		return err
	case driver == "":
		return Because(ErrAway, "it has no driver, and thus no netdev; load the driver, or bind it: echo %s >/sys/bus/pci/drivers_probe", pci)
	case isUserDriver(driver):
		return Because(ErrAway, "it is bound to %s, and thus has no netdev", driver)
	}
	created, err := h.hasNetdev(pci)
	if err == nil && !created {
		return Because(ErrAway, "its driver %s has created no netdev for it", driver)
	}
	return cmp.Or(err, ErrAway)
}

// findDirect finds a device without a PCI address if it still has its first ifindex or the name it was created with,
// and no other device can be meant.
func (h *finder) findDirect(id ID) (n Netdev, ok bool) {
	if id.isMade() {
		if parent, vlan := id.vlanOn(); vlan != 0 {
			return h.findVLANDirect(id, parent, vlan)
		}
		l, err := h.kernel.LinkNamed(id.keptName())
		return Netdev{ID: id, Link: l}, err == nil && l.Alias == id.aliasMark() && id.mayBe(l)
	}
	l, err := h.kernel.LinkAt(id.index())
	if err != nil {
		return Netdev{}, false
	}
	n, err = h.describe(l)
	if err == nil && l.Alias == id.aliasMark() && !n.ID.IsPCI() {
		n.ID = id
	}
	return n, err == nil && n.ID == id
}

// findMarked finds a device without a PCI address: by its alias while it is attached, otherwise by its first ifindex
// and address, or by the name that it was created with.
func (h *finder) findMarked(id ID, links []Link) (Netdev, error) {
	for _, l := range links {
		if l.Alias != id.aliasMark() || id.isMade() && !id.mayBe(l) {
			continue
		}
		if n, err := h.describe(l); err != nil || !n.ID.IsPCI() { // a container set that alias on a PCI device
			return Netdev{ID: id, Link: l}, err
		}
	}
	for _, l := range links {
		if id.isMade() && l.Name == id.createdName() && id.mayBe(l) {
			return Netdev{ID: id, Link: l}, nil
		}
		if linkID(l) != id {
			continue
		}
		if n, err := h.describe(l); err != nil || n.ID == id {
			return n, err
		}
	}
	return Netdev{}, &Error{Dev: string(id), Err: Because(ErrAway, "it is not in the host: gone, or in another network namespace")}
}

// mayBe returns true if the plugin creates links such as l with this ID. A container can give its device any alias: no
// other device may be deleted for that.
func (id ID) mayBe(l Link) bool {
	if _, vlan := id.vlanOn(); vlan != 0 || l.Kind == VLANDevice {
		return l.Kind == VLANDevice && l.VLAN == vlan
	}
	return modules[l.Kind] != ""
}

// CheckIdentity refuses a netdev that is not the one that is found by its ID: one of several of a PCI function's port,
// such as the ports of a NIC's switch in switchdev mode, which all belong to the function of the PF
// (drivers/net/ethernet/mellanox/mlx5/core/en_rep.c, Linux 6.12). The error matches ErrUnsupported.
func (h *finder) CheckIdentity(n Netdev) error {
	found, err := h.Find(n.ID)
	if err == nil && found.Index != n.Index {
		err = n.ambiguous([]string{found.Name})
	}
	return err
}

// CheckUnique refuses a netdev if others in the host have the same ID and would be found in its place while it is away.
// The error matches ErrUnsupported.
func (h *finder) CheckUnique(n Netdev) error {
	if !n.ID.IsPCI() {
		return nil
	}
	all, err := retryRenamed(n.Name, func() ([]Netdev, error) {
		links, err := h.kernel.Links()
		if err != nil {
			return nil, &Error{Dev: n.Name, Op: "list links", Err: err}
		}
		return h.netdevsAt(n.ID.PCI(), links)
	})
	var others []string
	for _, o := range all {
		if o.ID == n.ID && o.Index != n.Index {
			others = append(others, o.Name)
		}
	}
	if err == nil && len(others) > 0 {
		err = n.ambiguous(others)
	}
	return err
}

// ambiguous returns the error about a netdev whose ID others have as well.
func (n Netdev) ambiguous(others []string) error {
	return &Error{Dev: n.Name, Err: Because(ErrUnsupported, "cannot be told from %s, on the same pci function; ports of a nic in "+
		"switchdev mode are not lent", strings.Join(others, ", "))}
}

// CarrierUps returns how often a netdev of the host has had carrier since it was created, in whatever namespace (carrier_up_count, since
// Linux 4.16; net/sched/sch_generic.c, netif_carrier_on). known is false if that cannot be read.
func (h *finder) CarrierUps(n Netdev) (ups int, known bool) {
	ups, known, err := h.sys.number("class/net/" + n.Name + "/carrier_up_count")
	return ups, known && err == nil
}

// A Namespace identifies a network namespace by its file (nsfs), such as /run/netns/NAME or /proc/PID/ns/net. The kernel gives the inode of
// one that has ended to a later one: the same file may be another namespace, while another file always is.
type Namespace struct{ Device, Inode uint64 }

// NamespaceAt returns the namespace whose file is at a path. The error matches ErrNotFound if there is none.
func NamespaceAt(path string) (Namespace, error) {
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Namespace{}, fmt.Errorf("network namespace %s: %w", path, ErrNotFound)
	case err != nil:
		return Namespace{}, fmt.Errorf("network namespace %w", err)
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return Namespace{}, fmt.Errorf("network namespace %s: %w", path, ErrUnsupported)
	}
	return Namespace{uint64(st.Dev), st.Ino}, nil
}

// ChildElsewhere returns true if a child that the plugin has created on a parent may be in another namespace: one that the parent's
// namespace knows has it, or has a child of the parent whose alias its container has changed.
func (h *netdevs) ChildElsewhere(id, parent ID) (bool, error) {
	n, err := h.Find(parent)
	if err != nil {
		return false, err
	}
	children, err := h.childrenElsewhere(n)
	return slices.ContainsFunc(children, func(c ForeignLink) bool {
		return c.Alias == id.aliasMark() || !strings.HasPrefix(c.Alias, ID("").aliasMark())
	}), err
}

// Switchdev returns true if the eswitch of a PF is in switchdev mode: its VFs are ports of a switch on the host, see [finder.Representors].
//
// Such a PF has a phys_switch_id, but so do all of mlx5 and ice in legacy mode (mlx5/core/en/devlink.c,
// mlx5e_devlink_port_register; ice/devlink/devlink_port.c, ice_devlink_create_pf_port; Linux 6.12).
func (h *finder) Switchdev(pf PF) (bool, error) {
	id, err := h.switchID(pf.Name)
	if err != nil || id == "" {
		return false, err
	}
	on, err := h.kernel.Switchdev(pf.PCI())
	if err != nil {
		return false, &Error{Dev: pf.String(), Op: "read the mode of its eswitch", Err: err}
	}
	return on, nil
}

// switchID returns the phys_switch_id of a netdev, "" for one that is no port of a switch: reading it is EOPNOTSUPP then.
func (h *finder) switchID(name string) (string, error) {
	id, _, err := h.sys.text("class/net/" + name + "/phys_switch_id")
	if errors.Is(err, syscall.EOPNOTSUPP) || goingAway(err) {
		return "", nil
	}
	return id, err
}

// switchPort returns which port of its NIC's switch a netdev is, the zero value for none: a driver that names no ports answers EOPNOTSUPP, and
// a netdev that has gone EINVAL or ENODEV.
func (h *finder) switchPort(name string) (eswitch.Port, error) {
	text, _, err := h.sys.text("class/net/" + name + "/phys_port_name")
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP), goingAway(err), err == nil && text == "":
		return eswitch.Port{}, nil
	case err != nil:
		return eswitch.Port{}, err
	}
	if id, err := h.switchID(name); err != nil || id == "" { // the driver means something else
		return eswitch.Port{}, err
	}
	port, _ := eswitch.Parse(text)
	return port, nil
}

// Representors returns the netdevs of the host that are the ports of a PF's switch which lead to its VFs, by the index of the VF; none if its
// eswitch is not in switchdev mode.
//
// They have the phys_switch_id of the PF, as has the other port of a NIC whose driver gives both one switch. So the netdev's parent decides,
// where the driver gives it one, and the number of the PF in phys_port_name otherwise: that is the number of its function
// (mlx5/core/main.h, mlx5_get_dev_index; bnxt_vfr.c, bnxt_vf_rep_get_phys_port_name; Linux 6.12). VFs of other machines are left out.
func (h *finder) Representors(pf PF) (map[int]Netdev, error) {
	on, err := h.Switchdev(pf)
	if err != nil || !on {
		return nil, err
	}
	return retryRenamed(pf.String(), func() (map[int]Netdev, error) {
		links, err := h.kernel.Links()
		if err != nil {
			return nil, &Error{Dev: pf.String(), Op: "list links", Err: err}
		}
		id, err := h.switchID(pf.Name)
		if err != nil {
			return nil, &Error{Dev: pf.String(), Err: err}
		}
		found := map[int]Netdev{}
		for _, l := range links {
			port, err := h.switchPort(l.Name)
			if err != nil || port.Kind != eswitch.VF || port.External || port.Number < 0 || l.Index == pf.Index {
				continue // one that cannot be read is none of a driver that names its ports
			}
			n, err := h.describe(l)
			if err != nil {
				return nil, err
			}
			if other, err := h.switchID(l.Name); err == nil && other == id && n.portOf(pf, port) {
				found[port.Number] = n
			}
		}
		return found, nil
	})
}

// portOf returns true if a netdev with the switch of a PF leads to one of the PF's own VFs.
func (n Netdev) portOf(pf PF, port eswitch.Port) bool {
	if n.ID.IsPCI() {
		return n.ID.PCI() == pf.PCI()
	}
	_, function, _ := strings.Cut(pf.PCI(), ".")
	return port.PF < 0 || strconv.Itoa(port.PF) == function
}

// DerivedKind is a kind of device that a driver makes on a function of a NIC.
type DerivedKind string

// The kinds of derived devices.
const (
	SubFunction DerivedKind = "sub-function" // a part of the NIC with queues of its own, on the auxiliary bus
	VDPADevice  DerivedKind = "vdpa device"  // a virtio device whose queues are the NIC's
)

// Derived is a device that a driver has made on a function of a NIC and that is neither a VF nor a function itself.
type Derived struct {
	Name   string // on its bus: "mlx5_core.sf.4", "vdpa0"
	Kind   DerivedKind
	PCI    string // the function that it is on; "" for none, as of a simulated one
	Number string // that a sub-function was given when it was made (sfnum); "" if its driver does not tell
	Driver string // "" while it is not bound to one
	Netdev Netdev // Index 0 if it has no netdev in the host
}

// subFunction matches the names that drivers give to sub-functions: mlx5_core.sf.4, ice.sf.1 (mlx5/core/sf/dev/dev.c and
// ice/ice_sf_eth.c, below drivers/net/ethernet; Linux 6.12). Other devices of that bus are parts of the function's own driver.
var subFunction = regexp.MustCompile(`^[a-z0-9_]+\.sf\.[0-9]+$`)

// Derived lists the sub-functions of this machine, and then the vDPA devices, each in order of their names.
func (h *finder) Derived() ([]Derived, error) {
	var all []Derived
	for _, bus := range []struct {
		dir  string
		kind DerivedKind
	}{{"bus/auxiliary/devices", SubFunction}, {"bus/vdpa/devices", VDPADevice}} {
		names, err := h.sys.list(bus.dir)
		if err != nil {
			return nil, &Error{Dev: bus.dir, Err: err}
		}
		for _, name := range names {
			if bus.kind == SubFunction && !subFunction.MatchString(name) {
				continue
			}
			d, err := h.derived(bus.dir, name, bus.kind)
			if errors.Is(err, ErrNotFound) || errors.Is(err, errRenamed) {
				continue // it has just gone, or changes
			}
			if err != nil {
				return nil, &Error{Dev: name, Err: err}
			}
			all = append(all, d)
		}
	}
	return all, nil
}

// derived reads one device of a bus. The netdev of a vDPA device that virtio_vdpa drives is below the device, or beside it on the function
// (drivers/virtio/virtio_vdpa.c, virtio_vdpa_probe, Linux 6.12).
func (h *finder) derived(bus, name string, kind DerivedKind) (Derived, error) {
	d := Derived{Name: name, Kind: kind}
	dir := bus + "/" + name
	target, err := h.sys.target(dir)
	if err != nil || target == "" {
		return d, cmp.Or(err, ErrNotFound)
	}
	d.PCI = functionAbove(target)
	if d.Driver, err = h.sys.link(dir + "/driver"); err != nil {
		return d, err
	}
	if d.Number, _, err = h.sys.text(dir + "/sfnum"); err != nil {
		return d, err
	}
	holders := []string{dir}
	if kind == VDPADevice && d.Driver == "virtio_vdpa" {
		holders, err = h.sys.virtioIn(dir, path.Join(bus, path.Dir(target)))
	}
	for _, holder := range holders {
		names, listErr := h.sys.list(holder + "/net")
		if err == nil && len(names) > 0 && d.Netdev.Index == 0 {
			d.Netdev, err = h.linkOf(names[0])
		}
		err = cmp.Or(err, listErr)
	}
	return d, err
}

// functionAbove returns the PCI address of the function that a device is on, by the device's directory; "" for none.
func functionAbove(dir string) string {
	for dir = path.Dir(dir); dir != "." && dir != "/"; dir = path.Dir(dir) {
		if isPCI(path.Base(dir)) {
			return path.Base(dir)
		}
	}
	return ""
}

// vdpaOn returns the names of vDPA devices by the PCI address of what they are on.
func (h *finder) vdpaOn() (map[string]string, error) {
	const bus = "bus/vdpa/devices"
	names, err := h.sys.list(bus)
	on := map[string]string{}
	for _, name := range names {
		target, targetErr := h.sys.target(bus + "/" + name)
		if pci := functionAbove(target); pci != "" {
			on[pci] = name
		}
		err = cmp.Or(err, targetErr)
	}
	return on, err
}

// linkOf describes the link of that name.
func (h *finder) linkOf(name string) (Netdev, error) {
	l, err := h.kernel.LinkNamed(name)
	if err != nil {
		return Netdev{}, err
	}
	return h.describe(l)
}

// What says what a derived device is, and what can be done with it, in words that follow its name.
func (d Derived) What() string {
	is := "it is a " + string(d.Kind)
	if d.PCI != "" {
		is += " of " + d.PCI
	}
	is += ", which has no vfs; "
	switch {
	case d.Netdev.Index != 0:
		return is + "hand over its netdev " + d.Netdev.Name + " with mode=passthrough, or have macvlans on that with mode=macvlan"
	case d.Kind == VDPADevice && d.Driver == "vhost_vdpa":
		return is + "it is bound to vhost_vdpa, for a virtual machine, and has no netdev; use a vf of the nic"
	case d.Kind == VDPADevice:
		return is + "it has no netdev in the host; use a vf of the nic"
	case d.Driver == "":
		return is + "it has no driver, and thus no netdev, until its port is active"
	}
	return is + "it has no netdev in the host: that is in another network namespace, or switched off by a parameter of its driver"
}

// derivedError returns what a derived device is, nil if fits is true for none. The error matches ErrUnsupported.
func (h *finder) derivedError(ref string, fits func(Derived) bool) error {
	all, err := h.Derived()
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(all, fits); i >= 0 {
		return &Error{Dev: ref, Err: Because(ErrUnsupported, "%s", all[i].What())}
	}
	return nil
}
