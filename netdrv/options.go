package netdrv

import (
	"regexp"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
)

// An Option is one row of the options table: all that the parser, the errors and the README say about it.
type Option struct {
	Name    string
	Values  string // what is allowed, as it is told to people
	Default string // what happens when it is not given
	Help    string
	Modes   []string // the modes that know it; none means all
	For     Scope

	parse func(c *config, value string) error
}

// A Scope says whom an option can be given for.
type Scope string

// What an option can be given for. One for both that is given for a container overrides the network's, unless the
// network locks it.
const (
	ForNetwork   Scope = "network"
	ForContainer Scope = "container"
	ForBoth      Scope = "both"
)

// Options is the table of the options of networks (docker network create -o) and containers (driver-opt). It is read-only.
func Options() []Option { return slices.Clone(options) }

var options = []Option{
	{
		Name: "netdevice", For: ForNetwork, Default: "required",
		Values: "name or PCI address; for PFs also several, a pattern of names, vendor:device, driver:NAME",
		Help:   "the PFs whose VFs containers get, the device to hand over whole, or the one to make children on; DEVICES can name them",
		parse:  func(c *config, v string) error { c.netdevice = v; return nil },
	},
	{
		Name: "mode", For: ForNetwork, Values: "sriov, passthrough, macvlan, ipvlan or ipoib", Default: "sriov",
		Help: "sriov: each container gets a VF; passthrough: one container gets the whole device; the others: each " +
			"container gets a child of the device, which stays in the host",
		parse: func(c *config, v string) error {
			c.mode = strings.ToLower(v)
			if !slices.Contains(modes, c.mode) {
				return errNotAllowed
			}
			return nil
		},
	},
	{
		Name: "vlan", For: ForBoth, Values: "0 to 4094", Default: "left as it is", Modes: vfsOnly,
		Help: "VLAN that the NIC puts the VFs in; 0 makes them untagged",
		parse: func(c *config, v string) (err error) {
			c.vlan, err = number(v, 0, 4094)
			return err
		},
	},
	{
		Name: "privileged", For: ForBoth, Values: "yes or no (also 1, true, on; 0, false, off)", Default: "no", Modes: vfsOnly,
		Help: "yes: spoof check off and trust on, for software that changes MACs or sniffs; no: the reverse",
		parse: func(c *config, v string) (err error) {
			c.privileged, err = boolean(v)
			return err
		},
	},
	{
		Name: "vlan_qos", For: ForBoth, Values: "0 to 7", Default: "0", Modes: vfsOnly,
		Help: "802.1p priority of the VLAN tag",
		parse: func(c *config, v string) (err error) {
			c.vlanQoS, err = number(v, 0, 7)
			return err
		},
	},
	{
		Name: "vlan_proto", For: ForBoth, Values: "802.1q or 802.1ad", Default: "802.1q", Modes: vfsOnly,
		Help: "protocol of the VLAN tag",
		parse: func(c *config, v string) (err error) {
			c.vlanProto, err = oneOf(v, map[string]hw.VLANProto{"802.1q": "", "802.1ad": hw.Dot1AD})
			return err
		},
	},
	{
		Name: "mac", For: ForContainer, Values: "six octets, not zero, not multicast", Default: "the device's own",
		Help:  "as --mac-address, for docker network connect, which has no such flag",
		parse: func(c *config, v string) (err error) { c.mac, err = parseMAC(v); return err },
	},
	{
		Name: "guid", For: ForContainer, Values: "eight octets, not all zero, not all ones", Default: "a stable one for each VF",
		Modes: vfsOnly,
		Help:  "node and port GUID of the VF of an InfiniBand PF",
		parse: func(c *config, v string) (err error) { c.guid, err = parseGUID(v); return err },
	},
	boolOption("spoofchk", "the opposite of privileged", "drop frames that a VF sends with another MAC than its own", vfsOnly,
		func(c *config) **bool { return &c.spoofchk }),
	boolOption("trust", "as privileged", "let a VF change its MAC and receive what is not for it", vfsOnly,
		func(c *config) **bool { return &c.trust }),
	{
		Name: "link_state", For: ForBoth, Values: "auto, enable or disable", Default: "left as it is", Modes: vfsOnly,
		Help: "whether a VF sees the PF's link (auto, which InfiniBand VFs do unless told otherwise), always a link, or none",
		parse: func(c *config, v string) (err error) {
			c.linkMode, err = oneOf(v, map[string]hw.LinkMode{"auto": "", "enable": hw.LinkEnable, "disable": hw.LinkDisable})
			return err
		},
	},
	numberOption("min_tx_rate", "Mbit/s, 0 for none", "left as it is", "rate that a VF can send at in any case", vfsOnly,
		0, 1<<24, func(c *config) **int { return &c.minRate }),
	numberOption("max_tx_rate", "Mbit/s, 0 for no limit", "left as it is", "rate that a VF cannot exceed", vfsOnly,
		0, 1<<24, func(c *config) **int { return &c.maxRate }),
	numberOption("mtu", "68 to 65535", "left as it is",
		"MTU of the device; a VF's cannot be above its PF's, nor a child's above its parent's", nil,
		68, 65535, func(c *config) **int { return &c.mtu }),
	numberOption("txqlen", "1 to 100000", "left as it is", "length of the device's transmit queue, in packets", nil,
		1, 100000, func(c *config) **int { return &c.txQLen }),
	boolOption("promisc", "left as it is", "receive everything; a VF has to be trusted for it", nil,
		func(c *config) **bool { return &c.promisc }),
	boolOption("allmulti", "left as it is", "receive all multicast; a VF has to be trusted for it", nil,
		func(c *config) **bool { return &c.allMulti }),
	numberOption("queues", "1 to what the device can", "left as it is", "receive and transmit queues of the device (ethtool -L)", nicsOnly,
		1, 1<<12, func(c *config) **int { return &c.queues }),
	numberOption("ring_rx", "1 to what the device can", "left as it is", "packets that a receive queue holds (ethtool -G)", nicsOnly,
		1, 1<<24, func(c *config) **int { return &c.rxRing }),
	numberOption("ring_tx", "1 to what the device can", "left as it is", "packets that a transmit queue holds (ethtool -G)", nicsOnly,
		1, 1<<24, func(c *config) **int { return &c.txRing }),
	{
		Name: "ethtool", For: ForBoth, Modes: nicsOnly, Values: "FEATURE=on or FEATURE=off, separated by commas, such as gro=off,tso=on",
		Default: "left as they are",
		Help:    "offloads of the device, by the names that ethtool -k and -K know",
		parse:   func(c *config, v string) (err error) { c.features, err = features(v); return err },
	},
	{
		Name: "cores", For: ForBoth, Modes: nicsOnly, Values: "CPUs such as 2,4-7, numa or none", Default: "left as they are",
		Help:  "CPUs that the device's interrupts are spread over; numa: those of its NUMA node",
		parse: func(c *config, v string) (err error) { c.cores, err = cores(v); return err },
	},
	{
		Name: "lock", For: ForNetwork, Values: "names of options, separated by commas, or all", Default: "none",
		Help: "options that cannot be overridden for a container",
		parse: func(c *config, v string) error {
			c.lock = strings.Split(strings.ToLower(strings.ReplaceAll(v, " ", "")), ",")
			return nil
		},
	},
	{
		Name: "vf", For: ForContainer, Values: "index, PCI address, MAC or name of a VF", Default: "the first that is free",
		Modes: vfsOnly,
		Help:  "the VF that the container gets",
		parse: func(c *config, v string) error { c.vf = v; return nil },
	},
	{
		Name: "sticky", For: ForContainer, Values: "a text of up to 200 bytes",
		Default: "the --mac-address; without one, the container's name (from engine 29 on), then its address",
		Modes:   vfsOnly,
		Help:    "a container that comes with the same text gets the same VF again, if that is free",
		parse: func(c *config, v string) error {
			c.sticky = v
			if len(v) > 200 {
				return errNotAllowed
			}
			return nil
		},
	},
	{
		Name: "vfs", For: ForNetwork, Values: "indexes and ranges of VFs, such as 0-3,7", Default: "all", Modes: vfsOnly,
		Help: "the VFs that the network uses, so that networks can split a PF",
		parse: func(c *config, v string) (err error) {
			c.vfs, err = ranges(v)
			return err
		},
	},
	{
		Name: "bond", For: ForNetwork, Values: "active-backup, 802.3ad or balance-xor", Default: "none", Modes: vfsOnly,
		Help: "containers get a bond of one VF of each PF, of which there have to be several",
		parse: func(c *config, v string) error {
			c.bond = strings.ToLower(v)
			if !slices.Contains(hw.Modes(hw.Bond), c.bond) {
				return errNotAllowed
			}
			return nil
		},
	},
	{
		Name: "policy", For: ForBoth, Values: "spread or pack", Default: "spread", Modes: vfsOnly,
		Help: "which of several PFs comes first: the one with the fewest VFs lent, or with the most",
		parse: func(c *config, v string) error {
			c.policy = strings.ToLower(v)
			if c.policy != policySpread && c.policy != policyPack {
				return errNotAllowed
			}
			return nil
		},
	},
	{
		Name: "numa", For: ForBoth, Values: "number of a NUMA node, auto or none", Default: "none", Modes: vfsOnly,
		Help: "PFs of that node come first; auto: of the one that cores is on, or else the one whose PFs are used most already",
		parse: func(c *config, v string) (err error) {
			c.numa, err = parseNUMA(strings.ToLower(v))
			return err
		},
	},
	{
		Name: "numvfs", For: ForNetwork, Values: "1 to what the NIC can", Default: "all", Modes: vfsOnly,
		Help: "how many VFs to make on a PF that has none yet",
		parse: func(c *config, v string) error {
			n, err := number(v, 1, 1<<16)
			if err == nil {
				c.numVFs = *n
			}
			return err
		},
	},
	{
		Name: "prefix", For: ForBoth, Values: "up to 10 letters, digits, _, - and .", Default: "eth",
		Help: "name of the device in the container, without its number",
		parse: func(c *config, v string) error {
			if !validPrefix.MatchString(v) {
				return errNotAllowed
			}
			c.prefix = v
			return nil
		},
	},
	childModeOption("macvlan_mode", "bridge, private or vepa", "bridge", modeMacvlan,
		"whether containers reach each other: directly, not at all, or by way of the switch"),
	childModeOption("ipvlan_mode", "l2, l3 or l3s", "l2", modeIPVlan,
		"whether containers are on the device's network (l2), or the host routes to them (l3; l3s: by its firewall, too)"),
	childModeOption("ipoib_mode", "datagram or connected", "datagram", modeIPoIB, "how IP is carried over InfiniBand"),
	{
		Name: "pkey", For: ForNetwork, Values: "0x0001 to 0x7fff, or 0x8001 to 0xffff", Default: "the device's",
		Modes: []string{modeIPoIB},
		Help:  "partition that the children are full members of",
		parse: func(c *config, v string) (err error) {
			c.pkey, err = partition(v)
			return err
		},
	},
	{
		Name: "force", For: ForNetwork, Values: "yes or no", Default: "no", Modes: []string{modePassthrough},
		Help: "yes: hand the device over even if the host is reached through it",
		parse: func(c *config, v string) error {
			yes, err := boolean(v)
			c.force = err == nil && *yes
			return err
		},
	},
	{
		Name: "replace", For: ForNetwork, Values: "ID of a network, or its first 12 characters", Default: "none",
		Help: "this network takes the place of one that the engine does not have any more, and that a crash has left behind",
		parse: func(c *config, v string) error {
			c.replace = v
			if !partOfID.MatchString(v) {
				return errNotAllowed
			}
			return nil
		},
	},
	{
		Name: "gateway", For: ForNetwork, Values: "none or auto", Default: "only the one given with --gateway",
		Help: "auto: also a default route through the gateway that the IPAM driver chooses; none: no default route at all",
		parse: func(c *config, v string) error {
			c.gateway = strings.ToLower(v)
			if c.gateway != gatewayNone && c.gateway != gatewayAuto {
				return errNotAllowed
			}
			return nil
		},
	},
}

// vfsOnly are the modes of options that are set through a VF's PF.
var vfsOnly = []string{modeSRIOV}

// childModeOption is a row for the mode that children are made in.
func childModeOption(name, values, byDefault, mode, help string) Option {
	return Option{Name: name, For: ForNetwork, Values: values, Default: byDefault, Help: help, Modes: []string{mode},
		parse: func(c *config, v string) error {
			c.childMode = strings.ToLower(v)
			if c.childMode == passthru || !slices.Contains(hw.Modes(mode), c.childMode) {
				return errNotAllowed
			}
			return nil
		}}
}

// nicsOnly are the modes of options that are set on a device itself, not on a child of one.
var nicsOnly = []string{modeSRIOV, modePassthrough}

// boolOption is a row for something that is on or off.
func boolOption(name, byDefault, help string, modes []string, at func(*config) **bool) Option {
	return Option{Name: name, For: ForBoth, Values: "yes or no", Default: byDefault, Help: help, Modes: modes,
		parse: func(c *config, v string) (err error) {
			*at(c), err = boolean(v)
			return err
		}}
}

// numberOption is a row for a number from low to high.
func numberOption(name, values, byDefault, help string, modes []string, low, high int, at func(*config) **int) Option {
	return Option{Name: name, For: ForBoth, Values: values, Default: byDefault, Help: help, Modes: modes,
		parse: func(c *config, v string) (err error) {
			*at(c), err = number(v, low, high)
			return err
		}}
}

const (
	gatewayNone = "none"
	gatewayAuto = "auto"
)

// partOfID is an ID of a network, or enough of one: swarm's have 25 characters, docker network ls shows 12.
var partOfID = regexp.MustCompile(`^[0-9A-Za-z_-]{12,64}$`)

// validPrefix leaves room for the number within the kernel's 15 characters for a name.
var validPrefix = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]{0,9}$`)
