// Package option turns the text that users give for networks (docker network create -o) and containers (driver-opt) into values,
// and these into what package hw sets on devices. It is pure: it asks neither the kernel nor the ledger.
//
// An option is one row in table.go and one field of Network or Container. What an option sets on a device is in spec.go.
package option

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/number"
)

// Network is what the user said for a network, with the defaults filled in.
type Network struct {
	// Netdevice is the text of the option netdevice: names, PCI addresses or patterns, separated by commas.
	// It is that of the option parent if that was given instead.
	Netdevice string
	Parent    string   // the text of the option parent; "" for none
	Mode      string   // one of Modes
	Lock      []string // names of options that cannot be overridden for a container
	NumVFs    int      // VFs to make on a PF that has none; 0 for all
	VFs       []int    // indexes of the VFs that the network may use; none for all
	Bond      string   // mode of the bond; "" for none
	Driver    string   // DriverVFIO, which gives VFs to programs, or "" for VFs with netdevs
	Force     bool     // hand over a device that the host uses, or to a program without an IOMMU
	Gateway   string   // "", GatewayNone or GatewayAuto
	ChildMode string   // of a macvlan, ipvlan or IPoIB child; "" for the default
	Announce  string   // "" for the default, AnnounceContainer, AnnounceSubnet or AnnounceNone
	// IPVlanFlag is the flag of ipvlan children; "" for the default.
	IPVlanFlag string
	PKey       int // of an IPoIB child; 0 for its parent's
	// HostAccess gives the host a child of its own, so that host and containers reach each other.
	HostAccess bool
	Replace    string // ID of a stale network, or the beginning of it; "" for none
	CDI        string // class of its devices in CDI specs; "" for none
	Bridge     string // that the representors of VFs become ports of; "" for none

	// Container has the values for its containers. For one container they are replaced by what ForContainer returns.
	Container
}

// Container is what applies to one container: the values of its network, overridden by those that the user gave for the
// container. Pointers are nil for what was not given.
type Container struct {
	VLAN       *int   // of VFs, or of the device that children are made on; nil for untagged, unless KeepVLAN
	KeepVLAN   bool   // leave the VLAN of a VF as an administrator has set it
	Trunk      string // VLANs that VFs send and receive tagged, in the form of hw.VLANRanges; "" for none. It is the same for all containers
	VLANQoS    *int
	VLANProto  *hw.VLANProto
	MAC        hw.MAC  // "" for none
	GUID       hw.GUID // "" for none
	Privileged *bool
	Spoofchk   *bool
	Trust      *bool
	LinkMode   *hw.LinkMode
	MinRate    *int // Mbit/s
	MaxRate    *int // Mbit/s
	MTU        *int // bytes
	TxQLen     *int // packets
	Promisc    *bool
	AllMulti   *bool
	GSO        *int // bytes; see hw.Segments
	GRO        *int // bytes
	GSOIPv4    *int // bytes
	GROIPv4    *int // bytes
	Queues     int  // 0 for as they are
	RxRing     int  // packets; 0 for as it is
	TxRing     int  // packets; 0 for as it is
	Features   hw.Features
	Flags      hw.Features // of the driver itself
	Cores      hw.Cores
	VF         string // the one VF that is wanted; "" for any
	Sticky     string // text by which the container is recognized; "" for none
	Policy     string // "", PolicySpread or PolicyPack
	NUMA       NUMA
	Near       string  // "", NearGPU, or the PCI address of a device
	Prefix     string  // of the device's name in the container, before a number
	Routes     []Route // through the device, beside those to its subnet and gateway
	RDMA       string  // "", RDMAYes, RDMANo or RDMARequire
	Ifname     string  // exact name of the device in the container; "" for Prefix and a number
}

// Values of the option policy: prefer the PF with the fewest VFs in use, or the one with the most.
const (
	PolicySpread = "spread"
	PolicyPack   = "pack"
)

// NearGPU is the value of the option near for any GPU or accelerator of the machine.
const NearGPU = "gpu"

// DriverVFIO is the value of the option driver: the one driver that gives a device to a program and keeps that from the rest of the machine,
// by the IOMMU. uio_pci_generic and igb_uio do not: their program could have the device read and write all memory. VFs have no interrupts for them
// either (INTx).
const DriverVFIO = "vfio-pci"

// Values of the option rdma: the RDMA device of a VF stays in the host, goes to the container or is shared with it, or goes to it alone.
const (
	RDMANo      = "no"
	RDMAYes     = "yes"
	RDMARequire = "require"
)

// Values of the option gateway: no default route at all, or also one through a gateway that the IPAM driver chose.
const (
	GatewayNone = "none"
	GatewayAuto = "auto"
)

// Values of the option announce: for which addresses the host gets routes that a routing daemon tells others.
const (
	AnnounceContainer = "container"
	AnnounceSubnet    = "subnet"
	AnnounceNone      = "none"
)

// NUMA says which NUMA node's PFs are preferred. The zero value has no preference.
type NUMA struct {
	Auto  bool // choose the node from the CPUs of the interrupts, or from the PFs in use
	Given bool // Node is the one that the user named
	Node  int
}

// PortVLANs returns the VLANs of the port of a bridge that leads to a container's VF; nil for those that the bridge gives a new port. trunk is
// the value of the option trunk.
func PortVLANs(vlan int, trunk string) hw.PortVLANs {
	if vlan == 0 && trunk == "" {
		return nil
	}
	vlans := hw.PortVLANs{}
	ids, _ := number.ParseList(trunk, maxVLAN) // none in ""; otherwise it was checked
	for _, id := range ids {
		vlans[id] = hw.PortVLAN{}
	}
	if vlan > 0 {
		vlans[vlan] = hw.PortVLAN{PVID: true, Untagged: true}
	}
	return vlans
}

// checkPort refuses what contradicts the port of a bridge, or a trunk.
func (n *Network) checkPort() error {
	tagged := n.VLAN != nil && *n.VLAN > 0
	ids, _ := number.ParseList(n.Trunk, maxVLAN)
	switch {
	case tagged && slices.Contains(ids, *n.VLAN):
		return fmt.Errorf("option trunk: vlan %d is the one of vlan=%d, which the container has untagged; leave it out of one of them", *n.VLAN, *n.VLAN)
	case n.Bridge == "":
		return nil
	case strings.HasPrefix(n.Bridge, ofOpenVSwitch):
		return fmt.Errorf("option bridge: the plugin does not talk to Open vSwitch; leave bridge out, and add the representors that passthroughctl vfs names once, "+
			"with ovs-vsctl add-port %s REPRESENTOR: they stay its ports while containers come and go", strings.TrimPrefix(n.Bridge, ofOpenVSwitch))
	case n.KeepVLAN:
		return errors.New("option vlan: keep is not for bridge: the port of a bridge has the vlans that the network says")
	case n.VLANQoS != nil && *n.VLANQoS > 0:
		return errors.New("option vlan_qos: not with bridge, whose ports set no priority")
	case n.VLANProto != nil && *n.VLANProto != "":
		return errors.New("option vlan_proto: not with bridge, which has one protocol for all its ports")
	}
	return nil
}

// check refuses options that contradict each other.
func (c *Container) check() error {
	tagged := c.VLAN != nil && *c.VLAN > 0
	switch {
	case c.VLANQoS != nil && *c.VLANQoS > 0 && !tagged:
		return errors.New("option vlan_qos: there is no tag to carry it; give vlan=1 to 4094 as well")
	case c.VLANProto != nil && *c.VLANProto != "" && !tagged:
		return errors.New("option vlan_proto: there is no tag to carry it; give vlan=1 to 4094 as well")
	case c.MinRate != nil && c.MaxRate != nil && *c.MaxRate > 0 && *c.MinRate > *c.MaxRate:
		return fmt.Errorf("option min_tx_rate: %d is above max_tx_rate %d", *c.MinRate, *c.MaxRate)
	}
	return checkRoutes(c.Routes)
}
