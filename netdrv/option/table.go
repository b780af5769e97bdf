package option

import (
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/opttable"
)

// An Option is one row of the options table: all that the parser, the errors and docs/options.md say about it.
type Option struct {
	row
	Modes []string // the modes that know it; none means all
	For   Scope
	// NetworkModes are modes in which an option that is for both can only be given for a network.
	NetworkModes []string
	// OneVF is set for an option that is about the choice of one VF among several PFs. A bond has one of each.
	OneVF bool
	// OfNetdev is set for an option that sets something on the netdev or in the container's network. With the option driver there is none.
	OfNetdev bool

	// vf and link apply the value to a spec, if the user gave one; nil for an option that is not part of that spec.
	vf   func(c *Container, s *hw.VFSpec)
	link func(c *Container, s *hw.LinkSpec)
}

type row = opttable.Option[Network]

// A Scope says whom an option can be given for.
type Scope string

// What an option can be given for. One for both that is given for a container overrides the network's, unless the
// network locks it.
const (
	ForNetwork   Scope = "network"
	ForContainer Scope = "container"
	ForBoth      Scope = "both"
)

// Options returns the table of the options of networks (docker network create -o) and containers (driver-opt).
func Options() []Option { return slices.Clone(options) }

// table returns options as a table that finds and parses them.
func table(options []Option) opttable.Table[Network] {
	t := opttable.Table[Network]{Noun: "option"}
	for _, o := range options {
		t.Options = append(t.Options, o.row)
	}
	return t
}

// known is the table of all options.
var known = table(options)

// Known returns whether there is an option of this name.
func Known(name string) bool { return checkKnown(options, name) == nil }

// checkKnown returns an error, which lists their names in alphabetical order, if name is none of some options of the table.
func checkKnown(among []Option, name string) error {
	if slices.ContainsFunc(among, func(o Option) bool { return strings.EqualFold(o.Name, name) }) {
		return nil
	}
	_, err := table(among).Sorted().Find(name)
	return err
}

// containerOptions returns the options that can be given for a container.
func containerOptions() []Option {
	return slices.DeleteFunc(Options(), func(o Option) bool { return o.For == ForNetwork })
}

// network returns the parser of an option whose value is a field of Network.
func network[T any](field func(*Network) *T, parse func(string) (T, error)) func(*Network, string) error {
	return func(n *Network, text string) error {
		value, err := parse(text)
		if err == nil {
			*field(n) = value
		}
		return err
	}
}

// container returns the parser of an option whose value is a field of Container.
func container[T any](field func(*Container) *T, parse func(string) (T, error)) func(*Network, string) error {
	return network(func(n *Network) *T { return field(&n.Container) }, parse)
}

// vfAttr returns the row of an attribute that a PF sets for its VFs: field is where the user's value is, at where it is in the spec.
func vfAttr[T any](attr hw.VFAttr, parse func(string) (T, error), field func(*Container) **T, at func(*hw.VFState) *T, r row) Option {
	r.Parse = container(field, pointer(parse))
	return Option{For: ForBoth, Modes: vfsOnly, row: r, vf: func(c *Container, s *hw.VFSpec) {
		require(s.Policies, attr, *field(c), at(&s.VFState))
	}}
}

// linkAttr returns the row of an attribute of a netdev, as vfAttr does.
func linkAttr[T any](attr hw.LinkAttr, parse func(string) (T, error), field func(*Container) **T, at func(*hw.LinkState) *T, r row) Option {
	r.Parse = container(field, pointer(parse))
	return Option{For: ForBoth, row: r, link: func(c *Container, s *hw.LinkSpec) {
		require(s.Policies, attr, *field(c), at(&s.LinkState))
	}}
}

// segmentValues are those of segment: those of Linux 6.12 (include/linux/netdevice.h, GSO_MAX_SIZE), and not less than a header.
const segmentValues = "1024 to 524280"

var segment = within(1024, 524280)

var (
	// vfsOnly are the modes of options that are set through a VF's PF.
	vfsOnly = []string{ModeSRIOV}
	// onVLANs are the modes whose children can be on a VLAN device.
	onVLANs = []string{ModeMacvlan, ModeIPVlan}
	// nicsOnly are the modes of options that are set on a device itself, not on a child of one.
	nicsOnly = []string{ModeSRIOV, ModePassthrough}
)

// options is the table. Of an attribute of a VF or of a netdev it has all but the attribute itself, which is a row in package hw. The
// specs are made in the order of the rows: a later row overrides an earlier one.
var options = []Option{
	{For: ForNetwork, row: row{
		Name: "netdevice", Default: "required",
		Values: "name or PCI address; for PFs also several, a pattern of names, vendor:device, driver:NAME",
		Help:   "the PFs whose VFs containers get, or the device that a container gets whole, or of which it gets a child; the setting DEVICES can name them",
		Parse:  network(func(n *Network) *string { return &n.Netdevice }, text),
	}},
	{For: ForNetwork, Modes: onVLANs, row: row{
		Name: "parent", Values: "as for netdevice", Default: "none",
		Help:  "netdevice, by the name that it has in Docker's own macvlan and ipvlan drivers",
		Parse: network(func(n *Network) *string { return &n.Parent }, text),
	}},
	{For: ForNetwork, row: row{
		Name: "mode", Values: "sriov, passthrough, macvlan, ipvlan or ipoib", Default: "sriov",
		Help: "sriov: each container gets a VF; passthrough: one container gets the whole device; the others: each " +
			"container gets a child of the device, which stays in the host",
		Parse: network(func(n *Network) *string { return &n.Mode }, word(Modes()...)),
	}},
	{For: ForBoth, Modes: []string{ModeSRIOV, ModeMacvlan, ModeIPVlan}, NetworkModes: onVLANs, vf: setVLAN, row: row{
		Name: "vlan", Values: "0 to 4094, or keep", Default: "0",
		Help: "VLAN that the NIC puts the VFs in; 0: untagged; keep: the one that an administrator has set for each VF by hand. With " +
			"macvlan and ipvlan, for a network only: the VLAN device on which children are made, such as eth0.100, is created if there is none",
		Parse: parseVLAN,
	}},
	{For: ForBoth, Modes: vfsOnly, vf: setPrivileged, row: row{
		Name: "privileged", Values: "yes or no (also 1, true, on; 0, false, off)", Default: "no",
		Help:  "yes: spoof check off and trust on, for software that changes MACs or sniffs; no: the reverse",
		Parse: container(func(c *Container) **bool { return &c.Privileged }, pointer(boolean)),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "vlan_qos", Values: "0 to 7", Default: "0",
		Help:  "802.1p priority of the VLAN tag",
		Parse: container(func(c *Container) **int { return &c.VLANQoS }, pointer(within(0, 7))),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "vlan_proto", Values: "802.1q or 802.1ad", Default: "802.1q",
		Help: "protocol of the VLAN tag",
		Parse: container(func(c *Container) **hw.VLANProto { return &c.VLANProto },
			pointer(oneOf(map[string]hw.VLANProto{"802.1q": "", "802.1ad": hw.Dot1AD}))),
	}},
	{For: ForContainer, vf: setMAC, row: row{
		Name: "mac", Values: "six octets, not zero, not multicast", Default: "the device's own",
		Help:  "as --mac-address, for docker network connect, which has no such flag",
		Parse: container(func(c *Container) *hw.MAC { return &c.MAC }, ParseMAC),
	}},
	{For: ForContainer, Modes: vfsOnly, vf: setGUID, row: row{
		Name: "guid", Values: "eight octets, not all zero, not all ones", Default: "a stable one for each VF",
		Help:  "node and port GUID of the VF of an InfiniBand PF",
		Parse: container(func(c *Container) *hw.GUID { return &c.GUID }, guid),
	}},
	vfAttr(hw.VFSpoofchk, boolean, func(c *Container) **bool { return &c.Spoofchk }, func(s *hw.VFState) *bool { return &s.Spoofchk }, row{
		Name: "spoofchk", Values: "yes or no", Default: "the opposite of privileged",
		Help: "drop frames that a VF sends with another MAC than its own",
	}),
	vfAttr(hw.VFTrust, boolean, func(c *Container) **bool { return &c.Trust }, func(s *hw.VFState) *bool { return &s.Trust }, row{
		Name: "trust", Values: "yes or no", Default: "as privileged",
		Help: "let a VF change its MAC and receive frames for other MACs",
	}),
	vfAttr(hw.VFLinkState, oneOf(map[string]hw.LinkMode{"auto": "", "enable": hw.LinkEnable, "disable": hw.LinkDisable}),
		func(c *Container) **hw.LinkMode { return &c.LinkMode }, func(s *hw.VFState) *hw.LinkMode { return &s.LinkMode }, row{
			Name: "link_state", Values: "auto, enable or disable", Default: "left as it is",
			Help: "link of a VF: as the PF's (auto, the default on InfiniBand), always up, or always down",
		}),
	vfAttr(hw.VFRate, within(0, 1<<24), func(c *Container) **int { return &c.MinRate }, func(s *hw.VFState) *int { return &s.Rate.Min }, row{
		Name: "min_tx_rate", Values: "Mbit/s, 0 for none", Default: "left as it is",
		Help: "guaranteed transmit rate of a VF",
	}),
	vfAttr(hw.VFRate, within(0, 1<<24), func(c *Container) **int { return &c.MaxRate }, func(s *hw.VFState) *int { return &s.Rate.Max }, row{
		Name: "max_tx_rate", Values: "Mbit/s, 0 for no limit", Default: "left as it is",
		Help: "maximum transmit rate of a VF",
	}),
	linkAttr(hw.LinkMTU, within(68, 65535), func(c *Container) **int { return &c.MTU }, func(s *hw.LinkState) *int { return &s.MTU }, row{
		Name: "mtu", Values: "68 to 65535", Default: "left as it is",
		Help: "MTU of the device; a VF's cannot be above its PF's, nor a child's above its parent's",
	}),
	linkAttr(hw.LinkTxQLen, within(1, 100000), func(c *Container) **int { return &c.TxQLen }, func(s *hw.LinkState) *int { return &s.TxQLen }, row{
		Name: "txqlen", Values: "1 to 100000", Default: "left as it is",
		Help: "length of the device's transmit queue, in packets",
	}),
	linkAttr(hw.LinkPromisc, boolean, func(c *Container) **bool { return &c.Promisc }, func(s *hw.LinkState) *bool { return &s.Promisc }, row{
		Name: "promisc", Values: "yes or no", Default: "left as it is",
		Help: "receive all frames; a VF needs trust for it",
	}),
	linkAttr(hw.LinkAllMulti, boolean, func(c *Container) **bool { return &c.AllMulti }, func(s *hw.LinkState) *bool { return &s.AllMulti }, row{
		Name: "allmulti", Values: "yes or no", Default: "left as it is",
		Help: "receive all multicast frames; a VF needs trust for it",
	}),
	linkAttr(hw.LinkGSOMaxSize, segment, func(c *Container) **int { return &c.GSO }, func(s *hw.LinkState) *int { return &s.Segments.GSOMaxSize }, row{
		Name: "gso_max_size", Values: segmentValues, Default: "left as it is",
		Help: "bytes of the largest packet that is handed to the device, which cuts it into frames; above 65536 for IPv6 only (Big TCP)",
	}),
	linkAttr(hw.LinkGROMaxSize, segment, func(c *Container) **int { return &c.GRO }, func(s *hw.LinkState) *int { return &s.Segments.GROMaxSize }, row{
		Name: "gro_max_size", Values: segmentValues, Default: "left as it is",
		Help: "bytes of the largest packet that frames are put together to; above 65536 for IPv6 only",
	}),
	linkAttr(hw.LinkGSOIPv4MaxSize, segment, func(c *Container) **int { return &c.GSOIPv4 }, func(s *hw.LinkState) *int { return &s.Segments.GSOIPv4MaxSize }, row{
		Name: "gso_ipv4_max_size", Values: segmentValues, Default: "as gso_max_size, at most 65536",
		Help: "gso_max_size of IPv4 (Linux 6.3 and newer)",
	}),
	linkAttr(hw.LinkGROIPv4MaxSize, segment, func(c *Container) **int { return &c.GROIPv4 }, func(s *hw.LinkState) *int { return &s.Segments.GROIPv4MaxSize }, row{
		Name: "gro_ipv4_max_size", Values: segmentValues, Default: "as gro_max_size, at most 65536",
		Help: "gro_max_size of IPv4 (Linux 6.3 and newer)",
	}),
	{For: ForBoth, Modes: nicsOnly, OfNetdev: true, row: row{
		Name: "queues", Values: "1 to what the device can", Default: "left as it is",
		Help:  "receive and transmit queues of the device (ethtool -L)",
		Parse: container(func(c *Container) *int { return &c.Queues }, within(1, 1<<12)),
	}},
	{For: ForBoth, Modes: nicsOnly, OfNetdev: true, row: row{
		Name: "ring_rx", Values: "1 to what the device can", Default: "left as it is",
		Help:  "packets that a receive queue holds (ethtool -G)",
		Parse: container(func(c *Container) *int { return &c.RxRing }, within(1, 1<<24)),
	}},
	{For: ForBoth, Modes: nicsOnly, OfNetdev: true, row: row{
		Name: "ring_tx", Values: "1 to what the device can", Default: "left as it is",
		Help:  "packets that a transmit queue holds (ethtool -G)",
		Parse: container(func(c *Container) *int { return &c.TxRing }, within(1, 1<<24)),
	}},
	{For: ForBoth, Modes: nicsOnly, OfNetdev: true, row: row{
		Name: "ethtool", Values: "FEATURE=on or FEATURE=off, separated by commas, such as gro=off,tso=on", Default: "left as they are",
		Help:  "offloads of the device, by the names that ethtool -k and -K know",
		Parse: container(func(c *Container) *hw.Features { return &c.Features }, features),
	}},
	{For: ForBoth, Modes: nicsOnly, OfNetdev: true, row: row{
		Name: "private_flags", Values: "FLAG=on or FLAG=off, separated by commas, such as legacy-rx=on", Default: "left as they are",
		Help:  "switches that the device's driver has for itself (ethtool --show-priv-flags)",
		Parse: container(func(c *Container) *hw.Features { return &c.Flags }, features),
	}},
	{For: ForBoth, Modes: nicsOnly, OfNetdev: true, row: row{
		Name: "cores", Values: "CPUs such as 2,4-7, numa or none", Default: "left as they are",
		Help:  "CPUs that the device's interrupts are spread over; numa: those of its NUMA node",
		Parse: container(func(c *Container) *hw.Cores { return &c.Cores }, cores),
	}},
	{For: ForBoth, Modes: vfsOnly, OneVF: true, OfNetdev: true, row: row{
		Name: "rdma", Values: "yes, no or require", Default: "moved where that is possible",
		Help: "the RDMA device of a VF. yes: there must be one, and it is moved into the container if the host has RDMA devices in exclusive mode; " +
			"require: as yes, and the host must be in exclusive mode; no: it stays in the host. See docs/hpc.md",
		Parse: container(func(c *Container) *string { return &c.RDMA }, word(RDMAYes, RDMANo, RDMARequire)),
	}},
	{For: ForNetwork, row: row{
		Name: "lock", Values: "names of options, separated by commas, or all", Default: "none",
		Help:  "options that cannot be given for a container; mac is also --mac-address",
		Parse: network(func(n *Network) *[]string { return &n.Lock }, words),
	}},
	{For: ForContainer, Modes: vfsOnly, row: row{
		Name: "vf", Values: "index, PCI address, MAC or name of a VF", Default: "the first that is free",
		Help:  "the VF that the container gets",
		Parse: container(func(c *Container) *string { return &c.VF }, vfRef),
	}},
	{For: ForContainer, Modes: vfsOnly, OneVF: true, row: row{
		Name: "sticky", Values: "a text of up to 200 bytes",
		Default: "the --mac-address; without one, the container's name (from engine 29 on), then its address",
		Help:    "VF affinity: a container with the same text gets the same VF again, if that is free; four texts are remembered for each VF",
		Parse:   container(func(c *Container) *string { return &c.Sticky }, upTo(200)),
	}},
	{For: ForNetwork, Modes: vfsOnly, row: row{
		Name: "vfs", Values: "indexes and ranges of VFs, such as 0-3,7", Default: "all",
		Help:  "the VFs that the network uses, so that networks can split a PF",
		Parse: network(func(n *Network) *[]int { return &n.VFs }, ranges),
	}},
	{For: ForNetwork, Modes: vfsOnly, OfNetdev: true, row: row{
		Name: "bond", Values: "active-backup, 802.3ad or balance-xor", Default: "none",
		Help:  "each container gets a bond of one VF of each PF; it takes two PFs or more",
		Parse: network(func(n *Network) *string { return &n.Bond }, word(hw.Modes(hw.Bond)...)),
	}},
	{For: ForNetwork, Modes: vfsOnly, row: row{
		Name: "driver", Values: "vfio-pci", Default: "the kernel's own",
		Help: "vfio-pci: a program in the container drives the VF itself, as with DPDK; it has no netdev then, and options that set something on one " +
			"are refused; see docs/nfv.md",
		Parse: network(func(n *Network) *string { return &n.Driver }, word(DriverVFIO)),
	}},
	{For: ForNetwork, Modes: vfsOnly, row: row{
		Name: "bridge", Values: "name of a Linux bridge", Default: "none",
		Help: "for NICs in switchdev mode: while a container has a VF, its representor is a port of the bridge, untagged in vlan, and tagged in " +
			"those of trunk; see docs/switchdev.md",
		Parse: network(func(n *Network) *string { return &n.Bridge }, bridgeName),
	}},
	{For: ForNetwork, Modes: vfsOnly, vf: setTrunk, row: row{
		Name: "trunk", Values: "VLANs and ranges of them, such as 100-200,300", Default: "left as it is",
		Help: "the only VLANs whose frames a container sends and receives tagged: with bridge those of its representor's port, without it set by drivers " +
			"that NICs' vendors ship; see docs/switchdev.md",
		Parse: container(func(c *Container) *string { return &c.Trunk }, trunk),
	}},
	{For: ForBoth, Modes: vfsOnly, OneVF: true, row: row{
		Name: "policy", Values: "spread or pack", Default: "spread",
		Help:  "which of several PFs comes first: the one with the fewest VFs in use, or with the most",
		Parse: container(func(c *Container) *string { return &c.Policy }, word(PolicySpread, PolicyPack)),
	}},
	{For: ForBoth, Modes: vfsOnly, OneVF: true, row: row{
		Name: "numa", Values: "number of a NUMA node, auto or none", Default: "none",
		Help:  "PFs of that node come first; auto: the node of the option cores, or else the one with the most VFs in use",
		Parse: container(func(c *Container) *NUMA { return &c.NUMA }, numa),
	}},
	{For: ForBoth, Modes: vfsOnly, OneVF: true, row: row{
		Name: "near", Values: "PCI address, gpu or none", Default: "none",
		Help: "PFs that are near to that PCI device come first: behind the same switch or root port, then on the same root complex, then on the same " +
			"NUMA node; gpu: near to any GPU or accelerator. See docs/hpc.md",
		Parse: container(func(c *Container) *string { return &c.Near }, near),
	}},
	{For: ForNetwork, Modes: vfsOnly, row: row{
		Name: "numvfs", Values: "1 to what the NIC can", Default: "all",
		Help:  "how many VFs to create on a PF that has none",
		Parse: network(func(n *Network) *int { return &n.NumVFs }, within(1, 1<<16)),
	}},
	{For: ForBoth, OfNetdev: true, row: row{
		Name: "prefix", Values: "up to 10 letters, digits, _, - and .", Default: "eth",
		Help:  "name of the device in the container, without its number",
		Parse: container(func(c *Container) *string { return &c.Prefix }, matching(validPrefix)),
	}},
	{For: ForBoth, OfNetdev: true, row: row{
		Name: "ifname", Values: "up to 15 letters, digits, _, - and ., but not lo, all or default", Default: "prefix and a number",
		Help: "exact name of the device in the container, as interface_name of Compose and com.docker.network.endpoint.ifname; needs " +
			"engine 29.8 or newer",
		Parse: container(func(c *Container) *string { return &c.Ifname }, ifname),
	}},
	childMode("macvlan_mode", "bridge, private or vepa", ModeMacvlan,
		"whether containers reach each other: directly, not at all, or by way of the switch"),
	childMode("ipvlan_mode", "l2, l3 or l3s", ModeIPVlan,
		"whether containers are on the device's network (l2), or behind the host as behind a router (l3; l3s: by its firewall, too; see "+
			"docs/l3.md). In l3 and l3s a container has a default route through its device"),
	{For: ForNetwork, Modes: []string{ModeIPVlan}, row: row{
		Name: "announce", Values: "container, subnet or none", Default: "container",
		Help: "which routes the host has in ipvlan_mode=l3 and l3s for a routing daemon such as BIRD: one for each container's address, or one for " +
			"the subnet while it has containers; see docs/l3.md",
		Parse: network(func(n *Network) *string { return &n.Announce }, word(AnnounceContainer, AnnounceSubnet, AnnounceNone)),
	}},
	{For: ForNetwork, Modes: []string{ModeIPVlan}, row: row{
		Name: "ipvlan_flag", Values: "bridge, private or vepa", Default: "bridge",
		Help:  "whether containers on the device reach each other: directly, not at all, or by way of the switch, which has to send frames back",
		Parse: network(func(n *Network) *string { return &n.IPVlanFlag }, word(hw.IPVlanFlags()...)),
	}},
	childMode("ipoib_mode", "datagram or connected", ModeIPoIB, "how IP is carried over InfiniBand"),
	{For: ForNetwork, Modes: []string{ModeIPoIB}, row: row{
		Name: "pkey", Values: "0x0001 to 0x7fff, or 0x8001 to 0xffff", Default: "the device's",
		Help:  "partition that the children are full members of",
		Parse: network(func(n *Network) *int { return &n.PKey }, pkey),
	}},
	{For: ForNetwork, Modes: []string{ModeSRIOV, ModeMacvlan, ModeIPVlan}, row: row{
		Name: "host_access", Values: "yes or no", Default: "no",
		Help: "yes: host and containers reach each other; the host gets a child of the device or PF, with the address of --aux-address host=ADDRESS " +
			"(and host6=)",
		Parse: network(func(n *Network) *bool { return &n.HostAccess }, boolean),
	}},
	{For: ForNetwork, Modes: []string{ModePassthrough, ModeSRIOV}, row: row{
		Name: "force", Values: "yes or no", Default: "no",
		Help: "yes: hand the device over even if the host uses it: as a port, under a VLAN or another child, with VFs, default routes or TCP " +
			"sessions. With mode=sriov, only for driver: also on a machine without an IOMMU",
		Parse: network(func(n *Network) *bool { return &n.Force }, boolean),
	}},
	{For: ForNetwork, row: row{
		Name: "replace", Values: "ID of a network, or its first 12 characters", Default: "none",
		Help:  "remove a stale network that a crash has left and the engine does not have any more",
		Parse: network(func(n *Network) *string { return &n.Replace }, matching(partOfID)),
	}},
	{For: ForNetwork, row: row{
		Name: "cdi", Values: "up to 63 letters, digits, _ and -, the first a letter, the last not _ or -", Default: "none",
		Help: "the network's VFs, or its device, are CDI devices with that name: --device mellanox.com/NAME=vf3 gives a container the RDMA or VFIO " +
			"files of a VF; see docs/cdi.md",
		Parse: network(func(n *Network) *string { return &n.CDI }, matching(validClass)),
	}},
	{For: ForBoth, OfNetdev: true, row: row{
		Name: "routes", Values: "SUBNET via GATEWAY or SUBNET dev, separated by commas or semicolons; or none", Default: "none",
		Help: "routes of the container through its device: by way of a gateway in the network's subnet, or directly (dev). Those of a " +
			"container take the place of its network's",
		Parse: container(func(c *Container) *[]Route { return &c.Routes }, parseRoutes),
	}},
	{For: ForNetwork, OfNetdev: true, row: row{
		Name: "gateway", Values: "none or auto", Default: "only the one given with --gateway",
		Help:  "auto: also a default route through the gateway that the IPAM driver chooses; none: no default route at all",
		Parse: network(func(n *Network) *string { return &n.Gateway }, word(GatewayNone, GatewayAuto)),
	}},
}

// childMode returns the row for the mode of the children of one kind.
func childMode(name, values, kind, help string) Option {
	allowed := slices.DeleteFunc(slices.Clone(hw.Modes(kind)), func(m string) bool { return m == Passthru })
	return Option{For: ForNetwork, Modes: []string{kind}, row: row{
		Name: name, Values: values, Default: defaultChildMode[kind], Help: help,
		Parse: network(func(n *Network) *string { return &n.ChildMode }, word(allowed...)),
	}}
}
