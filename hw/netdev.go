package hw

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ID names a device for as long as it is plugged in, whatever it is called and wherever it is: the PCI address
// ("0000:03:10.2", with "/1" for the second port of a function with several), or for a device without one the ifindex
// and hardware address that it had when it was first looked at ("link-7-02:42:ac:11:00:02").
type ID string

// IsPCI tells whether the device is a PCI function.
func (id ID) IsPCI() bool { return !strings.HasPrefix(string(id), "link-") }

// PCI returns the PCI address, "" for a device that has none.
func (id ID) PCI() string {
	if !id.IsPCI() {
		return ""
	}
	pci, _, _ := strings.Cut(string(id), "/")
	return pci
}

// mark is the alias (IFLA_IFALIAS) by which a device without a PCI address is found again while it is lent: its name,
// ifindex and MAC may all change in a container, while the alias stays with it across namespaces (Linux 6.18).
func (id ID) mark() string { return "lent by passthrough: " + string(id) }

// Netdev is a network device that is in the host's namespace.
type Netdev struct {
	ID     ID
	Driver string // of the PCI function; "" without one
	Link
}

// immovable are the kinds of link that the kernel does not let change namespace (netns_immutable, formerly
// NETIF_F_NETNS_LOCAL): moving one is EINVAL.
var immovable = []string{"bond", "bridge", "team", "vrf", "openvswitch", "batadv"}

// Movable says why the device can never be moved into another namespace, with what to do instead; nil if it can.
func (n Netdev) Movable() error {
	if n.Type == "loopback" || slices.Contains(immovable, n.Kind) {
		kind := n.Kind
		if kind == "" {
			kind = n.Type
		}
		return &Error{Dev: n.Name, Err: fmt.Errorf("a %s cannot leave its network namespace: %w", kind, ErrUnsupported)}
	}
	return nil
}

// Netdev returns the device that ref names: a name, an alternative name or a PCI address. The error matches ErrNotFound
// when there is none, ErrAway when the PCI function has none in the host's namespace, ErrInvalid when it has several.
func (h *Host) Netdev(ref string) (Netdev, error) {
	if pci, ok := parsePCI(ref); ok {
		return h.netdevAt(pci)
	}
	links, err := h.kernel.Links()
	if err != nil {
		return Netdev{}, &Error{Op: "list links", Err: err}
	}
	for _, l := range links {
		if l.Name == ref || slices.Contains(l.AltNames, ref) {
			return h.describe(l)
		}
	}
	return Netdev{}, &Error{Dev: ref, Err: ErrNotFound}
}

// netdevAt returns the one netdev of a PCI function.
func (h *Host) netdevAt(pci string) (Netdev, error) {
	names, err := h.netdevsOf(pci)
	switch {
	case err != nil:
		return Netdev{}, &Error{Dev: pci, Err: err}
	case !h.sys.exists(pciDir(pci)):
		return Netdev{}, &Error{Dev: pci, Err: ErrNotFound}
	case len(names) == 0:
		return Netdev{}, &Error{Dev: pci, Err: fmt.Errorf("it has no netdev in the host: %w", ErrAway)}
	case len(names) > 1:
		return Netdev{}, &Error{Dev: pci, Err: fmt.Errorf("it has several netdevs (%s): %w; name one of them",
			strings.Join(names, ", "), ErrInvalid)}
	}
	return h.Netdev(names[0])
}

// describe adds to a link what sysfs knows.
func (h *Host) describe(l Link) (Netdev, error) {
	pci, err := h.pciOf(l.Name)
	if err != nil {
		return Netdev{}, &Error{Dev: l.Name, Err: err}
	}
	if pci == "" {
		mac := l.PermMAC
		if mac == "" {
			mac = l.MAC
		}
		return Netdev{ID: ID(fmt.Sprintf("link-%d-%s", l.Index, mac)), Link: l}, nil
	}
	n := Netdev{ID: ID(pci), Link: l}
	if n.Driver, err = h.driverOf(pci); err != nil {
		return Netdev{}, &Error{Dev: l.Name, Err: err}
	}
	port, ok, err := h.sys.number("class/net/" + l.Name + "/dev_port")
	if err != nil {
		return Netdev{}, &Error{Dev: l.Name, Err: err}
	}
	if ok && port > 0 {
		n.ID = ID(pci + "/" + strconv.Itoa(port))
	}
	return n, nil
}

// Find returns the device wherever it is called now. The error matches ErrAway when it exists but is not in the host's
// namespace or has no netdev yet, and ErrNotFound when it is gone. For a device without a PCI address away and gone
// cannot be told apart: both are ErrAway.
func (h *Host) Find(id ID) (Netdev, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return Netdev{}, &Error{Dev: string(id), Op: "list links", Err: err}
	}
	if !id.IsPCI() {
		return h.findMarked(id, links)
	}
	if !h.sys.exists(pciDir(id.PCI())) {
		return Netdev{}, &Error{Dev: string(id), Err: ErrNotFound}
	}
	names, err := h.netdevsOf(id.PCI())
	if err != nil {
		return Netdev{}, &Error{Dev: string(id), Err: err}
	}
	for _, l := range links {
		if !slices.Contains(names, l.Name) {
			continue
		}
		n, err := h.describe(l)
		if err != nil {
			return Netdev{}, err
		}
		if n.ID == id {
			return n, nil
		}
	}
	return Netdev{}, &Error{Dev: string(id), Err: ErrAway}
}

// findMarked finds a device without a PCI address: by its mark while it is lent, otherwise as it was first seen.
func (h *Host) findMarked(id ID, links []Link) (Netdev, error) {
	for _, l := range links {
		if l.Alias == id.mark() {
			return Netdev{ID: id, Link: l}, nil
		}
	}
	for _, l := range links {
		n, err := h.describe(l)
		if err != nil {
			return Netdev{}, err
		}
		if n.ID == id {
			return n, nil
		}
	}
	return Netdev{}, &Error{Dev: string(id), Err: ErrAway}
}
