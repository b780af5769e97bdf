// Package alloc has the allocations: the devices that are given to endpoints. It owns their records, their states and what is
// remembered about which container had which device.
package alloc

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// Prefix is that of the keys of allocations. There is one for each device that is not free.
const Prefix = "dev/"

// Key is the key of a device's allocation. It is also the name of the lock of the device.
func Key(id hw.ID) string { return Prefix + string(id) }

// Record is an allocation on disk: who has the device, how it was before, and which state it is in. A link that is created for an
// endpoint has no snapshot; if there is one, it is its parent's.
type Record struct {
	record.Extra
	Version  int    `json:"v"`
	Device   hw.ID  `json:"device"`
	Mode     string `json:"mode"`         // name of the mode that attached it, and releases it
	PF       string `json:"pf,omitempty"` // PCI address of the VF's PF
	VF       int    `json:"vf"`           // index of the VF; 0 is a VF
	Label    string `json:"label"`        // what people call the device
	State    State  `json:"state"`
	Reason   string `json:"reason,omitempty"` // why it is quarantined
	Network  string `json:"network"`
	Endpoint string `json:"endpoint"`
	// Container and Address are the endpoint's, for messages; "" for unknown, and for none.
	Container string        `json:"container,omitempty"`
	Address   string        `json:"address,omitempty"` // the first, without its prefix length
	Boot      string        `json:"boot"`              // the boot in which it was claimed; what the record says about the device is true only in that
	Snapshot  hw.Snapshot   `json:"snapshot"`
	VFSpec    hw.VFSpec     `json:"wish"`
	Reported  *hw.VFState   `json:"reported,omitempty"` // what the PF reported of the VF once it was set up
	LinkSpec  hw.LinkSpec   `json:"shape"`
	Tuning    hw.TuningSpec `json:"tune,omitzero"`
	Parent    hw.ID         `json:"parent,omitempty"` // of a link that is created for the endpoint
	Child     *hw.ChildSpec `json:"child,omitempty"`  // likewise: how it is created
	// Announce has the destinations of the routes that the host has through Parent while the device is lent.
	Announce []string  `json:"announce,omitempty"`
	Since    time.Time `json:"since"` // when it got into its state
	// Forced is true if its network insists on a device that the host uses.
	Forced bool `json:"forced,omitempty"`
	// Manual is true while a quarantined device is out of use because an administrator wants it to be: it is not tried again by itself, nor
	// because the machine was rebooted. A version of the plugin that does not know this field tries it again.
	Manual bool `json:"manual,omitempty"`
	// Clean is set, once the endpoint is gone, if nothing of a container can be left on the device: none had it, or that was removed.
	Clean bool `json:"clean,omitempty"`
	// UserDriver is the driver for programs that a VF is bound to for its container, from before it is to after it is not any more; "" for none.
	UserDriver string `json:"user_driver,omitempty"`
	// Kept is set if the VF was bound to UserDriver before, and stays so.
	Kept bool `json:"kept,omitempty"`
	// CarrierUps is how often the device had had carrier when it was lent, which it is while it is down; nil if that is not known. What it
	// has had since, it has had in a container.
	CarrierUps *int         `json:"carrier_ups,omitempty"`
	Bond       *hw.BondSpec `json:"bond,omitempty"` // of a bond's child: the bond, whose ports have allocations that are part of this one
	// PartOf is the device whose allocation this one ends with: this device is a port of that one's bond.
	PartOf hw.ID         `json:"part_of,omitempty"`
	Owner  *ledger.Owner `json:"owner,omitempty"` // of the endpoint; nil for an engine
	// RDMA is what the container gets of a VF's RDMA device; nil for nothing.
	RDMA *RDMA `json:"rdma,omitempty"`
	// Representor is the port of the NIC's switch on the host that leads to a VF; nil unless the eswitch is in switchdev mode.
	Representor *Representor `json:"representor,omitempty"`
	// Leases are the endpoint's. Its container may use the addresses until the device is home.
	Leases []ledger.Lease `json:"leases,omitempty"`
}

// RDMA is what a container gets of the RDMA device of its VF, where each is in one network namespace.
type RDMA struct {
	Want string `json:"want,omitempty"` // value of the option rdma
	Name string `json:"name,omitempty"` // of the device in the host; "" if it is not moved
}

// A Representor is a VF's port of the NIC's switch on the host. It is found again by the VF, whatever its name is then.
type Representor struct {
	Name string `json:"name"`         // for people
	Up   bool   `json:"up,omitempty"` // it was up before
	// Bridge is the ifindex of the bridge that it becomes a port of; 0 for none.
	Bridge     int    `json:"bridge,omitempty"`
	BridgeName string `json:"bridge_name,omitempty"` // for people
	VLAN       int    `json:"vlan,omitempty"`        // that the port is untagged in; 0 for what the bridge gives it
	Trunk      string `json:"trunk,omitempty"`       // those that it is tagged in, as of the option
}

// VLAN returns the VLAN of the container's untagged frames, 0 for none that the plugin sets.
func (a *Allocation) VLAN() int {
	if a.Representor != nil {
		return a.Representor.VLAN
	}
	return a.VFSpec.VLAN.ID
}

// IfRequired returns the error of what a container does not get, nil if its user has not required it.
func (r *RDMA) IfRequired(err error) error {
	if r.Want == "" {
		return nil
	}
	return fmt.Errorf("%w; the option rdma is %s", err, r.Want)
}

// An Allocation is a record as this process has read it or is going to write it, and the working state of the call that attaches it.
type Allocation struct {
	Record

	// Parts are, while it is being attached, the allocations that are part of it.
	Parts []*Allocation
	// Faulty is set if the device itself is why it could not be attached.
	Faulty bool
	// IdentityKeys are what the container is recognized by when it comes again; see [Table.MarkReady].
	IdentityKeys []IdentityKey

	rev             int64
	fromEarlierBoot bool
	endsBy          time.Time // see Table.EndsBy
}

// All returns the allocation and its parts.
func (a *Allocation) All() []*Allocation { return append([]*Allocation{a}, a.Parts...) }

// FromEarlierBoot reports whether the machine was rebooted since the device was claimed: the device is in no container then, and
// looks as this boot has made it.
func (a *Allocation) FromEarlierBoot() bool { return a.fromEarlierBoot }

// LowerDevice returns the device that no other endpoint can have whole meanwhile: its own, or the one that its child was created on.
func (a *Allocation) LowerDevice() hw.ID { return cmp.Or(a.Parent, a.Device) }

// HasParts reports whether other allocations are part of this one, and end with it.
func (a *Allocation) HasParts() bool { return a.Bond != nil }

// HasMAC reports whether the device was given a MAC, or had it before and gets it back.
func (a *Allocation) HasMAC(mac hw.MAC) bool {
	return a.VFSpec.MAC == mac || a.Child != nil && a.Child.MAC == mac ||
		a.Snapshot.VF != nil && a.Snapshot.VF.MAC == mac || a.Snapshot.Link != nil && a.Snapshot.Link.MAC == mac
}

// Ended reports whether the device is free again.
func (a *Allocation) Ended() bool { return a.State == free }

// Ending reports whether the endpoint is gone and the device is not free yet.
func (a *Allocation) Ending() bool { return a.State == Freeing || a.State == Quarantined }

// FreeSoon reports whether the device will be free soon.
func (a *Allocation) FreeSoon() bool { return a.State == Freeing || a.fromEarlierBoot && !a.Manual }

// releaseTime is how long the release of a device may take, if nothing is wrong with it.
const releaseTime = 3 * time.Second

// JustFreed reports whether the endpoint was deleted so lately that the device is probably being released now. A nil allocation is a free device.
func (a *Allocation) JustFreed() bool {
	if a == nil || a.State != Freeing {
		return false
	}
	ago := time.Since(a.Since)
	return ago >= 0 && ago < releaseTime
}

// Holder says in an error who has the device, or why it cannot be had.
func (a *Allocation) Holder() string {
	if a.Endpoint == "" && a.State != Quarantined {
		return a.Label + " is being tried for a network"
	}
	switch a.State {
	case Freeing:
		return fmt.Sprintf("%s is on its way back from %s", a.Label, a.user())
	case Quarantined:
		return fmt.Sprintf("%s is quarantined: %s", a.Label, a.Reason)
	}
	forgotten := ""
	if a.State == Lent && !a.endsBy.IsZero() {
		forgotten = ", which the engine seems to have forgotten: if that stays so, it is free by " + a.endsBy.UTC().Format("2006-01-02 15:04:05 MST")
	}
	return fmt.Sprintf("%s is held by %s of network %s%s", a.Label, a.user(), ledger.ShortID(a.Network), forgotten)
}

// user says who has the device: an owner that is no engine, or the container, if its name is known, or what docker network inspect lists of it.
func (a *Allocation) user() string {
	switch {
	case a.Owner != nil:
		return a.Owner.Kind + " " + cmp.Or(a.OwnerName(), a.Owner.ID)
	case a.Container != "":
		return "container " + a.Container
	case a.Address != "":
		return "endpoint " + ledger.ShortID(a.Endpoint) + " (" + a.Address + ")"
	}
	return "endpoint " + ledger.ShortID(a.Endpoint)
}

// OwnerName returns the name of the container of an owner that is no engine, "" if its ID says it already.
func (a *Allocation) OwnerName() string {
	if a.Owner == nil || strings.HasPrefix(a.Owner.ID, a.Container) {
		return ""
	}
	return a.Container
}

// Fields identify the device and its endpoint in a log line.
func (a *Allocation) Fields() []zap.Field {
	fields := []zap.Field{zap.String("device", a.Label), zap.String("network", ledger.ShortID(a.Network)),
		zap.String("endpoint", ledger.ShortID(a.Endpoint))}
	if a.Owner != nil {
		fields = append(fields, zap.Stringer("owner", a.Owner))
	}
	return fields
}

// unchanged is the condition that the record is as this process knows it; for a new allocation, that there is none.
func (a *Allocation) unchanged() store.Cond { return store.Cond{Key: Key(a.Device), Rev: a.rev} }
