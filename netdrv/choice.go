package netdrv

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/hw"
)

// A choice is what there is to choose a VF from, and what is wanted.
type choice struct {
	pf     hw.PF
	vfs    []hw.VF
	states []hw.VFState // what the PF has set for them
	want   *config
	loans  map[hw.ID]*loan
	taken  func(hw.VF) (string, error) // why a VF that is not lent is not free either; "" if it is
}

// choose picks a free VF: the one that is named, then the one that has the wanted MAC, the one that the container had, the
// first. The error of a PF that has none says who has them.
func (c choice) choose() (hw.VF, error) {
	if l := c.macLoan(); l != nil {
		return hw.VF{}, &allInUse{fmt.Sprintf("mac address %s: %s", c.want.mac, l.holder()), l.returning()}
	}
	if l := c.guidLoan(); l != nil {
		return hw.VF{}, &allInUse{fmt.Sprintf("option guid: %s: %s", c.want.guid, l.holder()), l.returning()}
	}
	candidates, err := c.candidates()
	if err != nil {
		return hw.VF{}, err
	}
	var why []string
	soon := false
	for _, vf := range candidates {
		if l := c.loans[vf.ID()]; l != nil {
			why = append(why, l.holder())
			soon = soon || l.returning()
			continue
		}
		taken, err := c.taken(vf)
		switch {
		case err != nil:
			return hw.VF{}, err
		case taken == "":
			return vf, nil
		case c.want.mac != "" && c.hasMAC(vf, c.want.mac):
			return hw.VF{}, fmt.Errorf("mac address %s: %s, which has it, %s", c.want.mac, vf, taken)
		}
		why = append(why, vf.String()+" "+taken)
	}
	slices.Sort(why)
	return hw.VF{}, &allInUse{fmt.Sprintf("%s: %s: %s", c.pf, c.scope(len(candidates)), strings.Join(why, "; ")), soon}
}

// scope says in an error what there was to choose from.
func (c choice) scope(n int) string {
	switch {
	case c.want.vf != "":
		return fmt.Sprintf("option vf=%s is not free", c.want.vf)
	case len(c.want.vfs) > 0:
		return fmt.Sprintf("all %d vfs of the network are in use", n)
	}
	return fmt.Sprintf("all %d vfs are in use", n)
}

// macLoan is the loan of a VF of the PF that has been given the wanted MAC.
func (c choice) macLoan() *loan {
	for _, l := range c.loans {
		if c.want.mac != "" && l.PF == c.pf.PCI() && l.Wish.MAC == c.want.mac {
			return l
		}
	}
	return nil
}

// candidates are the VFs that may be chosen, the most wanted first.
func (c choice) candidates() ([]hw.VF, error) {
	vfs := slices.DeleteFunc(slices.Clone(c.vfs), func(vf hw.VF) bool {
		return len(c.want.vfs) > 0 && !slices.Contains(c.want.vfs, vf.Index)
	})
	if c.want.vf != "" {
		vfs = slices.DeleteFunc(vfs, func(vf hw.VF) bool { return !c.is(vf, c.want.vf) })
		if len(vfs) == 0 {
			return nil, fmt.Errorf("option vf: %q is none of the vfs that this network has on %s", c.want.vf, c.pf)
		}
	}
	slices.SortStableFunc(vfs, func(a, b hw.VF) int { return c.rank(a) - c.rank(b) })
	return vfs, nil
}

// rank is smaller for a VF that is wanted more: the one that has the wanted MAC, then the one that the container had.
func (c choice) rank(vf hw.VF) int {
	switch {
	case c.want.mac != "" && c.hasMAC(vf, c.want.mac):
		return 0
	case vf.ID() == c.want.prefer:
		return 1
	}
	return 2
}

// is tells whether a user means the VF: by its index, PCI address, MAC or the name of its netdev.
func (c choice) is(vf hw.VF, name string) bool {
	if i, err := strconv.Atoi(name); err == nil {
		return i == vf.Index
	}
	pci := strings.ToLower(name)
	return pci == vf.PCI || "0000:"+pci == vf.PCI || c.hasMAC(vf, hw.MAC(pci)) || vf.Netdev.Index != 0 && name == vf.Netdev.Name
}

// hasMAC tells whether the VF has the MAC without anybody's asking.
func (c choice) hasMAC(vf hw.VF, mac hw.MAC) bool {
	return vfMAC(c.pf, vf, c.states) == mac || vf.Netdev.MAC == mac
}

// vfMAC is the MAC that a VF has without anybody's asking: the one its PF has set, otherwise its stable one.
func vfMAC(pf hw.PF, vf hw.VF, states []hw.VFState) hw.MAC {
	if vf.Index < len(states) && states[vf.Index].MAC != "" {
		return states[vf.Index].MAC
	}
	return hw.StableMAC(pf, vf.Index)
}

// allInUse says that there is no device to be had now; soon that one is on its way back.
type allInUse struct {
	text string
	soon bool
}

func (e *allInUse) Error() string { return e.text }
