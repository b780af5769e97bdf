package option

import (
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/opttable"
)

// An Option is one row of the options table: all that the parser, the errors and the README say about it.
type Option struct {
	row
	Modes []string // the modes that know it; none means all
	For   Scope
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

// find finds an option among some of the table's. The error lists their names in alphabetical order.
func find(among []Option, name string) (row, error) { return table(among).Sorted().Find(name) }

// containerOptions returns the options that can be given for a container.
func containerOptions() []Option {
	return slices.DeleteFunc(Options(), func(o Option) bool { return o.For == ForNetwork })
}

var (
	// vfsOnly are the modes of options that are set through a VF's PF.
	vfsOnly = []string{ModeSRIOV}
	// nicsOnly are the modes of options that are set on a device itself, not on a child of one.
	nicsOnly = []string{ModeSRIOV, ModePassthrough}
)

var options = []Option{
	{For: ForNetwork, row: row{
		Name: "netdevice", Default: "required",
		Values: "name or PCI address; for PFs also several, a pattern of names, vendor:device, driver:NAME",
		Help:   "the PFs whose VFs containers get, the device to hand over whole, or the one to make children on; DEVICES can name them",
		Parse:  func(n *Network, v string) error { n.Netdevice = v; return nil },
	}},
	{For: ForNetwork, row: row{
		Name: "mode", Values: "sriov, passthrough, macvlan, ipvlan or ipoib", Default: "sriov",
		Help: "sriov: each container gets a VF; passthrough: one container gets the whole device; the others: each " +
			"container gets a child of the device, which stays in the host",
		Parse: word(func(n *Network) *string { return &n.Mode }, Modes()...),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "vlan", Values: "0 to 4094", Default: "left as it is",
		Help:  "VLAN that the NIC puts the VFs in; 0 makes them untagged",
		Parse: number(0, 4094, func(n *Network) **int { return &n.VLAN }),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "privileged", Values: "yes or no (also 1, true, on; 0, false, off)", Default: "no",
		Help:  "yes: spoof check off and trust on, for software that changes MACs or sniffs; no: the reverse",
		Parse: boolean(func(n *Network) **bool { return &n.Privileged }),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "vlan_qos", Values: "0 to 7", Default: "0",
		Help:  "802.1p priority of the VLAN tag",
		Parse: number(0, 7, func(n *Network) **int { return &n.VLANQoS }),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "vlan_proto", Values: "802.1q or 802.1ad", Default: "802.1q",
		Help: "protocol of the VLAN tag",
		Parse: oneOf(func(n *Network) **hw.VLANProto { return &n.VLANProto },
			map[string]hw.VLANProto{"802.1q": "", "802.1ad": hw.Dot1AD}),
	}},
	{For: ForContainer, row: row{
		Name: "mac", Values: "six octets, not zero, not multicast", Default: "the device's own",
		Help:  "as --mac-address, for docker network connect, which has no such flag",
		Parse: func(n *Network, v string) (err error) { n.MAC, err = ParseMAC(v); return err },
	}},
	{For: ForContainer, Modes: vfsOnly, row: row{
		Name: "guid", Values: "eight octets, not all zero, not all ones", Default: "a stable one for each VF",
		Help:  "node and port GUID of the VF of an InfiniBand PF",
		Parse: func(n *Network, v string) (err error) { n.GUID, err = parseGUID(v); return err },
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "spoofchk", Values: "yes or no", Default: "the opposite of privileged",
		Help:  "drop frames that a VF sends with another MAC than its own",
		Parse: boolean(func(n *Network) **bool { return &n.Spoofchk }),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "trust", Values: "yes or no", Default: "as privileged",
		Help:  "let a VF change its MAC and receive what is not for it",
		Parse: boolean(func(n *Network) **bool { return &n.Trust }),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "link_state", Values: "auto, enable or disable", Default: "left as it is",
		Help: "whether a VF sees the PF's link (auto, which InfiniBand VFs do unless told otherwise), always a link, or none",
		Parse: oneOf(func(n *Network) **hw.LinkMode { return &n.LinkMode },
			map[string]hw.LinkMode{"auto": "", "enable": hw.LinkEnable, "disable": hw.LinkDisable}),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "min_tx_rate", Values: "Mbit/s, 0 for none", Default: "left as it is",
		Help:  "rate that a VF can send at in any case",
		Parse: number(0, 1<<24, func(n *Network) **int { return &n.MinRate }),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "max_tx_rate", Values: "Mbit/s, 0 for no limit", Default: "left as it is",
		Help:  "rate that a VF cannot exceed",
		Parse: number(0, 1<<24, func(n *Network) **int { return &n.MaxRate }),
	}},
	{For: ForBoth, row: row{
		Name: "mtu", Values: "68 to 65535", Default: "left as it is",
		Help:  "MTU of the device; a VF's cannot be above its PF's, nor a child's above its parent's",
		Parse: number(68, 65535, func(n *Network) **int { return &n.MTU }),
	}},
	{For: ForBoth, row: row{
		Name: "txqlen", Values: "1 to 100000", Default: "left as it is",
		Help:  "length of the device's transmit queue, in packets",
		Parse: number(1, 100000, func(n *Network) **int { return &n.TxQLen }),
	}},
	{For: ForBoth, row: row{
		Name: "promisc", Values: "yes or no", Default: "left as it is",
		Help:  "receive everything; a VF has to be trusted for it",
		Parse: boolean(func(n *Network) **bool { return &n.Promisc }),
	}},
	{For: ForBoth, row: row{
		Name: "allmulti", Values: "yes or no", Default: "left as it is",
		Help:  "receive all multicast; a VF has to be trusted for it",
		Parse: boolean(func(n *Network) **bool { return &n.AllMulti }),
	}},
	{For: ForBoth, Modes: nicsOnly, row: row{
		Name: "queues", Values: "1 to what the device can", Default: "left as it is",
		Help:  "receive and transmit queues of the device (ethtool -L)",
		Parse: number(1, 1<<12, func(n *Network) **int { return &n.Queues }),
	}},
	{For: ForBoth, Modes: nicsOnly, row: row{
		Name: "ring_rx", Values: "1 to what the device can", Default: "left as it is",
		Help:  "packets that a receive queue holds (ethtool -G)",
		Parse: number(1, 1<<24, func(n *Network) **int { return &n.RxRing }),
	}},
	{For: ForBoth, Modes: nicsOnly, row: row{
		Name: "ring_tx", Values: "1 to what the device can", Default: "left as it is",
		Help:  "packets that a transmit queue holds (ethtool -G)",
		Parse: number(1, 1<<24, func(n *Network) **int { return &n.TxRing }),
	}},
	{For: ForBoth, Modes: nicsOnly, row: row{
		Name: "ethtool", Values: "FEATURE=on or FEATURE=off, separated by commas, such as gro=off,tso=on", Default: "left as they are",
		Help:  "offloads of the device, by the names that ethtool -k and -K know",
		Parse: func(n *Network, v string) (err error) { n.Features, err = parseFeatures(v); return err },
	}},
	{For: ForBoth, Modes: nicsOnly, row: row{
		Name: "cores", Values: "CPUs such as 2,4-7, numa or none", Default: "left as they are",
		Help:  "CPUs that the device's interrupts are spread over; numa: those of its NUMA node",
		Parse: func(n *Network, v string) (err error) { n.Cores, err = parseCores(v); return err },
	}},
	{For: ForNetwork, row: row{
		Name: "lock", Values: "names of options, separated by commas, or all", Default: "none",
		Help: "options that cannot be overridden for a container",
		Parse: func(n *Network, v string) error {
			n.Lock = strings.Split(strings.ToLower(strings.ReplaceAll(v, " ", "")), ",")
			return nil
		},
	}},
	{For: ForContainer, Modes: vfsOnly, row: row{
		Name: "vf", Values: "index, PCI address, MAC or name of a VF", Default: "the first that is free",
		Help:  "the VF that the container gets",
		Parse: func(n *Network, v string) error { n.VF = v; return nil },
	}},
	{For: ForContainer, Modes: vfsOnly, row: row{
		Name: "sticky", Values: "a text of up to 200 bytes",
		Default: "the --mac-address; without one, the container's name (from engine 29 on), then its address",
		Help:    "a container that comes with the same text gets the same VF again, if that is free",
		Parse: func(n *Network, v string) error {
			if n.Sticky = v; len(v) > 200 {
				return opttable.ErrNotAllowed
			}
			return nil
		},
	}},
	{For: ForNetwork, Modes: vfsOnly, row: row{
		Name: "vfs", Values: "indexes and ranges of VFs, such as 0-3,7", Default: "all",
		Help:  "the VFs that the network uses, so that networks can split a PF",
		Parse: func(n *Network, v string) (err error) { n.VFs, err = parseRanges(v); return err },
	}},
	{For: ForNetwork, Modes: vfsOnly, row: row{
		Name: "bond", Values: "active-backup, 802.3ad or balance-xor", Default: "none",
		Help:  "containers get a bond of one VF of each PF, of which there have to be several",
		Parse: word(func(n *Network) *string { return &n.Bond }, hw.Modes(hw.Bond)...),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "policy", Values: "spread or pack", Default: "spread",
		Help:  "which of several PFs comes first: the one with the fewest VFs lent, or with the most",
		Parse: word(func(n *Network) *string { return &n.Policy }, PolicySpread, PolicyPack),
	}},
	{For: ForBoth, Modes: vfsOnly, row: row{
		Name: "numa", Values: "number of a NUMA node, auto or none", Default: "none",
		Help:  "PFs of that node come first; auto: of the one that cores is on, or else the one whose PFs are used most already",
		Parse: func(n *Network, v string) (err error) { n.NUMA, err = parseNUMA(v); return err },
	}},
	{For: ForNetwork, Modes: vfsOnly, row: row{
		Name: "numvfs", Values: "1 to what the NIC can", Default: "all",
		Help:  "how many VFs to make on a PF that has none yet",
		Parse: func(n *Network, v string) (err error) { n.NumVFs, err = inRange(v, 1, 1<<16); return err },
	}},
	{For: ForBoth, row: row{
		Name: "prefix", Values: "up to 10 letters, digits, _, - and .", Default: "eth",
		Help:  "name of the device in the container, without its number",
		Parse: matching(validPrefix, func(n *Network) *string { return &n.Prefix }),
	}},
	childMode("macvlan_mode", "bridge, private or vepa", ModeMacvlan,
		"whether containers reach each other: directly, not at all, or by way of the switch"),
	childMode("ipvlan_mode", "l2, l3 or l3s", ModeIPVlan,
		"whether containers are on the device's network (l2), or the host routes to them (l3; l3s: by its firewall, too)"),
	childMode("ipoib_mode", "datagram or connected", ModeIPoIB, "how IP is carried over InfiniBand"),
	{For: ForNetwork, Modes: []string{ModeIPoIB}, row: row{
		Name: "pkey", Values: "0x0001 to 0x7fff, or 0x8001 to 0xffff", Default: "the device's",
		Help:  "partition that the children are full members of",
		Parse: func(n *Network, v string) (err error) { n.PKey, err = parsePKey(v); return err },
	}},
	{For: ForNetwork, Modes: []string{ModePassthrough}, row: row{
		Name: "force", Values: "yes or no", Default: "no",
		Help:  "yes: hand the device over even if the host is reached through it",
		Parse: func(n *Network, v string) (err error) { n.Force, err = parseBool(v); return err },
	}},
	{For: ForNetwork, row: row{
		Name: "replace", Values: "ID of a network, or its first 12 characters", Default: "none",
		Help:  "this network takes the place of one that the engine does not have any more, and that a crash has left behind",
		Parse: matching(partOfID, func(n *Network) *string { return &n.Replace }),
	}},
	{For: ForNetwork, row: row{
		Name: "gateway", Values: "none or auto", Default: "only the one given with --gateway",
		Help:  "auto: also a default route through the gateway that the IPAM driver chooses; none: no default route at all",
		Parse: word(func(n *Network) *string { return &n.Gateway }, GatewayNone, GatewayAuto),
	}},
}

// childMode is the row for the mode of the children of one kind.
func childMode(name, values, kind, help string) Option {
	allowed := slices.DeleteFunc(slices.Clone(hw.Modes(kind)), func(m string) bool { return m == Passthru })
	return Option{For: ForNetwork, Modes: []string{kind}, row: row{
		Name: name, Values: values, Default: defaultChildMode[kind], Help: help,
		Parse: word(func(n *Network) *string { return &n.ChildMode }, allowed...),
	}}
}
