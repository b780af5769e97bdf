package hw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// MAC is a link-layer address in its canonical text form, lower case and colon-separated: 6 octets for Ethernet, 20
// for InfiniBand, "" for none.
type MAC string

// GUID identifies a node or a port in an InfiniBand fabric: eight octets in lower case, separated by colons; "" for none,
// which the PF's driver reports as all zero, or as all ones after it was cleared.
type GUID string

// Link is one network device as rtnetlink shows it.
type Link struct {
	Index    int
	Name     string
	AltNames []string
	Alias    string
	Kind     string // IFLA_INFO_KIND, such as "veth" or "bond"; "" for hardware
	Type     string // link type as iproute2 prints it: "ether", "infiniband", "loopback"
	MAC      MAC
	PermMAC  MAC // IFLA_PERM_ADDRESS; "" if the device has none
	MTU      int
	MaxMTU   int // IFLA_MAX_MTU: the highest that the driver accepts; 0 if that is not known
	TxQLen   int
	Up       bool // IFF_UP: administratively up
	Carrier  bool // IFF_LOWER_UP: has carrier; always false while down
	Promisc  bool // IFF_PROMISC as set by an administrator
	AllMulti bool // IFF_ALLMULTI as set by an administrator
	NoARP    bool // IFF_NOARP: the kernel does not resolve addresses on its segment
	// NoMulticast is set if the link lacks IFF_MULTICAST, which most links have; IPv6 does not work without it.
	NoMulticast bool
	Master      int // ifindex of the bond or bridge that the link is a port of; 0 for none
	PortMAC     MAC // of a bond's port: the MAC that it had before, and gets back (IFLA_BOND_SLAVE_PERM_HWADDR); otherwise ""
	Peer        int // IFLA_LINK: ifindex of the peer or parent, possibly in another namespace; 0 for none
	XDP         XDP // programs that see each frame that arrives
	Segments    Segments
	MaxGSO      int // IFLA_TSO_MAX_SIZE: the largest packet, in bytes, that the driver cuts into frames; 0 if that is not known (before Linux 5.19)
	VLAN        int // of a VLAN device: its VLAN, 0 if that is not one of 802.1Q
}

// Counters are what a driver has counted of the frames of a device. What it does not count is 0.
type Counters struct {
	RxBytes, TxBytes         uint64
	RxPackets, TxPackets     uint64
	RxBroadcast, RxMulticast uint64 // packets; of a netdev that is no VF, RxBroadcast is 0
	RxDropped, TxDropped     uint64 // packets
	RxErrors, TxErrors       uint64 // packets; of a VF, which has no such counters, 0
	RxMissed                 uint64 // packets for which the device had no buffer; of a VF 0
	TxTimeouts               uint64 // how often a queue of the device stood still (ndo_tx_timeout); of a VF 0
}

// Counted returns true if anything was counted.
func (c Counters) Counted() bool { return c != Counters{} }

// A ForeignLink is a link in another network namespace.
type ForeignLink struct {
	Namespace int // the number that the namespace has in this one (nsid)
	Index     int
	Name      string
	Kind      string // IFLA_INFO_KIND
	Alias     string // IFLA_IFALIAS
}

// Segments are how large the packets of a link may be in the kernel, before its driver or the NIC cuts them and after they were put together again.
// What the kernel does not say is 0: those of IPv4 are of Linux 6.3, GRO of 5.19. More than 65536 bytes is called Big TCP.
type Segments struct {
	GSOMaxSize     int `json:",omitempty"` // bytes, sent; of IPv6 if GSOIPv4MaxSize is another
	GSOMaxSegs     int `json:",omitempty"` // frames that one packet is cut into
	GROMaxSize     int `json:",omitempty"` // bytes, received; of IPv6 if GROIPv4MaxSize is another
	GSOIPv4MaxSize int `json:",omitempty"` // bytes
	GROIPv4MaxSize int `json:",omitempty"` // bytes
}

// XDP has the IDs of the XDP programs of a link, one for each mode that one can be attached in (IFLA_XDP_SKB_PROG_ID,
// _DRV_, _HW_); 0 for none. The kernel does not give an ID to another program while the first one is attached.
type XDP struct{ SKB, Driver, Hardware uint32 }

// Kinds of link that can be created (IFLA_INFO_KIND).
const (
	Macvlan = "macvlan"
	IPVlan  = "ipvlan"
	Bond    = "bond"
	IPoIB   = "ipoib"
	// VLANDevice is a device that sends and receives the frames of one VLAN of its parent.
	VLANDevice = "vlan"
)

// NewLink describes a link to create.
type NewLink struct {
	Name   string
	Kind   string // Macvlan, IPVlan, Bond, IPoIB or VLANDevice
	Parent int    // ifindex of the lower device; 0 for a bond
	Mode   string // one of Modes(Kind); "" for the kernel's default
	MAC    MAC    // "" for the kernel's choice; IPVlan and IPoIB have none of their own
	MTU    int    // 0 for the kernel's choice
	PKey   int    // of IPoIB; 0 for the parent's
	First  int    // ifindex of the primary port of a bond in mode active-backup; 0 for none
	VLAN   int    // of a VLANDevice, 1 to 4094
	Flag   string // of an IPVlan: one of IPVlanFlags; "" leaves that of the lower device, which is one for all its children
}

// ipvlanFlags are the flags of ipvlans by their names in iproute2, with their numbers (include/uapi/linux/if_link.h, IPVLAN_F_*).
var ipvlanFlags = map[string]uint16{"bridge": 0, "private": 1, "vepa": 2}

// IPVlanFlags lists the flags that an ipvlan can be created with.
func IPVlanFlags() []string { return slices.Sorted(maps.Keys(ipvlanFlags)) }

// FlagNumber returns the kernel's number of an ipvlan's flag. The error matches ErrInvalid if there is none.
func (l NewLink) FlagNumber() (uint16, error) {
	number, ok := ipvlanFlags[l.Flag]
	if !ok {
		return 0, fmt.Errorf("flag %q of a %s: %w", l.Flag, l.Kind, ErrInvalid)
	}
	return number, nil
}

// linkModes are the modes of each kind of link by their names in iproute2, with their numbers (include/uapi/linux/if_link.h,
// if_bonding.h).
var linkModes = map[string]map[string]int{
	Macvlan: {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8},
	IPVlan:  {"l2": 0, "l3": 1, "l3s": 2},
	Bond:    {"active-backup": 1, "balance-xor": 2, "802.3ad": 4},
	IPoIB:   {"datagram": 0, "connected": 1},

	VLANDevice: {},
}

// Modes lists the modes that a kind of link can be created with.
func Modes(kind string) []string { return slices.Sorted(maps.Keys(linkModes[kind])) }

// ModeNumber returns the kernel's number of the link's mode, 0 if it has none. The error matches ErrUnsupported if links
// of this kind cannot be created, ErrInvalid if the kind has no such mode.
func (l NewLink) ModeNumber() (int, error) {
	modes, ok := linkModes[l.Kind]
	if !ok {
		return 0, Because(ErrUnsupported, "a link of kind %q", l.Kind)
	}
	number, ok := modes[l.Mode]
	if !ok && l.Mode != "" {
		return 0, fmt.Errorf("mode %q of a %s: %w", l.Mode, l.Kind, ErrInvalid)
	}
	return number, nil
}

// altNames returns the alternative names of a device for a snapshot: never nil.
func (n Netdev) altNames() []string {
	return append([]string{}, slices.Sorted(slices.Values(n.AltNames))...)
}

// restoreNames restores the name of a device, and its alternative ones.
func (h *links) restoreNames(n Netdev, was Snapshot, set setter) error {
	err := h.rename(n, was.Link.Name, set)
	now, findErr := h.Find(n.ID)
	if findErr != nil {
		return errors.Join(err, findErr)
	}
	return errors.Join(err, h.restoreAltNames(now, was.AltNames, nil))
}

// restoreAltNames removes the alternative names that a device did not have before, and adds those that it has lost. A
// name is unique among all devices, so a container could use one to keep another device from its own name, or to be
// found in its place. udev adds names to a device that returns to the host (systemd.link, AlternativeNamesPolicy),
// mostly those it had; other names of udev, for which given returns true, stay. Nothing is done if the earlier names
// are not known (nil).
func (h *links) restoreAltNames(n Netdev, was []string, given func(name string) bool) error {
	if was == nil {
		return nil
	}
	var errs []error
	for _, name := range n.AltNames {
		if slices.Contains(was, name) || name == n.nameOfMAC() || given != nil && given(name) {
			continue
		}
		err := wrapped(n.Name, "remove alternative name "+name, h.kernel.RemoveAltName(n.Index, name))
		if !errors.Is(err, ErrNotFound) {
			errs = append(errs, err)
		}
	}
	for _, name := range was {
		if name == n.Name || slices.Contains(n.AltNames, name) {
			continue
		}
		err := wrapped(n.Name, "add alternative name "+name, h.kernel.AddAltName(n.Index, name))
		if !errors.Is(err, fs.ErrExist) { // udev has added it already, or another device has it
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// nameOfMAC returns the name that udev derives from the permanent MAC of a device, "" if it has none.
func (n Netdev) nameOfMAC() string {
	if n.PermMAC == "" || n.Type != "ether" {
		return ""
	}
	return "enx" + strings.ReplaceAll(string(n.PermMAC), ":", "")
}

// portSuffix is what udev appends to a name for the port of a NIC (phys_port_name).
var portSuffix = regexp.MustCompile(`np?[0-9]+$`)

// isUdevNameOf returns true if udev gives a name to a VF: each name of the PF without its port suffix, with the number
// of the VF, and with a port suffix if the VF has one (systemd.net-naming-scheme, since v240).
func isUdevNameOf(vf VF, pf PF, name string) bool {
	return slices.ContainsFunc(append([]string{pf.Name}, pf.AltNames...), func(of string) bool {
		own := fmt.Sprintf("%sv%d", portSuffix.ReplaceAllString(of, ""), vf.Index)
		rest, ok := strings.CutPrefix(name, own)
		return ok && (rest == "" || portSuffix.FindString(rest) == rest)
	})
}

// handoverName returns the name under which a device goes into a container and comes home: no other device has it. Under its
// own name it could do neither: the kernel refuses to move a device to where its name, or an alternative name of it, is taken
// (EEXIST), such as eth1 in a container that has an eth1 already, and an engine leaves a device in the container without a
// word if it cannot rename it for its way home.
func (id ID) handoverName() string { return uniqueName("handed over\x00" + string(id)) }

// HandOver gives a device in the host that is about to be moved into a container a name that no other device has, and takes its
// alternative names from it, which could be in the way there, too; was has all of them. A device that the plugin has created
// has such a name from the start. A device that is up is set down if the kernel demands it. HandOver may be repeated after any
// failure. found is the device as it was found before.
func (h *links) HandOver(found Netdev, was Snapshot) (Netdev, error) {
	id := found.ID
	n, err := h.reread(found)
	if err != nil || id.isMade() {
		return n, err
	}
	if err := h.rename(n, id.handoverName(), h.setDownIfNeeded); err != nil {
		return n, err
	}
	if n, err = h.reread(n); err != nil || was.AltNames == nil { // a record of an early version does not have them
		return n, err
	}
	for _, name := range n.AltNames {
		err := wrapped(n.Name, "remove alternative name "+name, h.kernel.RemoveAltName(n.Index, name))
		if err != nil && !errors.Is(err, ErrNotFound) {
			return n, err
		}
	}
	n.AltNames = nil
	return n, nil
}

// PrepareNetdev prepares a netdev for a container: it sets the alias by which the netdev is found again, and mac unless
// that is "".
func (h *links) PrepareNetdev(id ID, mac MAC) (Netdev, error) {
	n, err := h.Find(id)
	if err != nil {
		return Netdev{}, err
	}
	return h.prepareFound(n, mac)
}

// prepareFound is PrepareNetdev for a netdev that was found just now.
func (h *links) prepareFound(n Netdev, mac MAC) (Netdev, error) {
	if !n.ID.IsPCI() {
		mark := n.ID.aliasMark()
		if err := h.setLink(n, "set alias", LinkAlias, Link{Alias: mark}); err != nil {
			return Netdev{}, err
		}
		n.Alias = mark
	}
	if mac == "" || mac == n.MAC {
		return n, nil
	}
	if err := h.changeLink(n, "set mac "+string(mac), LinkMAC, Link{MAC: mac}); err != nil {
		return Netdev{}, err
	}
	return h.Find(n.ID)
}

// BridgeKind is the kind of the kernel's own bridges (IFLA_INFO_KIND).
const BridgeKind = "bridge"

// Bridge returns the bridge of the kernel's own that has a name; filters is true if it filters VLANs. The error matches ErrNotFound if there is
// no such link, and ErrUnsupported if it is no bridge of the kernel's own.
func (h *links) Bridge(name string) (br Link, filters bool, err error) {
	br, err = h.kernel.LinkNamed(name)
	switch {
	case err != nil:
		return br, false, &Error{Dev: name, Err: err}
	case br.Kind != BridgeKind && (Netdev{Link: br}).ofOpenVSwitch():
		return br, false, &Error{Dev: name, Err: Because(ErrUnsupported, "it is of Open vSwitch, whose ports are made with its own tools")}
	case br.Kind != BridgeKind:
		return br, false, &Error{Dev: name, Err: Because(ErrUnsupported, "it is no bridge")}
	}
	on, _, err := h.sys.number("class/net/" + name + "/bridge/vlan_filtering")
	if err != nil {
		return br, false, &Error{Dev: name, Err: err}
	}
	return br, on != 0, nil
}

// JoinBridge makes a netdev a port of a bridge, and gives it VLANs, unless these are nil: then it has those that the bridge gives a new port.
// It may be repeated after any failure.
func (h *links) JoinBridge(n Netdev, br Link, vlans PortVLANs) error {
	if n.Master != br.Index {
		if err := h.setLink(n, "make it a port of "+br.Name, LinkMaster, Link{Master: br.Index}); err != nil {
			return err
		}
	}
	if vlans == nil {
		return nil
	}
	if err := h.kernel.SetPortVLANs(n.Index, vlans); err != nil {
		return &Error{Dev: n.Name, Op: "set the vlans of its port", Err: err}
	}
	has, err := h.PortVLANs(n)
	if err == nil && !maps.Equal(has, vlans) {
		err = &Error{Dev: n.Name, Op: fmt.Sprintf("set the vlans of its port to %s", vlans), Err: Because(ErrInvalid, "the bridge has %s", has)}
	}
	return err
}

// PortVLANs returns the VLANs of a port of a bridge. The error matches ErrUnsupported if the netdev is the port of none.
func (h *links) PortVLANs(n Netdev) (PortVLANs, error) {
	vlans, err := h.kernel.PortVLANs(n.Index)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "read the vlans of its port", Err: err}
	}
	return vlans, nil
}

// LeaveBridge takes a netdev out of the bridge that it is a port of. With the port go its VLANs.
func (h *links) LeaveBridge(n Netdev) error {
	return h.setLink(n, "take it out of its bridge", LinkMaster, Link{})
}

// OpenPort sets the representor of a VF up. The VF has no link before (mlx5/core/en_rep.c, mlx5e_rep_open; ice/ice_repr.c, ice_repr_open; Linux
// 6.12).
func (h *links) OpenPort(ctx context.Context, n Netdev) error { return h.open(ctx, n) }

// ClosePort sets the representor of a VF down.
func (h *links) ClosePort(n Netdev) error { return h.setUp(n, false) }

// NameOf returns the name of the link of the host with an ifindex; "" for 0, which is no link.
func (h *finder) NameOf(index int) (string, error) {
	if index == 0 {
		return "", nil
	}
	l, err := h.kernel.LinkAt(index)
	return l.Name, err
}

// PortVLANs are the VLANs of a port of a bridge, by their IDs, 1 to 4094. The port drops frames of other VLANs.
type PortVLANs map[int]PortVLAN

// PortVLAN is how a port of a bridge is in a VLAN.
type PortVLAN struct {
	PVID     bool // frames that arrive untagged are in it; true of one VLAN of a port at most
	Untagged bool // its frames leave without a tag
}

// String returns the VLANs as an operator reads them: "100 untagged, 200-299, 400"; "none".
func (v PortVLANs) String() string {
	var parts []string
	ids := slices.Sorted(maps.Keys(v))
	for i := 0; i < len(ids); i++ {
		first, how := ids[i], v[ids[i]]
		for !how.PVID && i+1 < len(ids) && ids[i+1] == ids[i]+1 && v[ids[i+1]] == how {
			i++
		}
		text := fmt.Sprint(first)
		if ids[i] != first {
			text += fmt.Sprint("-", ids[i])
		}
		switch {
		case how.PVID && !how.Untagged:
			text += " untagged inwards"
		case how.Untagged && !how.PVID:
			text += " untagged outwards"
		case how.Untagged:
			text += " untagged"
		}
		parts = append(parts, text)
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}
