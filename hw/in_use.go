package hw

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// hostUse knows what the host uses its devices for.
type hostUse struct {
	*finder
	*pfs
	*vfs
	*hostNetwork
}

// userDrivers are drivers that give a VF no netdev: a VF that is bound to one is in use by a program.
var userDrivers = map[string]bool{"igb_uio": true, "uio_pci_generic": true, "pci-stub": true}

// isUserDriver returns true for userDrivers, for vfio-pci, and for its variants for one make of device: mlx5_vfio_pci,
// hisi_acc_vfio_pci, pds_vfio_pci, virtio_vfio_pci (drivers/vfio/pci, Linux 6.12).
func isUserDriver(name string) bool {
	return userDrivers[name] || strings.HasSuffix(strings.ReplaceAll(name, "-", "_"), "vfio_pci")
}

// UserDriver returns true if the VF is, or is going to be, a program's.
func (v VF) UserDriver() bool { return isUserDriver(v.Driver) || isUserDriver(v.Override) }

// Elsewhere returns true if the VF has a netdev, and that is in another namespace.
func (v VF) Elsewhere() bool {
	return v.Driver != "" && v.Netdev.Index == 0 && !v.noNetdev && !v.UserDriver()
}

// InUse returns why the VF must not be attached or removed, in words that follow its name; "" if it is free. A bound VF
// without a netdev is in another namespace: an empty net directory does not mean that a VF is free.
func (v VF) InUse() string {
	switch {
	case isUserDriver(v.Driver):
		return "is bound to " + v.Driver
	case isUserDriver(v.Override):
		return "is kept for " + v.Override
	case v.vdpa != "": // whose netdev may look like the VF's own
		return "has the vdpa device " + v.vdpa
	case v.noNetdev:
		return "is bound to " + v.Driver + ", which has created no netdev for it"
	case v.Elsewhere():
		return "is in another network namespace"
	case v.Netdev.Master != 0:
		return "is a port of another device"
	}
	return ""
}

// Taken returns why a VF in the host is not free to be attached or removed, "" if it is free: beyond InUse, a VF is in
// use if it is up, has an upper link or has addresses. Up suffices, because an upper link may be in another namespace,
// such as a macvlan in a container of another driver.
func (h *vfs) Taken(v VF) (string, error) {
	if why := v.InUse(); why != "" || v.Netdev.Index == 0 {
		return why, nil
	}
	switch {
	case v.Netdev.Up:
		return "is up in the host", nil
	case v.Carries != "":
		return "carries " + v.Carries + " in the host", nil
	}
	addrs, err := h.kernel.Addrs(v.Netdev.Index)
	if errors.Is(err, ErrNotFound) {
		return "has just left the host", nil
	}
	if err != nil {
		return "", &Error{Dev: v.String(), Op: "list addresses", Err: err}
	}
	if len(addrs) > 0 {
		return "has address " + addrs[0].CIDR + " in the host", nil
	}
	return "", nil
}

// takenVF names the first VF of a PF that is not free, see Taken, and why it is not; "" if all are free.
func (h *vfs) takenVF(pf PF) (string, error) {
	vfs, err := h.VFs(pf)
	if err != nil {
		return "", err
	}
	for _, vf := range vfs {
		if why, err := h.Taken(vf); err != nil || why != "" {
			return fmt.Sprintf("%s %s", vf, why), err
		}
	}
	return "", nil
}

// checkVFsFree refuses to remove the VFs of a PF while one of them is in use.
func (h *vfCount) checkVFsFree(pf PF) error {
	taken, err := h.takenVF(pf)
	if err == nil && taken != "" {
		err = &Error{Dev: pf.String(), Op: "remove vfs", Err: fmt.Errorf("%s: %w", taken, ErrBusy)}
	}
	return err
}

// HostUse returns what the host uses a device for, each in words that follow its name; nil if for nothing. The device is
// a port of another or carries others, in whatever namespace that is known, one of its VFs is in use (see Taken), a default route of any table leads through
// it, or a session of the host does. Addresses and other routes are no such use: they come back with the device.
func (h *hostUse) HostUse(n Netdev) ([]string, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list links", Err: err}
	}
	uses := n.neighbours(links)
	more, err := h.carriedUnseen(n, links)
	if err != nil {
		return nil, err
	}
	uses = append(uses, more...)
	for _, look := range []func(n Netdev, links []Link) (string, error){h.carriedElsewhere, h.vfUse, h.defaultRoute, h.session} {
		use, err := look(n, links)
		if err != nil {
			return nil, err
		}
		if use != "" {
			uses = append(uses, use)
		}
	}
	return uses, nil
}

// ReceiverOf says what receives a device's frames so that it can have no children of a kind, Macvlan or IPVlan, in words
// that follow its name; "" if nothing does. A device has one receive handler (net/core/dev.c, netdev_rx_handler_register,
// Linux 6.12): its bond's or bridge's, or that of all its macvlans, or of all its ipvlans. A VRF has none.
func (h *hostUse) ReceiverOf(n Netdev, kind string) (string, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return "", &Error{Dev: n.Name, Op: "list links", Err: err}
	}
	other := map[string][]string{Macvlan: {IPVlan, "ipvtap"}, IPVlan: {Macvlan, "macvtap"}}[kind]
	for _, l := range links {
		switch {
		case n.Master != 0 && l.Index == n.Master && l.Kind != "vrf":
			return fmt.Sprintf("is a port of %s, which takes its frames; say netdevice=%s", l.Name, l.Name), nil
		case l.isChildOf(n.Index) && slices.Contains(other, l.Kind):
			return fmt.Sprintf("carries %s, and a device cannot have %s children as well", l.titled(), kind), nil
		}
	}
	return "", nil
}

// neighbours says which link the device is a port of, and which it carries, each in words that follow its name.
func (n Netdev) neighbours(links []Link) (uses []string) {
	for _, l := range links {
		switch {
		case n.Master != 0 && l.Index == n.Master:
			uses = append(uses, "is a port of "+l.titled())
		case l.Index != n.Index && l.isChildOf(n.Index):
			uses = append(uses, "carries "+l.titled())
		}
	}
	if n.Master != 0 && !slices.ContainsFunc(links, func(l Link) bool { return l.Index == n.Master }) {
		uses = append(uses, "is a port of another device")
	}
	return uses
}

// carriedUnseen names links of other kinds that a device carries, such as a VXLAN or HSR device: sysfs has all upper links
// in the device's namespace as upper_NAME (net/core/dev.c, netdev_adjacent_sysfs_add, Linux 6.12).
func (h *hostUse) carriedUnseen(n Netdev, links []Link) (uses []string, _ error) {
	dir, err := h.netdevDir(n.Name)
	if err != nil || dir == "" {
		return nil, err
	}
	names, err := h.sys.list(dir)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list upper links", Err: err}
	}
	for _, entry := range names {
		name, upper := strings.CutPrefix(entry, "upper_")
		i := slices.IndexFunc(links, func(l Link) bool { return l.Name == name })
		if upper && i >= 0 && links[i].Index != n.Master && !links[i].isChildOf(n.Index) {
			uses = append(uses, "carries "+links[i].titled())
		}
	}
	return uses, nil
}

// carriedElsewhere says which link of another namespace a device carries, in words that follow its name; "" for none. A link that
// was made in the host and moved from there is found, as that of an engine's own macvlan driver is, see
// [Kernel].ChildrenElsewhere. One that the plugin made does not count: its allocation is in the ledger, or has ended, and its
// namespace is about to.
func (h *hostNetwork) carriedElsewhere(n Netdev, _ []Link) (string, error) {
	children, err := h.kernel.ChildrenElsewhere(n.Index)
	children = slices.DeleteFunc(children, func(l ForeignLink) bool { return strings.HasPrefix(l.Alias, MadeID("").aliasMark()) })
	if err != nil || len(children) == 0 {
		return "", wrapped(n.Name, "look for links on it in other namespaces", err)
	}
	use := fmt.Sprintf("carries %s (%s) in another network namespace", children[0].Name, children[0].Kind)
	if more := len(children) - 1; more > 0 {
		use += fmt.Sprintf(", and %d more", more)
	}
	return use, nil
}

// A MarkedLink is a link with the plugin's mark: one that the plugin has made, or that it lends.
type MarkedLink struct {
	ID         ID // of the device, as the mark says
	Name, Kind string
	On         string // the device in the host that a link in another namespace was made on; "" for a link in the host
}

// Made returns true for a link that the plugin has made, false for one that it lends.
func (l MarkedLink) Made() bool { return l.ID.isMade() }

// MarkedLinks lists the links in the host that have the plugin's mark, and, if elsewhere is true, those in other namespaces that were made on a
// link in the host.
func (h *hostNetwork) MarkedLinks(elsewhere bool) (marked []MarkedLink, _ error) {
	links, err := h.kernel.Links()
	if err != nil {
		return nil, wrapped("host", "list links", err)
	}
	for _, l := range links {
		if id, ok := strings.CutPrefix(l.Alias, ID("").aliasMark()); ok {
			marked = append(marked, MarkedLink{ID(id), l.Name, l.Kind, ""})
		}
		if !elsewhere {
			continue
		}
		children, err := h.kernel.ChildrenElsewhere(l.Index)
		if err != nil {
			return nil, wrapped(l.Name, "look for links on it in other namespaces", err)
		}
		for _, c := range children {
			if id, ok := strings.CutPrefix(c.Alias, ID("").aliasMark()); ok {
				marked = append(marked, MarkedLink{ID(id), c.Name, c.Kind, l.Name})
			}
		}
	}
	return marked, nil
}

// titled returns the name of a link with its kind.
func (l Link) titled() string {
	if l.Kind == "" {
		return l.Name
	}
	return l.Name + " (" + l.Kind + ")"
}

// vfUse says which VF of a device is in use, in words that follow its name; "" if none is.
func (h *hostUse) vfUse(n Netdev, _ []Link) (string, error) {
	pf, err := h.PF(n.Name)
	if errors.Is(err, ErrUnsupported) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	taken, err := h.takenVF(pf)
	if err != nil || taken == "" {
		return "", err
	}
	return "has vfs in use: " + taken, nil
}

// UsedByHost returns what the host itself uses a device for, in words that follow its name; "" if for nothing: as a port, under an upper
// link, with configured addresses or routes, or for a session. What the kernel configures on every link that is up does not count.
func (h *hostNetwork) UsedByHost(n Netdev) (string, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return "", &Error{Dev: n.Name, Op: "list links", Err: err}
	}
	if uses := n.neighbours(links); len(uses) > 0 {
		return uses[0], nil
	}
	if elsewhere, err := h.carriedElsewhere(n, links); err != nil || elsewhere != "" {
		return elsewhere, err
	}
	addrs, err := h.kernel.Addrs(n.Index)
	if err != nil {
		return "", &Error{Dev: n.Name, Op: "list addresses", Err: err}
	}
	if i := slices.IndexFunc(addrs, func(a Addr) bool { return !a.learnt() }); i >= 0 {
		return "has address " + addrs[i].CIDR, nil
	}
	routes, err := h.kernel.Routes(n.Index)
	if err != nil {
		return "", &Error{Dev: n.Name, Op: "list routes", Err: err}
	}
	if i := slices.IndexFunc(routes, func(r Route) bool { return r.Protocol != routerAdvertised }); i >= 0 {
		return "has route " + routes[i].Dst, nil
	}
	return h.session(n, links)
}

// learnt returns true if the kernel made an address from a router advertisement (net/ipv6/addrconf.c,
// addrconf_prefix_rcv_add_addr, Linux 6.12): with a lifetime, 64 bits, and a route to its prefix. NetworkManager and
// systemd-networkd, which do that themselves on the devices that they manage, add the route themselves.
func (a Addr) learnt() bool {
	const noPrefixRoute = 0x200 // IFA_F_NOPREFIXROUTE (include/uapi/linux/if_addr.h)
	p, err := netip.ParsePrefix(a.CIDR)
	return err == nil && p.Addr().Is6() && p.Bits() == 64 && a.ValidSec > 0 && a.Flags&noPrefixRoute == 0
}

// VLANsOn returns the names of the host's VLAN devices of 802.1Q on a device, by their VLANs.
func (h *hostUse) VLANsOn(n Netdev) (map[int]string, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list links", Err: err}
	}
	on := map[int]string{}
	for _, l := range links {
		if l.VLAN != 0 && l.isChildOf(n.Index) {
			on[l.VLAN] = l.Name
		}
	}
	return on, nil
}

// childOf returns the name of a link in the host whose frames leave through the link with the given index, "" if there
// is none.
func childOf(index int, links []Link) string {
	i := slices.IndexFunc(links, func(l Link) bool { return index != 0 && l.Index != index && l.isChildOf(index) })
	if i < 0 {
		return ""
	}
	return links[i].Name
}
