package hw

import (
	"bytes"
	"context"
	"net/netip"
)

// Kernel is everything that this package asks of the kernel, in the network namespace of the host. Links are addressed
// by ifindex, never by name. Package rtnl implements it for the running kernel, package hwtest as a fake with state; the
// conformance suite runs on both.
//
// Errors match one of the sentinels in errors.go and, if the kernel returned one, the errno.
type Kernel interface {
	// Links.

	// Links lists the links of the namespace.
	Links() ([]Link, error)
	// LinkAt reads the link with an ifindex.
	LinkAt(index int) (Link, error)
	// LinkNamed reads the link with a name. Alternative names do not count.
	LinkNamed(name string) (Link, error)
	// NetNSImmutable returns true if a link can never leave its network namespace. known is false if the kernel does not
	// tell (Linux 6.12 to 6.14).
	NetNSImmutable(index int) (immutable, known bool, err error)
	// SetLink sets one attribute of a link to its value in want.
	SetLink(index int, a LinkAttr, want Link) error
	// AddAltName gives a link an alternative name.
	AddAltName(index int, name string) error
	// RemoveAltName removes an alternative name of a link.
	RemoveAltName(index int, name string) error
	// CreateLink creates a link, which is down.
	CreateLink(l NewLink) error
	// RemoveLink deletes a link that can be created by CreateLink. It frees the ports of a bond, and deletes its children.
	RemoveLink(index int) error
	// ChildrenElsewhere lists the links of other namespaces that were made on a link: macvlan, ipvlan and VLAN links. Only
	// namespaces are known that a link was moved to from this one (RTM_GETNSID).
	ChildrenElsewhere(index int) ([]ForeignLink, error)
	// RemoveElsewhere deletes a link of another namespace.
	RemoveElsewhere(l ForeignLink) error
	// Watch returns a channel that receives a value after links have appeared, disappeared, moved, been renamed or
	// changed. The channel has a buffer of one: changes that the reader has not seen yet are reported once. It is
	// closed when ctx ends, or when changes cannot be reported any more; then Watch is to be called again.
	Watch(ctx context.Context) (<-chan struct{}, error)

	// SR-IOV.

	// VFs returns what the PF's driver reports of its VFs, by their index. A VF is missing while its driver has nothing
	// to report, as during a reset. The map is nil if the link has no VFs or its driver never reports anything
	// (rtnetlink IFLA_VFINFO_LIST).
	VFs(pf int) (map[int]VFState, error)
	// VFCounters returns what the PF's driver has counted of the frames of its VFs, by their index. The kernel reports zeros for a
	// driver that counts nothing. The map is nil if the link has no VFs. The error matches EMSGSIZE or EINVAL if there are so many
	// that they do not fit into a message (rtnetlink IFLA_VF_STATS).
	VFCounters(pf int) (map[int]Counters, error)
	// SetVF sets one attribute of a VF to its value in want.
	SetVF(pf, vf int, a VFAttr, want VFState) error
	// Switchdev returns true if the eswitch of the PF at a PCI address is in switchdev mode (devlink,
	// DEVLINK_CMD_ESWITCH_GET); false if its driver has no such mode.
	Switchdev(pci string) (bool, error)
	// HealthReporters returns what a driver reports of the health of the function at a PCI address (devlink,
	// DEVLINK_CMD_HEALTH_REPORTER_GET); nil if it reports nothing.
	HealthReporters(pci string) ([]HealthReporter, error)
	// WriteAttr writes a sysfs attribute. path is relative to the root of sysfs, such as
	// "bus/pci/devices/0000:01:00.0/sriov_numvfs".
	WriteAttr(path, value string) error

	// PortVLANs returns the VLANs of a port of a bridge. They count if the bridge filters VLANs. The error matches ErrUnsupported if the
	// link is the port of none.
	PortVLANs(index int) (PortVLANs, error)
	// SetPortVLANs makes the VLANs of a port of a bridge those of want, and no others.
	SetPortVLANs(index int, want PortVLANs) error

	// Addresses and routes.

	// Addrs lists the addresses of a link, IPv4 and IPv6, without the IPv6 link-local ones, which the kernel creates
	// again.
	Addrs(index int) ([]Addr, error)
	// AddAddr adds an address, which can be used at once: an IPv6 address is not tested for duplicates, whatever its
	// flags. It succeeds if the link has the address already.
	AddAddr(index int, a Addr) error
	// Routes lists the routes through a link in every table, without those that the kernel creates itself (proto
	// kernel: connected, local, broadcast, multicast). Index 0 lists the routes of all links.
	Routes(index int) ([]Route, error)
	// RoutesIn lists the routes of a table that have a protocol number. The kernel leaves out the others, so that a host with a
	// million routes of the internet is not asked for them all.
	RoutesIn(table, protocol int) ([]Route, error)
	// AddRoute adds a route; it succeeds if the route exists.
	AddRoute(index int, r Route) error
	// RemoveRoute removes a route through a link, as Routes lists it; it succeeds if there is none with its destination, table,
	// metric and protocol.
	RemoveRoute(index int, r Route) error
	// Entries lists what administrators and programs have configured on a link, in an order in which it can be
	// added again: the settings and VLANs of a bridge port, static entries of the bridge's forwarding database, qdiscs and
	// classes, addresses, permanent neighbours, routes. Left out is what the kernel certainly makes again: the route to
	// the prefix of an address (unless the address has IFA_F_NOPREFIXROUTE), link-local and privacy addresses of its own,
	// local, broadcast, anycast and multicast routes, default qdiscs; and what router advertisements make, which is learnt
	// again.
	Entries(index int) ([]Entry, error)
	// AddEntry adds an entry of Entries to a link, which may have another ifindex now; it succeeds if the link has it
	// already. An address can be used at once: it is not tested for duplicates, whatever its flags. The VLANs of a bridge
	// port are those of the entry afterwards.
	AddEntry(index int, e Entry) error
	// LeftOut names what is configured on a link and left out by Entries because it cannot be added again: filters of tc.
	LeftOut(index int) ([]string, error)
	// Sysctls lists the settings that a link has of its own in net.ipv4.conf, net.ipv4.neigh, net.ipv6.conf and
	// net.ipv6.neigh, by name with a * for the device, such as "net.ipv4.conf.*.rp_filter". Index 0 lists the values that
	// a new link gets.
	Sysctls(index int) (map[string]string, error)
	// SetSysctl sets one of Sysctls. Those of net.ipv6.conf other than addr_gen_mode cannot be set if /proc/sys is
	// read-only: the error is EROFS.
	SetSysctl(index int, name, value string) error
	// Sessions lists the host's own addresses and ports to which a client is connected by TCP: those of established
	// connections to a port that a program listens on, or to the port of ssh, whose server may be restarting.
	Sessions() ([]netip.AddrPort, error)

	// Neighbours.

	// Solicit has the kernel resolve an address by ARP or IPv6 neighbour discovery. It adds a neighbour entry.
	Solicit(index int, a netip.Addr) error
	// Neighbour returns the MAC of a neighbour that answered just now, "" if none did; known is true if the address has
	// an entry.
	Neighbour(index int, a netip.Addr) (mac MAC, known bool, err error)
	// ForgetNeighbour removes an entry, if there is one.
	ForgetNeighbour(index int, a netip.Addr) error

	// Tuning: ethtool and interrupts.

	// Tuning reads queues, rings and offloads of a link. What its driver does not have is zero.
	Tuning(index int) (Tuning, error)
	// DriverInfo returns what the driver of a link says of itself (ETHTOOL_GDRVINFO). The error matches ErrUnsupported if that is nothing.
	DriverInfo(index int) (DriverInfo, error)
	// SetTuning sets one attribute of a link's tuning to its value in want; of the features, which of those that want
	// names are wanted. Success does not mean that the driver did it.
	SetTuning(index int, a TuningAttr, want Tuning) error
	// Controls lists what ethtool and bpf can set on a link besides, see [Control]. What its driver does not have, and what the
	// kernel does not show, is left out.
	Controls(index int) ([]Control, error)
	// SetControl gives a control of a link its value; one without a value is removed.
	SetControl(index int, c Control) error
	// Affinity lists the CPUs that may serve an interrupt, such as "0-3,7". The error matches ErrNotFound if no driver
	// has requested the interrupt.
	Affinity(irq int) (string, error)
	// SetAffinity sets the CPUs that may serve an interrupt. For an interrupt that the kernel manages itself
	// (IRQD_AFFINITY_MANAGED) the error is EPERM or, in older kernels, EIO. A kernel that is still applying an earlier
	// setting may accept this one and not keep it.
	SetAffinity(irq int, cpus string) error
}

// An Entry is one thing that is configured on a link, as the kernel's own message, so that what this package does not know
// is restored, too.
type Entry struct {
	Kind EntryKind
	Text string // for people: "route 198.51.100.0/24 via 192.0.2.1 metric 100"
	Body []byte // a message without ifindex, counters and lifetimes: two entries with the same body are the same
	// ValidSec is the remaining life of an address or route in seconds; 0 means for ever.
	ValidSec int `json:",omitempty"`
	// PrefSec is the remaining preferred life of an address; 0 means for ever, -1 that it is over (a deprecated address).
	PrefSec int `json:",omitempty"`
	// Address is an address without its prefix length, or the source address of a route; "" for none.
	Address string `json:",omitempty"`
	// Beside is set for an IPv4 route that has another one to the same destination and with the same metric before it.
	Beside bool `json:",omitempty"`
}

// EntryKind is a kind of entry.
type EntryKind string

// The kinds of entries.
const (
	EntryBridgePort EntryKind = "bridge port" // its settings and VLANs
	EntryFDB        EntryKind = "fdb entry"   // a static entry of the forwarding database of the link's bridge
	EntryQdisc      EntryKind = "qdisc"
	EntryClass      EntryKind = "class" // of a qdisc
	EntryAddress    EntryKind = "address"
	EntryNeighbour  EntryKind = "neighbour"
	EntryRoute      EntryKind = "route"
)

// Same returns true if two entries are the same, whatever their lives.
func (e Entry) Same(o Entry) bool { return e.Kind == o.Kind && bytes.Equal(e.Body, o.Body) }

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

// A HealthReporter watches a part of a function, such as its firmware or its transmit queues, as devlink health shows it.
type HealthReporter struct {
	Name        string
	Failed      bool   // it is in the state "error": what it watches does not work now
	Errors      uint64 // since the driver was loaded
	Recoveries  uint64 // successful ones
	AutoRecover bool   // the driver tries to recover by itself
}
