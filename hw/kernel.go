package hw

import "net/netip"

// Machine is all that this package asks of the kernel, always in the network namespace of the host. Links are addressed
// by ifindex, never by name. There are two implementations: the one in kernel_linux.go, and hwtest.Kernel, a stateful
// stand-in; hwtest.Contract holds one to the other.
//
// Errors match one of the sentinels in errors.go and, where the kernel gave one, the errno.
type Machine interface {
	Layer2
	Layer3
	Setup
	WatchKernel
}

// Layer2 is the parts that concern links: what there are, their changes, and those that are made.
type Layer2 interface {
	ReadKernel
	Kernel
	LinkKernel
}

// Setup is the parts that set a link up for speed.
type Setup interface {
	TuneKernel
	IRQKernel
}

// Layer3 is the parts that concern addresses: a link's own, and those of others on its segment.
type Layer3 interface {
	IPKernel
	NeighbourKernel
}

// ReadKernel is the part that says what links there are in the host's namespace.
type ReadKernel interface {
	// Links lists all.
	Links() ([]Link, error)
	// LinkAt reads the one of that ifindex.
	LinkAt(index int) (Link, error)
	// LinkNamed reads the one of that name; one that has it as an alternative name is not meant.
	LinkNamed(name string) (Link, error)
}

// Kernel is the part that changes what every loan changes: links, VFs, and the sysfs attributes that make the kernel act.
type Kernel interface {
	// VFs is what the PF's driver says of its VFs, by their index. One that is missing is one that the driver has nothing
	// to say of just now, as while it resets it. It is nil when the link has none or its driver never says anything
	// (rtnetlink IFLA_VFINFO_LIST).
	VFs(pf int) (map[int]VFState, error)
	// Switchdev tells whether the eswitch of the PF at a PCI address is in switchdev mode (devlink,
	// DEVLINK_CMD_ESWITCH_GET). One whose driver knows no such modes is not.
	Switchdev(pci string) (bool, error)
	// SetLink applies the fields of c that are not nil, in the order in which they are declared, and stops at the
	// first that fails.
	SetLink(index int, c LinkChange) error
	// SetVF applies the fields of c that are not nil, in the order in which they are declared, and stops at the
	// first that fails.
	SetVF(pf, vf int, c VFChange) error
	// WriteAttr writes a sysfs attribute. path is relative to the root of sysfs, such as
	// "bus/pci/devices/0000:01:00.0/sriov_numvfs".
	WriteAttr(path, value string) error
}

// IPKernel is the part of rtnetlink that concerns layer 3: what a link that is lent whole has to get back.
type IPKernel interface {
	// Addrs lists the addresses of a link, IPv4 and IPv6, except IPv6 link-local ones, which the kernel makes anew.
	Addrs(index int) ([]Addr, error)
	// Routes lists the routes through a link in every table, except those that the kernel makes itself (proto
	// kernel: connected, local, broadcast, multicast). Index 0 lists the routes of all links.
	Routes(index int) ([]Route, error)
	// AddAddr adds an address; one that is there already is no error.
	AddAddr(index int, a Addr) error
	// AddRoute adds a route; one that is there already is no error.
	AddRoute(index int, r Route) error
	// Sessions lists the host's own addresses at which somebody is connected to its ssh server.
	Sessions() ([]netip.Addr, error)
}

// NeighbourKernel is the part of rtnetlink that finds out who on a link's segment has an address.
type NeighbourKernel interface {
	// Solicit has the kernel ask for an address by ARP or IPv6 neighbour discovery. An entry for it appears.
	Solicit(index int, a netip.Addr) error
	// Neighbour is who has answered just now, "" for nobody; known says whether there is an entry.
	Neighbour(index int, a netip.Addr) (mac MAC, known bool, err error)
	// ForgetNeighbour removes an entry, if there is one.
	ForgetNeighbour(index int, a netip.Addr) error
}

// LinkKernel is the part of rtnetlink that concerns links that are made to be lent.
type LinkKernel interface {
	// MakeLink makes a link, which is down.
	MakeLink(l NewLink) error
	// RemoveLink deletes a link of those that can be made. Ports of a bond are free again then; children of it end.
	RemoveLink(index int) error
}

// MAC is a link-layer address in its canonical text form, lower case and colon-separated: 6 octets for Ethernet, 20
// for InfiniBand, "" for none.
type MAC string

// GUID is the name of a node or a port in an InfiniBand fabric: eight octets in lower case, separated by colons; "" for
// none, which the PF's driver shows as all zero, or as all ones where it was taken back.
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
	PermMAC  MAC // IFLA_PERM_ADDRESS; "" when the device has none
	MTU      int
	TxQLen   int
	Up       bool // IFF_UP: administratively up
	Carrier  bool // IFF_LOWER_UP: has carrier; always false while down
	Promisc  bool // IFF_PROMISC as set by an administrator
	AllMulti bool // IFF_ALLMULTI as set by an administrator
	NoARP    bool // IFF_NOARP: addresses on its segment are not asked for
	// NoMulticast is a link without IFF_MULTICAST, which most have: IPv6 does not work on it.
	NoMulticast bool
	Master      int // ifindex of the bond or bridge that the link is a port of; 0 for none
	Peer        int // IFLA_LINK: ifindex of the peer or parent, possibly in another namespace; 0 for none
}

// Kinds of link that can be made (IFLA_INFO_KIND).
const (
	Macvlan = "macvlan"
	IPVlan  = "ipvlan"
	Bond    = "bond"
	IPoIB   = "ipoib"
)

// NewLink is a link that is to be made.
type NewLink struct {
	Name   string
	Kind   string // Macvlan, IPVlan, Bond or IPoIB
	Parent int    // ifindex of the device that it stands on; 0 for a bond
	Mode   string // one of Modes(Kind); "" for the kernel's default
	MAC    MAC    // "" for the kernel's choice; IPVlan and IPoIB have none of their own
	MTU    int    // 0 for the kernel's choice
	PKey   int    // of IPoIB; 0 for the parent's
	First  int    // ifindex of the port that a bond in mode active-backup uses whenever it has carrier; 0 for any
}

// LinkChange is a change of a link; nil fields are left alone.
type LinkChange struct {
	DelAltName  *string // remove this alternative name
	AddAltName  *string
	Up          *bool
	Master      *int // 0: leave the bond or bridge
	Name        *string
	Alias       *string
	MAC         *MAC
	MTU         *int
	TxQLen      *int
	Promisc     *bool
	AllMulti    *bool
	NoARP       *bool
	NoMulticast *bool
}

// VFChange is a change of a VF through its PF; nil fields are left alone.
type VFChange struct {
	NodeGUID *GUID
	PortGUID *GUID
	MAC      *MAC // "" is sent as the all-zero address: no MAC set by the PF
	VLAN     *VLAN
	Rate     *Rate
	LinkMode *LinkMode
	Spoofchk *bool
	Trust    *bool
}

// VFState is what a PF has set for one VF.
type VFState struct {
	NodeGUID GUID `json:",omitempty"` // of a VF of an InfiniBand PF
	PortGUID GUID `json:",omitempty"` // likewise; its netdev's address ends in it
	MAC      MAC  // "" when the PF has set none (all zero on the wire)
	VLAN     VLAN
	Rate     Rate
	LinkMode LinkMode
	Spoofchk bool
	Trust    bool
}

// VLAN is the tag that the NIC adds to and takes off a VF's frames. ID 0 means untagged.
type VLAN struct {
	ID    int       // 0 to 4094
	QoS   int       // 802.1p priority, 0 to 7
	Proto VLANProto // of the tag
}

// VLANProto is the protocol of a tag: "" for 802.1q, or Dot1AD.
type VLANProto string

// Dot1AD is the protocol of a service tag.
const Dot1AD VLANProto = "802.1ad"

// Rate is how fast a VF may send, in Mbit/s; 0 means no limit, and nothing guaranteed.
type Rate struct{ Min, Max int }

// LinkMode is what a VF sees as its link (IFLA_VF_LINK_STATE): "" for the PF's, the default, LinkEnable or LinkDisable. On
// InfiniBand it is the policy of the VF's port, whose default is LinkDisable.
type LinkMode string

// The link modes that do not follow the PF's link.
const (
	LinkEnable  LinkMode = "enable"  // always up: VFs can talk to each other without a cable
	LinkDisable LinkMode = "disable" // always down
)

// Addr is an address on a link. CIDR and Peer are in the form "192.0.2.1/24"; Peer is "" unless point to point.
type Addr struct {
	CIDR      string
	Peer      string
	Broadcast string
	Label     string
	Scope     int // rtnetlink's RT_SCOPE_*
	Flags     int // IFA_F_* that an administrator can set: NODAD, NOPREFIXROUTE, MANAGETEMPADDR, HOMEADDRESS
	ValidSec  int // remaining life in seconds; 0 means for ever
	PrefSec   int // remaining preferred life in seconds; 0 means for ever, -1 that it is over (a deprecated address)
}

// Route is a route through one link. Dst is a CIDR, "0.0.0.0/0" or "::/0" for the default route.
type Route struct {
	Index    int
	Dst      string
	Gateway  string
	Src      string
	Table    int
	Metric   int
	Protocol int
	Scope    int
	Type     int
	MTU      int
	OnLink   bool
}
