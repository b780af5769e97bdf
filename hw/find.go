package hw

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"syscall"
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
