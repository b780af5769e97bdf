package netdrv

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/netdrv/alloc"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// A choice is what there is to choose a VF from, and what is wanted.
type choice struct {
	offers []offer
	gone   []error // why PFs of the network have nothing to offer
	want   *option.Network
	prefer alloc.Affinity // what the container had before; its Device is "" for nothing
	loans  alloc.Set
	taken  func(hw.VF) (string, error) // why a VF that is not lent is not free either; "" if it is
}

// An offer is a PF with its VFs.
type offer struct {
	pf     hw.PF
	vfs    []hw.VF
	states map[int]hw.VFState // what the PF has set for them; nil for a PF that never tells
	near   bool               // it is on the NUMA node of the CPUs that its interrupts are to go to, if any are named
}

// A candidate is a VF that may be chosen.
type candidate struct {
	offer
	vf hw.VF
}

// choose picks a free VF, see order. The error of a network that has none says who has them.
func (c choice) choose() (candidate, error) {
	if l := c.macLoan(); l != nil {
		return candidate{}, &allInUse{fmt.Sprintf("mac address %s: %s", c.want.MAC, l.Holder()), l.FreeSoon()}
	}
	if l := c.guidLoan(); l != nil {
		return candidate{}, &allInUse{fmt.Sprintf("option guid: %s: %s", c.want.GUID, l.Holder()), l.FreeSoon()}
	}
	all, err := c.candidates()
	if err != nil {
		return candidate{}, err
	}
	var why []string
	soon := false
	for _, cand := range all {
		if l := c.loans[cand.vf.ID()]; l != nil {
			why = append(why, l.Holder())
			soon = soon || l.FreeSoon()
			continue
		}
		if cand.pf.Resetting(cand.vf, cand.states) {
			why = append(why, cand.vf.String()+" is being reset by the driver of its pf")
			soon = true
			continue
		}
		taken, err := c.taken(cand.vf)
		switch {
		case err != nil:
			return candidate{}, err
		case taken == "":
			return cand, nil
		case c.want.MAC != "" && cand.hasMAC(c.want.MAC):
			return candidate{}, fmt.Errorf("mac address %s: %s, which has it, %s", c.want.MAC, cand.vf, taken)
		}
		why = append(why, cand.vf.String()+" "+taken)
	}
	slices.Sort(why)
	for _, err := range c.gone {
		why = append(why, err.Error())
	}
	return candidate{}, &allInUse{fmt.Sprintf("%s: %s: %s", c.pfs(), c.scope(len(all)), strings.Join(why, "; ")), soon}
}

// pfs names the PFs in an error.
func (c choice) pfs() string {
	var names []string
	for _, o := range c.offers {
		names = append(names, o.pf.String())
	}
	return strings.Join(names, ", ")
}

// scope says in an error what there was to choose from.
func (c choice) scope(n int) string {
	switch {
	case c.want.VF != "":
		return fmt.Sprintf("option vf=%s is not free", c.want.VF)
	case len(c.want.VFs) > 0:
		return fmt.Sprintf("all %d vfs of the network are in use", n)
	}
	return fmt.Sprintf("all %d vfs are in use", n)
}

// macLoan is the allocation of a VF of one of the PFs that has been given the wanted MAC. One that is quarantined is down.
func (c choice) macLoan() *alloc.Allocation {
	for _, l := range c.loans {
		if l.State == alloc.Quarantined {
			continue
		}
		ours := slices.ContainsFunc(c.offers, func(o offer) bool { return o.pf.PCI() == l.PF })
		if c.want.MAC != "" && ours && l.VFSpec.MAC == c.want.MAC {
			return l
		}
	}
	return nil
}

// guidLoan is the allocation of a VF that has been given the wanted GUID, on whatever PF: they may be in one fabric.
func (c choice) guidLoan() *alloc.Allocation {
	for _, l := range c.loans {
		if c.want.GUID != "" && l.VFSpec.PortGUID == c.want.GUID {
			return l
		}
	}
	return nil
}

// candidates are the VFs that may be chosen, the most wanted first.
func (c choice) candidates() ([]candidate, error) {
	var all []candidate
	for _, o := range c.offers {
		for _, vf := range o.vfs {
			cand := candidate{o, vf}
			inRange := len(c.want.VFs) == 0 || slices.Contains(c.want.VFs, vf.Index)
			if inRange && (c.want.VF == "" || cand.is(c.want.VF)) {
				all = append(all, cand)
			}
		}
	}
	if len(all) == 0 && c.want.VF != "" {
		return nil, fmt.Errorf("option vf: %q is none of the vfs that this network has on %s", c.want.VF, c.pfs())
	}
	slices.SortStableFunc(all, c.order())
	return all, nil
}

// order puts first what is wanted most: the VF that has the wanted MAC, then the one that the user said is to come again;
// then VFs of a PF that can be talked through, on the wanted NUMA node, the one that the container seems to have had, and
// by the policy of the network. What is left is the order in which the PFs were named.
func (c choice) order() func(a, b candidate) int {
	onPF, onNode := c.usage()
	node := preferNode(c.want.NUMA, c.offers, onNode)
	return func(a, b candidate) int {
		used := onPF[a.pf.PCI()] - onPF[b.pf.PCI()]
		if c.want.Policy == option.PolicyPack {
			used = -used
		}
		return cmp.Or(
			c.rank(a)-c.rank(b),
			oneIf(dark(a.pf))-oneIf(dark(b.pf)),
			oneIf(a.pf.Node != node)-oneIf(b.pf.Node != node),
			oneIf(a.vf.ID() != c.prefer.Device)-oneIf(b.vf.ID() != c.prefer.Device),
			used,
		)
	}
}

// rank is smaller for a VF that is wanted more than others for what it is.
func (c choice) rank(cand candidate) int {
	switch {
	case c.want.MAC != "" && cand.hasMAC(c.want.MAC):
		return 0
	case cand.vf.ID() == c.prefer.Device && !c.prefer.Implicit:
		return 1
	}
	return 2
}

// dark tells whether nothing can be reached through the PF: it is up and has no carrier. One that is down will be up.
func dark(pf hw.PF) bool { return pf.Up && !pf.Carrier }

// usage counts the VFs that are lent, by their PF's PCI address and by NUMA node.
func (c choice) usage() (onPF map[string]int, onNode map[int]int) {
	onPF, onNode = map[string]int{}, map[int]int{}
	for _, l := range c.loans {
		onPF[l.PF]++
	}
	for _, o := range c.offers {
		onNode[o.pf.Node] += onPF[o.pf.PCI()]
	}
	return onPF, onNode
}

func oneIf(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// is tells whether a user means the VF: by its index, PCI address, MAC or the name of its netdev.
func (c candidate) is(name string) bool {
	if i, err := strconv.Atoi(name); err == nil {
		return i == c.vf.Index
	}
	pci := strings.ToLower(name)
	return pci == c.vf.PCI || "0000:"+pci == c.vf.PCI || c.hasMAC(hw.MAC(pci)) ||
		c.vf.Netdev.Index != 0 && name == c.vf.Netdev.Name
}

// hasMAC tells whether the VF has the MAC without anybody's asking.
func (c candidate) hasMAC(mac hw.MAC) bool { return c.mac() == mac || c.vf.Netdev.MAC == mac }

// mac is the MAC that the VF has without anybody's asking: the one its PF has set, otherwise its stable one.
func (c candidate) mac() hw.MAC {
	return cmp.Or(c.states[c.vf.Index].MAC, hw.StableMAC(c.pf, c.vf.Index))
}

// allInUse says that there is no device to be had now; soon that one is on its way back.
type allInUse struct {
	text string
	soon bool
}

func (e *allInUse) Error() string { return e.text }

// anyNode is preferNode's answer if no NUMA node is preferred.
const anyNode = -1

// preferNode returns the NUMA node whose PFs are preferred. With auto it is that of the CPUs which the interrupts go to, or the one
// that is used most already: what talks to each other stays together.
func preferNode(want option.NUMA, offers []offer, used map[int]int) int {
	switch {
	case want.Given:
		return want.Node
	case !want.Auto || len(offers) == 0:
		return anyNode
	}
	if i := slices.IndexFunc(offers, func(o offer) bool { return o.near }); i >= 0 {
		return offers[i].pf.Node
	}
	best := offers[0].pf.Node
	for _, o := range offers {
		if used[o.pf.Node] > used[best] {
			best = o.pf.Node
		}
	}
	return best
}
