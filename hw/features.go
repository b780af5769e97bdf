package hw

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A featureGroup is an offload as people know it, for one or several of the kernel's: the names that ethtool -k prints
// and that ethtool -K takes.
type featureGroup struct {
	short, long string
	members     []string
}

// featureGroups are the offloads that people have names for. tso leaves out tx-tcp-mangleid-segmentation, which changes
// what is sent, and which the kernel ends by itself with the rest.
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

// members are the kernel's names for an offload; itself when people have no other name for it.
func members(name string) []string {
	for _, g := range featureGroups {
		if name == g.short || name == g.long {
			return g.members
		}
	}
	return []string{name}
}

// resolve turns a user's offloads into those of the kernel that have to be switched on a device. One that is fixed as it
// is wanted is fine; one that cannot be had is an error.
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
					return nil, fmt.Errorf("%s is asked to be on and off: %w", m, ErrInvalid)
				}
				all[m] = asked[name]
				change++
			}
			known++
		}
		switch {
		case known == 0:
			return nil, fmt.Errorf("the kernel knows no %s; ethtool -k lists the names: %w", name, ErrInvalid)
		case change == 0 && fixed > 0:
			return nil, fmt.Errorf("%s is always %s; what can be changed is %s: %w", name, onOrOff(!asked[name]),
				changeable(has), ErrUnsupported)
		}
	}
	return all, nil
}

// changeable lists the offloads that a device can switch, by their short names.
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
