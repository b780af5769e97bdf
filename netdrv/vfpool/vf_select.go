package vfpool

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/topology"
	"github.com/mellanox/passthrough/internal/number"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/option"
)

// A Selector chooses a free VF. It is pure but for InUse.
type Selector struct {
	PFs       []PF    // the network's, in the order in which the user named them
	Missing   []error // why other PFs of the network have no VFs to choose from
	Network   []int   // indexes of the VFs that the network may use; none for all
	Want      option.Container
	Preferred alloc.Affinity // what the container had before
	Held      alloc.Set
	InUse     func(hw.VF) (string, error) // why a VF that has no allocation is not free either; "" if it is free
}

// A PF has what there is to know about a PF for choosing one of its VFs.
type PF struct {
	hw.PF
	VFs    []hw.VF
	States map[int]hw.VFState // what the PF has set for its VFs, by index; nil for a PF that does not tell
	Made   bool               // the plugin has created its VFs
	Near   bool               // it is on the NUMA node of the CPUs that its interrupts go to, if the user named some
	// Far is how far it is from the nearest of the devices that it is to be near to, the same for all PFs if the user named none.
	Far topology.Distance
}

// A Candidate is a VF that may be chosen.
type Candidate struct {
	PF PF
	VF hw.VF
}

// A BusyError says that no device is free now.
type BusyError struct {
	Text string
	Soon bool // one will be free soon
	// Releasing is a device that is being released now, of those that would do; "" if there is none.
	Releasing hw.ID
	// Quarantined is the device that is quarantined for the longest time, of those that would do; "" if there is none.
	Quarantined hw.ID
}

// Busy returns the error that a device is allocated; text says what was asked for.
func Busy(text string, a *alloc.Allocation) *BusyError {
	e := &BusyError{Text: text, Soon: a.FreeSoon()}
	if a.JustFreed() {
		e.Releasing = a.Device
	}
	if a.State == alloc.Quarantined && !a.Manual {
		e.Quarantined = a.Device
	}
	return e
}

func (e *BusyError) Error() string { return e.Text }

// Select returns the first free VF in the order of preference, see compare. The error says who has the VFs; it is a [*BusyError] if
// it can be otherwise later.
func (s Selector) Select() (Candidate, error) {
	if a := s.macHolder(); a != nil {
		return Candidate{}, Busy(fmt.Sprintf("mac address %s: %s", s.Want.MAC, a.Holder()), a)
	}
	if a := s.guidHolder(); a != nil {
		return Candidate{}, Busy(fmt.Sprintf("option guid: %s: %s", s.Want.GUID, a.Holder()), a)
	}
	all, err := s.candidates()
	if err != nil {
		return Candidate{}, err
	}
	var why []string
	soon := false
	for _, c := range all {
		reason, freeSoon, err := s.busy(c)
		switch {
		case err != nil:
			return Candidate{}, err
		case reason == "":
			return c, nil
		case c.VF.ID() == s.Preferred.Device && s.Held[s.Preferred.Device].JustFreed(): // its container is restarted
			return Candidate{}, Busy(reason, s.Held[s.Preferred.Device])
		}
		why, soon = append(why, reason), soon || freeSoon
	}
	text := shortened(why)
	for _, err := range s.Missing {
		text = append(text, err.Error())
	}
	return Candidate{}, &BusyError{Text: fmt.Sprintf("%s: %s: %s", s.pfNames(), s.scope(len(all)), strings.Join(text, "; ")), Soon: soon,
		Releasing: s.releasing(all), Quarantined: s.quarantined(all)}
}

// releasing returns a candidate that is being released now, "" if none is.
func (s Selector) releasing(all []Candidate) hw.ID {
	for _, c := range all {
		if s.Held[c.VF.ID()].JustFreed() {
			return c.VF.ID()
		}
	}
	return ""
}

// listedMax is how many reasons an error has: a NIC may have 128 VFs, and the error is one line of docker run's output.
const listedMax = 8

// shortened sorts reasons, and replaces those that are too many by their number.
func shortened(why []string) []string {
	slices.Sort(why)
	if more := len(why) - listedMax; more > 0 {
		return append(why[:listedMax], fmt.Sprintf("and %d more, see passthroughctl vfs", more))
	}
	return why
}

// quarantined returns the candidate that is quarantined for the longest time, "" if none is.
func (s Selector) quarantined(all []Candidate) (oldest hw.ID) {
	for _, c := range all {
		a := s.Held[c.VF.ID()]
		if a != nil && a.State == alloc.Quarantined && !a.Manual && (oldest == "" || a.Since.Before(s.Held[oldest].Since)) {
			oldest = a.Device
		}
	}
	return oldest
}

// busy returns why a candidate is not free, "" if it is, and whether it will be free soon. It is an error if the candidate has the
// wanted MAC and is used by the host.
func (s Selector) busy(c Candidate) (reason string, soon bool, _ error) {
	if a := s.Held[c.VF.ID()]; a != nil {
		return a.Holder(), a.FreeSoon(), nil
	}
	if owner, soon := c.PF.MACOwner(cmp.Or(s.Want.MAC, c.MAC()), c.VF.ID(), s.Held); owner != "" && s.Want.MAC == "" {
		return fmt.Sprintf("%s would get mac address %s: %s", c.VF, c.MAC(), owner), soon, nil
	} else if owner != "" {
		return "", false, &BusyError{Text: fmt.Sprintf("mac address %s: %s", s.Want.MAC, owner), Soon: soon}
	}
	if c.PF.Resetting(c.VF, c.PF.States) && !c.PF.Up {
		return c.PF.DownReason(), false, nil
	}
	if c.PF.Resetting(c.VF, c.PF.States) {
		return c.VF.String() + " is being reset by the driver of its pf", true, nil
	}
	inUse, err := s.InUse(c.VF)
	switch {
	case err != nil || inUse == "":
		return "", false, err
	case s.Want.MAC != "" && c.hasMAC(s.Want.MAC):
		return "", false, fmt.Errorf("mac address %s: %s, which has it, %s", s.Want.MAC, c.VF, inUse)
	}
	return c.VF.String() + " " + inUse, false, nil
}

// pfNames lists the PFs in an error.
func (s Selector) pfNames() string {
	var names []string
	for _, pf := range s.PFs {
		names = append(names, pf.String())
	}
	return strings.Join(names, ", ")
}

// scope says in an error which n VFs there were to choose from.
func (s Selector) scope(n int) string {
	switch {
	case s.Want.VF != "":
		return fmt.Sprintf("option vf=%s is not free", s.Want.VF)
	case len(s.Network) > 0:
		return fmt.Sprintf("all %d vfs of the network are in use", n)
	}
	return fmt.Sprintf("all %d vfs are in use", n)
}

// macHolder returns the allocation of a VF of one of the PFs that was given the wanted MAC. A quarantined VF is down.
func (s Selector) macHolder() *alloc.Allocation {
	for _, a := range s.Held {
		if a.State == alloc.Quarantined {
			continue
		}
		ours := slices.ContainsFunc(s.PFs, func(pf PF) bool { return pf.PCI() == a.PF })
		if s.Want.MAC != "" && ours && a.VFSpec.MAC == s.Want.MAC {
			return a
		}
	}
	return nil
}

// MACOwner says which function of a PF, or which container's device on it, has a MAC, or has it again when it is restored; "" for none. Two
// of them with one MAC would receive each other's frames, and both would pass the spoof check. except is the device that is to get the
// MAC. soon is true if the owner will be free soon.
func (pf PF) MACOwner(mac hw.MAC, except hw.ID, held alloc.Set) (owner string, soon bool) {
	if mac == "" {
		return "", false
	}
	if except != pf.ID && (pf.MAC == mac || pf.PermMAC == mac) {
		return pf.String() + " has it", false
	}
	for _, a := range held {
		onPF := a.PF == pf.PCI() || a.Parent == pf.ID
		if onPF && a.Device != except && a.State != alloc.Quarantined && a.HasMAC(mac) {
			return a.Holder(), a.FreeSoon()
		}
	}
	for _, vf := range pf.VFs {
		if vf.ID() != except && held[vf.ID()] == nil && (pf.States[vf.Index].MAC == mac || vf.Netdev.MAC == mac) {
			return vf.String() + " has it", false
		}
	}
	return "", false
}

// guidHolder returns the allocation of a VF that was given the wanted GUID, on any PF: they may be in one fabric.
func (s Selector) guidHolder() *alloc.Allocation {
	for _, a := range s.Held {
		if s.Want.GUID != "" && a.VFSpec.PortGUID == s.Want.GUID {
			return a
		}
	}
	return nil
}

// candidates returns the VFs that may be chosen, in the order of preference.
func (s Selector) candidates() ([]Candidate, error) {
	var all []Candidate
	for _, pf := range s.PFs {
		for _, vf := range pf.VFs {
			c := Candidate{pf, vf}
			inRange := len(s.Network) == 0 || slices.Contains(s.Network, vf.Index)
			if inRange && (s.Want.VF == "" || c.matches(s.Want.VF) || s.hadName(c, s.Want.VF)) {
				all = append(all, c)
			}
		}
	}
	if len(all) == 0 && s.Want.VF != "" {
		return nil, fmt.Errorf("option vf: %q is none of the vfs that this network has on %s", s.Want.VF, s.pfNames())
	}
	compare := s.compare()
	sort.SliceStable(all, func(i, j int) bool { return compare(all[i], all[j]) < 0 })
	return all, nil
}

// hadName reports whether a VF has a netdev of that name when it is free. A container has it now, or it is being released.
func (s Selector) hadName(c Candidate, name string) bool {
	a := s.Held[c.VF.ID()]
	return a != nil && a.Snapshot.Link != nil && a.Snapshot.Link.Name == name
}

// compare returns the order of preference: first the VF that has the wanted MAC, then the one of an explicit affinity, then VFs of a
// PF with carrier, near to the wanted device, on the preferred NUMA node, the one of an implicit affinity, and by the policy of the network. VFs that are equal
// stay in the order in which the user named their PFs.
func (s Selector) compare() func(a, b Candidate) int {
	onPF, onNode := s.usage()
	node := preferredNode(s.Want.NUMA, s.PFs, onNode)
	return func(a, b Candidate) int {
		used := onPF[a.PF.PCI()] - onPF[b.PF.PCI()]
		if s.Want.Policy == option.PolicyPack {
			used = -used
		}
		return cmp.Or(
			s.rank(a)-s.rank(b),
			boolToInt(noCarrier(a.PF))-boolToInt(noCarrier(b.PF)),
			a.PF.Far.Compare(b.PF.Far),
			boolToInt(a.PF.Node != node)-boolToInt(b.PF.Node != node),
			boolToInt(a.VF.ID() != s.Preferred.Device)-boolToInt(b.VF.ID() != s.Preferred.Device),
			used,
		)
	}
}

// rank is smaller for a VF that is itself preferred: it has the wanted MAC, or the user gave a key for it.
func (s Selector) rank(c Candidate) int {
	switch {
	case s.Want.MAC != "" && c.hasMAC(s.Want.MAC):
		return 0
	case c.VF.ID() == s.Preferred.Device && !s.Preferred.Implicit:
		return 1
	}
	return 2
}

// noCarrier reports whether the PF is up and has no carrier. One that is down will be brought up.
func noCarrier(pf PF) bool { return pf.Up && !pf.Carrier }

// usage counts the VFs that are not free, by the PCI address of their PF and by NUMA node.
func (s Selector) usage() (onPF map[string]int, onNode map[int]int) {
	onPF, onNode = map[string]int{}, map[int]int{}
	for _, a := range s.Held {
		onPF[a.PF]++
	}
	for _, pf := range s.PFs {
		onNode[pf.Node] += onPF[pf.PCI()]
	}
	return onPF, onNode
}

// anyNode is the preferred NUMA node if there is no preference.
const anyNode = -1

// preferredNode returns the NUMA node whose PFs come first. If the user left it to the plugin, that is the node of the CPUs that the
// interrupts go to, or the one with the most VFs in use: containers that talk to each other stay together.
func preferredNode(want option.NUMA, pfs []PF, used map[int]int) int {
	switch {
	case want.Given:
		return want.Node
	case !want.Auto || len(pfs) == 0:
		return anyNode
	}
	if i := slices.IndexFunc(pfs, func(pf PF) bool { return pf.Near }); i >= 0 {
		return pfs[i].Node
	}
	best := pfs[0].Node
	for _, pf := range pfs {
		if used[pf.Node] > used[best] {
			best = pf.Node
		}
	}
	return best
}

func boolToInt(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// matches reports whether a user's text names the VF: by its index, its PCI address, its MAC, or the name of its netdev.
func (c Candidate) matches(text string) bool {
	if i, ok := number.Parse(text, 0, math.MaxInt32); ok {
		return i == c.VF.Index
	}
	pci := strings.ToLower(text)
	return pci == c.VF.PCI || "0000:"+pci == c.VF.PCI || c.hasMAC(hw.MAC(pci)) ||
		c.VF.Netdev.Index != 0 && text == c.VF.Netdev.Name
}

// hasMAC reports whether the VF has a MAC before the plugin sets one.
func (c Candidate) hasMAC(mac hw.MAC) bool { return c.MAC() == mac || c.VF.Netdev.MAC == mac }

// MAC returns the MAC that the VF gets if the user wants none: the one that its PF has set, otherwise its stable one.
func (c Candidate) MAC() hw.MAC {
	return cmp.Or(c.PF.States[c.VF.Index].MAC, hw.StableMAC(c.PF.PF, c.VF.Index))
}

// WithStableGUIDs returns what a PF has set for the VF, with stable GUIDs where it has none: VFs that the plugin did not create may
// lack them.
func (c Candidate) WithStableGUIDs(s hw.VFState) hw.VFState {
	own := hw.StableGUID(c.PF.PF, c.VF.Index)
	s.NodeGUID, s.PortGUID = cmp.Or(s.NodeGUID, own), cmp.Or(s.PortGUID, own)
	return s
}
