package hw

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Tuning is the queues, rings and offloads of a link, with their maximums.
type Tuning struct {
	Queues, MaxQueues Queues
	Rings, MaxRings   Rings
	Features          map[string]Feature // by the kernel's names, such as "rx-gro"
	// PrivateFlags are some of those that the kernel has as controls, see [Kernel.Controls].
	PrivateFlags Features
}

// Queues are a link's queues. Most drivers have only combined ones, which receive and send; a few have only separate ones.
type Queues struct{ Combined, Rx, Tx int }

// Rings are the sizes of a link's queues in packets.
type Rings struct{ Rx, Tx int }

// DriverInfo is what a driver says of itself. What it does not say is "".
type DriverInfo struct{ Name, Version, Firmware string }

// Feature is an offload. One that is wanted is not active while another that it needs is not.
type Feature struct {
	Active bool
	Wanted bool
	Fixed  bool // cannot be changed on this device
}

// Features are offloads that are wanted or not, by name.
type Features map[string]bool

// A TuningAttr is one attribute of a link's tuning. The zero value is not an attribute.
type TuningAttr struct{ *attrRow[Tuning] }

// The attributes of a link's tuning.
var (
	TuningQueues = TuningAttr{rowAt("queues", func(t *Tuning) *Queues { return &t.Queues })}
	TuningRings  = TuningAttr{rowAt("rings", func(t *Tuning) *Rings { return &t.Rings })}
	// TuningFeatures is which offloads are wanted, of those that Tuning.Features names.
	TuningFeatures = TuningAttr{&attrRow[Tuning]{
		name: "features",
		same: func(a, b *Tuning) bool { return maps.Equal(a.wanted(), b.wanted()) },
		copy: func(to, from *Tuning) { to.Features = maps.Clone(from.Features) },
		show: func(t *Tuning) string { return t.wanted().String() },
	}}
)

// TuningFlags is which private flags are on, of those that Tuning.PrivateFlags names.
var TuningFlags = TuningAttr{&attrRow[Tuning]{
	name: "private flags",
	same: func(a, b *Tuning) bool { return maps.Equal(a.PrivateFlags, b.PrivateFlags) },
	copy: func(to, from *Tuning) { to.PrivateFlags = maps.Clone(from.PrivateFlags) },
	show: func(t *Tuning) string { return t.PrivateFlags.String() },
}}

// tuningAttrs lists the attributes in the order of setting: private flags can decide how many queues there are, and new queues have rings of the
// size that the old ones had.
var tuningAttrs = []TuningAttr{TuningFlags, TuningQueues, TuningRings, TuningFeatures}

func rowAt[T comparable](name string, field func(*Tuning) *T) *attrRow[Tuning] {
	row := rowOf(name, field)
	return &row
}

// wanted returns which offloads are wanted.
func (t *Tuning) wanted() Features {
	all := Features{}
	for name, f := range t.Features {
		all[name] = f.Wanted
	}
	return all
}

// String returns "4", or "2 rx, 2 tx" for separate queues.
func (q Queues) String() string {
	if q.Rx == 0 && q.Tx == 0 {
		return fmt.Sprint(q.Combined)
	}
	return fmt.Sprintf("%d rx, %d tx", q.Combined+q.Rx, q.Combined+q.Tx)
}

// String returns "512 rx, 1024 tx".
func (r Rings) String() string { return fmt.Sprintf("%d rx, %d tx", r.Rx, r.Tx) }

// String returns "rx-gro=off,tx-tcp-segmentation=on".
func (f Features) String() string {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		all = append(all, name+"="+onOrOff(f[name]))
	}
	return strings.Join(all, ",")
}

func onOrOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// A featureGroup is a name of ethtool for one or several offloads of the kernel, whose names ethtool -k prints and
// ethtool -K takes.
type featureGroup struct {
	short, long string
	members     []string
}

// featureGroups are the groups. tso excludes tx-tcp-mangleid-segmentation, which changes what is sent, and which the
// kernel switches off with the others.
var featureGroups = []featureGroup{
	{"rx", "rx-checksumming", []string{"rx-checksum"}},
	{"tx", "tx-checksumming", []string{"tx-checksum-ipv4", "tx-checksum-ip-generic", "tx-checksum-ipv6",
		"tx-checksum-fcoe-crc", "tx-checksum-sctp"}},
	{"sg", "scatter-gather", []string{"tx-scatter-gather", "tx-scatter-gather-fraglist"}},
	{"tso", "tcp-segmentation-offload", []string{"tx-tcp-segmentation", "tx-tcp-ecn-segmentation", "tx-tcp6-segmentation"}},
	{"gso", "generic-segmentation-offload", []string{"tx-generic-segmentation"}},
	{"gro", "generic-receive-offload", []string{"rx-gro"}},
	{"lro", "large-receive-offload", []string{"rx-lro"}},
	{"rxvlan", "rx-vlan-offload", []string{"rx-vlan-hw-parse"}},
	{"txvlan", "tx-vlan-offload", []string{"tx-vlan-hw-insert"}},
	{"ntuple", "ntuple-filters", []string{"rx-ntuple-filter"}},
	{"rxhash", "receive-hashing", []string{"rx-hashing"}},
}

// members returns the kernel's names for an offload, or the name itself if it is not that of a group.
func members(name string) []string {
	for _, g := range featureGroups {
		if name == g.short || name == g.long {
			return g.members
		}
	}
	return []string{name}
}

// resolve returns the offloads of the kernel that have to be switched for what the user asked. An offload that is fixed
// at the wanted value is accepted; one that cannot be switched is an error.
func resolve(asked Features, has map[string]Feature) (Features, error) {
	all := Features{}
	for _, name := range slices.Sorted(maps.Keys(asked)) {
		change, known, fixed := 0, 0, 0
		for _, m := range members(name) {
			f, ok := has[m]
			switch {
			case !ok:
				continue
			case f.Fixed && f.Active != asked[name]:
				fixed++
			case !f.Fixed:
				if on, twice := all[m]; twice && on != asked[name] {
					return nil, Because(ErrInvalid, "%s is asked to be on and off", m)
				}
				all[m] = asked[name]
				change++
			}
			known++
		}
		switch {
		case known == 0:
			return nil, Because(ErrInvalid, "the kernel knows no %s; ethtool -k lists the names", name)
		case change == 0 && fixed > 0:
			return nil, Because(ErrUnsupported, "%s is always %s; what can be changed is %s", name, onOrOff(!asked[name]),
				changeable(has))
		}
	}
	return all, nil
}

// changeable lists the groups of offloads that a device can switch, by their short names.
func changeable(has map[string]Feature) string {
	var names []string
	for _, g := range featureGroups {
		if slices.ContainsFunc(g.members, func(m string) bool { f, ok := has[m]; return ok && !f.Fixed }) {
			names = append(names, g.short)
		}
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}
