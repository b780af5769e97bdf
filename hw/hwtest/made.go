package hwtest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
)

// childKinds are the kinds of link that have a parent and end with it, in whatever namespace.
var childKinds = []string{hw.Macvlan, hw.IPVlan, hw.IPoIB, "vlan"}

// CreateLink implements hw.Kernel.
func (k *Kernel) CreateLink(n hw.NewLink) error {
	return k.call(func() error {
		parent := k.byIndexLocked(hostNS, n.Parent)
		if err := k.makeableLocked(n, parent); err != nil {
			return err
		}
		k.makeLocked(n, parent)
		return nil
	}, func() string { return fmt.Sprintf("make %s %s", n.Kind, n.Name) })
}

// RemoveLink implements hw.Kernel.
func (k *Kernel) RemoveLink(index int) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		switch {
		case l == nil:
			return syscall.ENODEV
		case !l.virtual() || l.Type == "loopback":
			return syscall.EOPNOTSUPP
		}
		k.deleteLocked(l)
		return nil
	}, func() string { return "remove " + k.labelLocked(index) })
}

// makeableLocked returns why a link cannot be made (macvlan_common_newlink, ipvlan_link_new, ipoib_new_child_link, Linux
// 6.12).
func (k *Kernel) makeableLocked(n hw.NewLink, parent *link) error {
	modes := hw.Modes(n.Kind)
	switch {
	case len(modes) == 0 && n.Kind != hw.VLANDevice, slices.Contains(k.NoKinds, n.Kind):
		return syscall.EOPNOTSUPP
	case n.Mode != "" && !slices.Contains(modes, n.Mode), n.Flag != "" && !slices.Contains(hw.IPVlanFlags(), n.Flag):
		return syscall.EINVAL
	}
	if err := validName(n.Name); err != nil {
		return err
	}
	if k.namedLocked(hostNS, n.Name) != nil {
		return syscall.EEXIST
	}
	if n.Kind == hw.Bond {
		return nil
	}
	switch {
	case n.Parent == 0:
		return syscall.EINVAL
	case parent == nil:
		return syscall.ENODEV
	case n.Kind == hw.IPoIB && parent.Type != "infiniband":
		return syscall.ENODEV
	case n.Kind == hw.IPoIB && (parent.Kind == hw.IPoIB || n.PKey == 0x8000):
		return syscall.EINVAL
	case n.Kind == hw.IPoIB:
		return nil
	case n.Kind == hw.VLANDevice:
		return k.vlanMakeableLocked(n, parent)
	case parent.Type != "ether", n.Kind == hw.Macvlan && n.MTU > parent.MTU:
		return syscall.EINVAL
	case parent.master != nil && parent.master.Kind != "vrf":
		return syscall.EBUSY // its receive handler is its bond's or bridge's
	}
	return k.siblingsLocked(n, parent)
}

// vlanMakeableLocked returns why a VLAN device cannot be made (net/8021q/vlan_netlink.c, vlan_validate, vlan_newlink; net/8021q/vlan.c,
// vlan_check_real_dev).
func (k *Kernel) vlanMakeableLocked(n hw.NewLink, parent *link) error {
	switch {
	case n.VLAN < 0 || n.VLAN > 4094:
		return syscall.ERANGE
	case parent.Type == "loopback":
		return syscall.EOPNOTSUPP
	case slices.ContainsFunc(k.vlansLocked(parent), func(o *link) bool { return o.VLAN == n.VLAN }):
		return syscall.EEXIST
	}
	return nil
}

// vlansLocked are the VLAN devices on a link, wherever they are.
func (k *Kernel) vlansLocked(parent *link) []*link {
	return slices.DeleteFunc(slices.Clone(k.links), func(o *link) bool { return o.below != parent || o.Kind != hw.VLANDevice })
}

// siblingsLocked returns why a macvlan or ipvlan cannot be made beside others: a device has one receive handler, and a
// macvlan in mode passthru is the only one.
func (k *Kernel) siblingsLocked(n hw.NewLink, parent *link) error {
	for _, o := range k.childrenLocked(parent) {
		switch {
		case o.Kind != n.Kind:
			return syscall.EBUSY
		case o.mode == "passthru" || n.Mode == "passthru":
			return syscall.EINVAL
		}
	}
	return nil
}

// macBusyLocked tells whether a macvlan cannot have a MAC, or be set up with it, because another that is up has it, or its
// device (macvlan_addr_busy).
func (k *Kernel) macBusyLocked(l *link, mac hw.MAC) bool {
	if l.Kind != hw.Macvlan || l.mode == "passthru" {
		return false
	}
	others := append(k.childrenLocked(l.below), l.below)
	return slices.ContainsFunc(others, func(o *link) bool { return o != l && o.MAC == mac && (o.Up || o == l.below) })
}

// childrenLocked are the children of a link, which receive its frames, wherever they are.
func (k *Kernel) childrenLocked(parent *link) []*link {
	var children []*link
	for _, o := range k.links {
		if o.below == parent && (o.Kind == hw.Macvlan || o.Kind == hw.IPVlan) {
			children = append(children, o)
		}
	}
	return children
}

// makeLocked makes a link that can be made.
func (k *Kernel) makeLocked(n hw.NewLink, parent *link) *link {
	l := hw.Link{Name: n.Name, Kind: n.Kind, MAC: n.MAC, MTU: n.MTU, VLAN: n.VLAN}
	if parent != nil {
		l.Peer, l.MTU = parent.Index, cmp.Or(n.MTU, parent.MTU)
	}
	switch {
	case n.Kind == hw.IPVlan, n.Kind == hw.VLANDevice, n.Mode == "passthru":
		l.MAC = parent.MAC
	case n.Kind == hw.IPoIB:
		k.macs++ // the queue pair's number
		l.Type, l.MAC = parent.Type, hw.MAC(fmt.Sprintf("80:00:%02x:%s", k.macs&0xff, string(parent.MAC)[9:]))
	}
	made := k.addLocked(hostNS, l)
	made.mode, made.pkey = n.Mode, n.PKey
	if n.Mode == "passthru" {
		parent.lowerMAC = parent.MAC
	}
	for _, o := range k.childrenLocked(parent) {
		if o.Kind == hw.IPVlan { // mode and flag are the device's, for all its children
			o.mode, o.flag = n.Mode, cmp.Or(n.Flag, o.flag)
		}
	}
	return made
}

// orphanLocked takes a child that has been deleted from its device. One in mode passthru gives it back its MAC
// (macvlan_port_destroy).
func (k *Kernel) orphanLocked(l *link) {
	p := l.below
	if p != nil && l.mode == "passthru" && slices.Contains(k.links, p) && p.MAC != p.lowerMAC {
		// The kernel does not look at the answer either.
		_ = k.passMACLocked(p, p.lowerMAC)
	}
}

// passMACLocked changes a MAC and those that follow from it: a bond's ports have the bond's, a macvlan in mode passthru
// changes its device's and has whatever that has (macvlan_set_mac_address, bond_set_mac_address).
func (k *Kernel) passMACLocked(l *link, mac hw.MAC) error {
	if l.mode == "passthru" && l.below.MAC != mac {
		own := l.below.lowerMAC
		err := k.setMACLocked(l.below, mac)
		l.below.lowerMAC = own
		return err
	}
	if l.Kind == hw.Bond {
		for i, p := range l.ports {
			if err := k.setMACLocked(p, mac); err != nil {
				for _, done := range l.ports[:i] {
					done.MAC = l.MAC
				}
				return err
			}
		}
	}
	was := l.MAC
	l.MAC, l.drawnMAC = mac, false
	for _, o := range k.vlansLocked(l) {
		if o.MAC == was { // otherwise it has one of its own (vlan_sync_address)
			_ = k.passMACLocked(o, mac)
		}
	}
	for _, o := range k.childrenLocked(l) {
		if o.mode == "passthru" {
			l.lowerMAC, o.MAC = mac, mac
		}
		if o.Kind == hw.IPVlan {
			o.MAC = mac
		}
		k.showLocked(o)
	}
	k.showLocked(l)
	return nil
}

// passMTULocked changes the MTUs that follow from a link's: those of a bond's ports, and those of children, which a
// macvlan may have smaller.
func (k *Kernel) passMTULocked(l *link) {
	if l.Kind == hw.Bond {
		for _, p := range l.ports {
			p.MTU = l.MTU
			k.showLocked(p)
		}
	}
	for _, o := range k.childrenLocked(l) {
		if o.Kind == hw.IPVlan || o.MTU > l.MTU {
			o.MTU = l.MTU
		}
		k.showLocked(o)
	}
	for _, o := range k.vlansLocked(l) { // vlan_device_event, NETDEV_CHANGEMTU
		if o.MTU > l.MTU {
			o.MTU = l.MTU
			k.showLocked(o)
			k.passMTULocked(o)
		}
	}
}

// printMade prints the kind-specific part of a link for String.
func (l *link) printMade(b *strings.Builder) {
	if l.below != nil {
		fmt.Fprintf(b, " on %s", l.below.Name)
	}
	if l.VLAN != 0 {
		fmt.Fprintf(b, " id %d", l.VLAN)
	}
	if l.mode != "" {
		fmt.Fprintf(b, " mode %s", l.mode)
	}
	if l.flag != "" && l.flag != "bridge" {
		fmt.Fprintf(b, " %s", l.flag)
	}
	if l.pkey != 0 {
		fmt.Fprintf(b, " pkey %#04x", l.pkey)
	}
}
