package ledger

import (
	"net/netip"
	"slices"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store/record"
)

// Prefixes of the keys. Each kind of record has its own, so that all of a kind can be listed.
const (
	NetworkPrefix  = "net/"
	EndpointPrefix = "ep/"
)

// NetworkKey is the key of a network's record.
func NetworkKey(nid string) string { return NetworkPrefix + nid }

// EndpointKey is the key of an endpoint's record.
func EndpointKey(nid, eid string) string { return EndpointsOf(nid) + eid }

// EndpointsOf is the prefix of the keys of a network's endpoints.
func EndpointsOf(nid string) string { return EndpointPrefix + nid + "/" }

// Network is the record of a network, with everything that the user said about it: the engine never sends that again.
type Network struct {
	record.Extra
	Version  int               `json:"v"`
	ID       string            `json:"id"`
	Options  map[string]string `json:"options"`
	Internal bool              `json:"internal,omitempty"`
	Pools    []string          `json:"pools,omitempty"`    // CIDRs, to decide whether a gateway is on the subnet
	Gateway4 string            `json:"gateway4,omitempty"` // for containers; "" for none
	Gateway6 string            `json:"gateway6,omitempty"`
	Gateways []string          `json:"gateways,omitempty"` // those of further subnets of a family
	// EngineInvents is true if the engine made up a gateway although the driver had said that it wants none: engines before 28. They
	// set no IPv6 gateway for a container without an IPv4 gateway (getGatewayEndpoint in libnetwork/default_gateway.go, 26.1).
	EngineInvents bool `json:"engine_invents,omitempty"`
	// Devices are its PFs, or its one device; if that is a VLAN device, the one below it comes second.
	Devices []Device `json:"devices"`
	Boot    string   `json:"boot,omitempty"`    // of a swarm's network: the boot in which the engine created or confirmed it last
	Process string   `json:"process,omitempty"` // likewise: the process of the plugin in which it did
	// HostAddrs are the addresses that the host has among the containers (host_access).
	HostAddrs []netip.Addr `json:"host_addrs,omitempty"`
	// HostDevice is the device that the host's child is on, if that is not the first device: the VLAN device of a PF.
	HostDevice *Device `json:"host_device,omitempty"`
	// Owner is the kind of the owners of its endpoints, see [Owner], and Name is what they call the network; "" for a network of an engine.
	Owner string `json:"owner,omitempty"`
	Name  string `json:"name,omitempty"`
	// PoolIDs are the pools of the plugin's own IPAM driver that were requested for a network of owners, and are released with it.
	PoolIDs []string `json:"pool_ids,omitempty"`
}

// Device is a device of a network.
type Device struct {
	ID   hw.ID  `json:"id"`
	Name string `json:"name"` // its name when the network was created
}

// Has reports whether a device is one of the network's.
func (n Network) Has(id hw.ID) bool {
	return slices.ContainsFunc(n.Devices, func(d Device) bool { return d.ID == id })
}

// HostParent returns the device that the host's child is on; the zero Device if the record names none.
func (n Network) HostParent() Device {
	switch {
	case n.HostDevice != nil:
		return *n.HostDevice
	case len(n.Devices) > 0:
		return n.Devices[0]
	}
	return Device{}
}

// Endpoint is the record of a container's attachment to a network.
type Endpoint struct {
	record.Extra
	Version int    `json:"v"`
	Network string `json:"network"`
	ID      string `json:"id"`
	Device  hw.ID  `json:"device"`
	Prefix  string `json:"prefix"`
	Ifname  string `json:"ifname,omitempty"` // exact name in the container; "" for Prefix and a number
	MAC     hw.MAC `json:"mac,omitempty"`    // as answered to the engine
	IPv4    bool   `json:"ipv4,omitempty"`
	IPv6    bool   `json:"ipv6,omitempty"`
	// Addrs are its addresses with prefix lengths, as the engine sent them. Ledgers of early versions lack them.
	Addrs []string `json:"addrs,omitempty"`
	// Container is its name, as the engine told the IPAM driver; "" for unknown. Engines before 29 do not tell it.
	Container string `json:"container,omitempty"`
	// Subnets are those of its addresses, if the network has several of a family.
	Subnets []string `json:"subnets,omitempty"`
	Routes  []Route  `json:"routes,omitempty"` // beside those to its subnet and gateway
	Owner   *Owner   `json:"owner,omitempty"`  // nil for an engine
	Leases  []Lease  `json:"leases,omitempty"` // of its addresses, in a network with PoolIDs; the allocation of its device has them, too
}

// A Lease is an address of a pool of the plugin's own IPAM driver, for an owner's endpoint.
type Lease struct {
	Pool  string     `json:"pool"`
	Addr  netip.Addr `json:"addr"`
	Token string     `json:"token"` // tells it from later leases of the address
}

// An Owner is for whom an endpoint was created, if that is not an engine. Engines are judged by their calls; an owner's endpoint lives as long
// as the network namespace that its device was requested for.
type Owner struct {
	Kind string `json:"kind"` // such as cni
	ID   string `json:"id"`   // that its owner has for the attachment
	// Netns is the path of the network namespace, and Device and Inode identify the file there, as the owner saw it.
	Netns  string `json:"netns"`
	Device uint64 `json:"dev"`
	Inode  uint64 `json:"ino"`
	// Seen is true if the plugin saw the same file at that path. Only then does it mean anything that it sees another one later, or none: a
	// managed plugin has a file system of its own.
	Seen bool `json:"seen,omitempty"`
}

// Is reports whether two owners are the same, whatever their namespaces.
func (o *Owner) Is(kind, id string) bool { return o != nil && o.Kind == kind && o.ID == id }

// String returns the owner as people know it, such as "cni 1234/eth1".
func (o *Owner) String() string { return o.Kind + " " + o.ID }

// Route is a route that a container has through its device.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	Via netip.Addr   `json:"via,omitzero"` // not valid for a destination on the device's segment
}

// Key is the key of the record.
func (e Endpoint) Key() string { return EndpointKey(e.Network, e.ID) }

// ShortID shortens an ID to the 12 characters that docker prints.
func ShortID(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
