// Package admin has what the plugin tells an operator and other owners of devices than an engine: the calls beside those of the engine, their
// answers, and their client. But for AttachCall, DetachCall, DeviceCall, ForgetCall, LogLevelCall and RestoreCall they change nothing. What a
// NIC has is not among the answers: an operator's tool reads it from the kernel as the plugin does.
package admin

import (
	"cmp"
	"time"
)

// Prefix is that of the names of the calls; no call of an engine has it.
const Prefix = "Passthrough."

// The calls. The path of a call on the plugin's socket is "/" and its name; all are POST requests with a JSON body, which may be {}.
const (
	StatusCall = "Passthrough.Status" // takes [StatusRequest], answers [Status]
	PoolsCall  = "Passthrough.Pools"  // answers [Pools]
	LeasesCall = "Passthrough.Leases" // takes [LeasesRequest], answers [Leases]

	// LogLevelCall takes and answers [LogLevel]: it changes what is logged until the plugin is restarted.
	LogLevelCall = "Passthrough.LogLevel"
)

// DeviceCall takes [DeviceRequest], answers [DeviceAnswer]: an administrator takes a VF out of use, has a quarantined device tried again, or
// frees the device of a container that is gone.
const DeviceCall = "Passthrough.Device"

// What can be done with a device.
const (
	QuarantineDevice = "quarantine" // keep a free VF out of use
	RetryDevice      = "retry"      // release a quarantined device now
	FreeDevice       = "free"       // end the allocation of an endpoint that the engine does not know any more
)

// DeviceRequest says what to do with a device.
type DeviceRequest struct {
	Action string `json:"action"`
	Device string `json:"device"`           // its ID, as in Device
	Reason string `json:"reason,omitempty"` // for quarantine
	// Endpoint is, for free, the endpoint that the caller has found to be gone; the device of another one is not freed.
	Endpoint string `json:"endpoint,omitempty"`
}

// DeviceAnswer says what was done.
type DeviceAnswer struct {
	Text string `json:"text"`
}

// AttachCall takes [AttachRequest], answers [Attachment]: an owner that is no engine gets a device, which is in the host then, down, for the
// owner to move. DetachCall takes [Owner]: its device is released; one that is not known is no error. The owner moves the device back before,
// if its namespace is there, down and under a name that no other link has. CheckCall takes [Owner], answers [Attachment], the zero value for
// an owner that has nothing. StatusCall lists what owners have.
const (
	AttachCall = "Passthrough.Attach"
	DetachCall = "Passthrough.Detach"
	CheckCall  = "Passthrough.Check"
)

// Owner is for whom a device is attached. Kind and ID identify it.
type Owner struct {
	Kind   string `json:"kind"`            // such as cni: up to 16 lower case letters
	ID     string `json:"id"`              // what the owner calls the attachment, such as CONTAINER/INTERFACE
	Netns  string `json:"netns,omitempty"` // absolute path of the network namespace that the device is for
	Device uint64 `json:"dev,omitempty"`   // of the file at that path, as the caller sees it
	Inode  uint64 `json:"ino,omitempty"`   // likewise
	Name   string `json:"name,omitempty"`  // in answers: of the container, if its ID does not begin with it
}

// String returns the owner as people know it, such as "cni 1234/eth1" or "podman web1".
func (o Owner) String() string { return o.Kind + " " + cmp.Or(o.Name, o.ID) }

// AttachRequest says who wants which device. It may be repeated until the device was moved.
type AttachRequest struct {
	Owner     Owner             `json:"owner"`
	Network   string            `json:"network"`             // its owners' name for it; networks with other options are others
	Options   map[string]string `json:"options"`             // as of docker network create -o
	Own       map[string]string `json:"own,omitempty"`       // of this attachment alone, as of driver-opt
	Container string            `json:"container,omitempty"` // name for people, and for VF affinity
	// Addresses are those that the container gets, with prefix lengths: one of each family at most. With IPAM they are those that it asks for.
	Addresses []string `json:"addresses,omitempty"`
	IPAM      *IPAM    `json:"ipam,omitempty"` // nil: another program chooses the addresses, or there are none
}

// IPAM says from which pools of the plugin's own IPAM driver the containers of an owner's network get their addresses.
type IPAM struct {
	Subnets []Subnet          `json:"subnets,omitempty"` // one of each family at most; none: that of the pool which Options names, or a default one
	Options map[string]string `json:"options,omitempty"` // as of --ipam-opt
}

// Attachment is what an owner has.
type Attachment struct {
	ID        string   `json:"id"`    // of the device, as in [Device]
	Label     string   `json:"label"` // what messages call it
	State     string   `json:"state"`
	Owner     *Owner   `json:"owner,omitempty"`     // with the namespace that the device was attached for
	Network   string   `json:"network"`             // ID
	Name      string   `json:"name,omitempty"`      // of the device in the host, "" if it is not there
	Index     int      `json:"index,omitempty"`     // likewise: its ifindex
	MAC       string   `json:"mac,omitempty"`       // "" if it is not known
	MTU       int      `json:"mtu,omitempty"`       // 0 if it is not known
	Addresses []string `json:"addresses,omitempty"` // with prefix lengths
	Gateways  []string `json:"gateways,omitempty"`  // of an owner's network with IPAM: one of each family at most
	Routes    []Route  `json:"routes,omitempty"`    // in the order in which they can be added
}

// Route is a route through a device.
type Route struct {
	Dst string `json:"dst"`           // CIDR
	Via string `json:"via,omitempty"` // "" for a destination on the segment
}

// PlanCall takes [PlanRequest], answers [Plan]: what docker network create would do. Nothing is changed.
const PlanCall = "Passthrough.Plan"

// PlanRequest is what a user says to docker network create.
type PlanRequest struct {
	Options     map[string]string `json:"options"`                // of -o
	OwnIPAM     bool              `json:"own_ipam"`               // --ipam-driver is the plugin, too
	IPAMOptions map[string]string `json:"ipam_options,omitempty"` // of --ipam-opt
	Subnets     []Subnet          `json:"subnets,omitempty"`
	IPv4        bool              `json:"ipv4"`
	IPv6        bool              `json:"ipv6"`
	Internal    bool              `json:"internal,omitempty"`
}

// Subnet is a subnet of a network that is planned or of an owner's, with what belongs to it. In a plan only Subnet is never "".
type Subnet struct {
	Subnet  string            `json:"subnet"`
	Range   string            `json:"range,omitempty"`
	Gateway string            `json:"gateway,omitempty"`
	Aux     map[string]string `json:"aux,omitempty"` // addresses by name
}

// Plan is what docker network create would do.
type Plan struct {
	Mode     string   `json:"mode,omitempty"`
	Devices  []string `json:"devices"`           // names of its PFs, or of its one device
	Pools    []Pool   `json:"pools"`             // that the network would get, if OwnIPAM
	Gateways []string `json:"gateways"`          // that containers would get
	Steps    []string `json:"steps"`             // what is done to the host, a sentence each
	Untried  []string `json:"untried"`           // what is found out only when the network is created
	Refused  string   `json:"refused,omitempty"` // the error that docker network create would end with
}

// NodesCall answers [Nodes], and ForgetCall takes [ForgetRequest] and answers [ForgetAnswer], if nodes share an etcd.
const (
	NodesCall  = "Passthrough.Nodes"
	ForgetCall = "Passthrough.Forget"
)

// Nodes are the nodes that share an etcd, and its servers.
type Nodes struct {
	Nodes   []Node   `json:"nodes"`
	Servers []Server `json:"servers"`
}

// Node is a plugin that shares an etcd with others.
type Node struct {
	ID    string    `json:"id"`
	Name  string    `json:"name"`  // of its host
	Pools int       `json:"pools"` // or shares of pools
	Lost  bool      `json:"lost"`  // an operator has removed it
	Seen  time.Time `json:"seen,omitzero"`
}

// Server is a server of the etcd. Sizes are in bytes, 0 for unknown.
type Server struct {
	Endpoint string   `json:"endpoint"`
	Version  string   `json:"version,omitempty"`
	Size     int64    `json:"size,omitempty"` // of its database
	InUse    int64    `json:"in_use,omitempty"`
	Quota    int64    `json:"quota,omitempty"`
	Alarms   []string `json:"alarms,omitempty"`
	Error    string   `json:"error,omitempty"` // why it does not answer
}

// ForgetRequest names a node that is lost.
type ForgetRequest struct {
	Node  string `json:"node"`            // its ID
	Force bool   `json:"force,omitempty"` // although it was seen a short time ago
}

// ForgetAnswer says how many pools of the node were released.
type ForgetAnswer struct {
	Pools int `json:"pools"`
}

// SettingsCall answers [Settings].
const SettingsCall = "Passthrough.Settings"

// Settings are the settings that the plugin was started with, by their variables, without passwords.
type Settings struct {
	Settings map[string]string `json:"settings"`
}

// BackupCall answers lines of JSON, the last of which says that none is missing: a backup of the ledger. RestoreCall takes [RestoreRequest] and
// answers [RestoreAnswer]: first the parts of such a backup, in order, then what is to be done with it.
const (
	BackupCall  = "Passthrough.Backup"
	RestoreCall = "Passthrough.Restore"
)

// RestoreRequest is a part of a backup, or says that it is complete. A part has at most [RestorePart] bytes.
type RestoreRequest struct {
	Offset int64  `json:"offset"` // of the part; a part at 0 begins
	Part   []byte `json:"part,omitempty"`

	Commit bool `json:"commit,omitempty"` // the backup is complete, and replaces the ledger when the plugin starts again, which it does at once
	Force  bool `json:"force,omitempty"`  // in place of a ledger that has records, or with a backup of another machine
}

// RestorePart is the size of the largest part of a backup, in bytes.
const RestorePart = 1 << 20

// RestoreAnswer says what a backup has that is restored.
type RestoreAnswer struct {
	Records int `json:"records"`
}

// LogLevel is debug, info, warn or error; in a request, "" leaves it as it is.
type LogLevel struct {
	Level string `json:"level"`
}

// Status is what the network driver has recorded.
type Status struct {
	Version  string    `json:"version"`
	Commit   string    `json:"commit,omitempty"`
	Date     string    `json:"date,omitempty"` // of the commit, as 2026-11-29T16:49:13Z
	Networks []Network `json:"networks"`
	Devices  []Device  `json:"devices"`
	// Unrecorded are devices that look as if the plugin had set them up, and of which it has no record: what each is and what to do, in a
	// sentence each. They are looked for on request.
	Unrecorded []string `json:"unrecorded,omitempty"`
	// Programs are the IDs of the VFs that are kept bound to a driver for programs, from one container to the next.
	Programs []string `json:"programs,omitempty"`
}

// StatusRequest says what a status has beside the records.
type StatusRequest struct {
	Unrecorded bool `json:"unrecorded,omitempty"` // reads all NICs, and what can be known of other namespaces
}

// Network is a network as its user described it.
type Network struct {
	ID      string            `json:"id"`
	Mode    string            `json:"mode"`
	Options map[string]string `json:"options"`         // of docker network create -o
	Devices []string          `json:"devices"`         // names of its PFs, or of its one device, when it was created
	Pools   []string          `json:"pools"`           // CIDRs
	Owner   string            `json:"owner,omitempty"` // kind of the owners of its devices, if that is not an engine
	Name    string            `json:"name,omitempty"`  // likewise: what they call it
}

// Device is a device that is not free: in use, on its way, or in quarantine.
type Device struct {
	ID       string    `json:"id"`    // PCI address, or another identity of package hw
	Label    string    `json:"label"` // what messages call it
	Mode     string    `json:"mode"`
	State    string    `json:"state"`            // claimed, ready, lent, freeing or quarantined
	Reason   string    `json:"reason,omitempty"` // why it is quarantined
	Retry    time.Time `json:"retry,omitzero"`   // when it is tried again at the latest; zero if it is not quarantined, or waits for an operator
	Lost     string    `json:"lost,omitempty"`   // why its container is without it, in words that follow the label; "" if it is not known to be
	Before   string    `json:"before,omitempty"` // what is put back when its container ends
	Since    time.Time `json:"since"`            // when it got into its state
	Network  string    `json:"network"`
	Endpoint string    `json:"endpoint,omitempty"`
	PF       string    `json:"pf,omitempty"` // PCI address of the PF of a VF
	VF       int       `json:"vf"`           // index of the VF, if PF is not ""
	Parent   string    `json:"parent,omitempty"`
	MAC      string    `json:"mac,omitempty"`       // as the engine knows it
	Addrs    []string  `json:"addresses,omitempty"` // with prefix lengths
	Owner    *Owner    `json:"owner,omitempty"`     // nil for an engine
	// Representor is the name that the port of a VF had on the host when the VF was taken, "" unless the NIC is in switchdev mode.
	Representor string `json:"representor,omitempty"`
}

// Pools is what the IPAM driver has recorded. In a store that nodes share these are the pools of this node's networks.
type Pools struct {
	Pools []Pool `json:"pools"`
}

// Pool is a subnet from which addresses are leased. The counts are of addresses.
type Pool struct {
	ID         string            `json:"id"`
	Name       string            `json:"name,omitempty"` // of a pool that networks share
	Subnet     string            `json:"subnet"`
	Range      string            `json:"range,omitempty"`
	Gateway    string            `json:"gateway,omitempty"`
	Options    map[string]string `json:"options,omitempty"`  // of --ipam-opt
	Networks   []string          `json:"networks,omitempty"` // IDs, as far as they are known
	Size       uint64            `json:"size"`               // addresses that can be chosen, the gateway's among them
	Leased     int               `json:"leased"`             // by containers, the gateway, --aux-address
	Prefetched int               `json:"prefetched"`         // by nodes, in advance
	Cooldown   int               `json:"cooldown"`           // released, and not chosen for a while
}

// LeasesRequest names the pool whose leases are asked for.
type LeasesRequest struct {
	Pool    string `json:"pool"`              // ID of a pool
	Address string `json:"address,omitempty"` // only the lease of this address
}

// Leases are the leases of a pool.
type Leases struct {
	Leases []Lease `json:"leases"`
}

// Lease is an address that is leased, or in cooldown.
type Lease struct {
	Address   string    `json:"address"`
	Kind      string    `json:"kind"` // gateway, requested, chosen, cooldown or prefetched
	Container string    `json:"container,omitempty"`
	MAC       string    `json:"mac,omitempty"`
	Node      string    `json:"node,omitempty"` // ID of the node that has it, in a pool that nodes share
	Since     time.Time `json:"since,omitzero"`
}
