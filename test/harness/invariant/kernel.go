package invariant

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const (
	madePrefix = "made-"                 // of the identity of a link that was made to be lent
	markPrefix = "lent by passthrough: " // of the alias of a device that is lent
)

// madeName is a link that was made to be lent, by the name that it has in the host.
var madeName = regexp.MustCompile(`^pt[0-9a-f]{12}$`)

// made: every link that the plugin has made or marked is one that the ledger knows of.
func (f Facts) made(v *violations) {
	known := map[string]bool{} // marks and names
	know := func(id string) {
		if key, ok := strings.CutPrefix(id, madePrefix); ok {
			sum := sha256.Sum256([]byte(key))
			known[fmt.Sprintf("pt%x", sum[:6])] = true
		}
		known[markPrefix+id] = true
	}
	for id, allocation := range f.Ledger.Allocations {
		know(id)
		know(allocation.Parent)
		if allocation.Bond != nil {
			know(madePrefix + allocation.Bond.Key)
		}
	}
	for _, d := range f.Host.Devices {
		marked := strings.HasPrefix(d.Alias, markPrefix)
		switch {
		case marked && !known[d.Alias]:
			v.add("device %s: is marked %q, and nobody has it", d.Name, d.Alias)
		case !marked && madeName.MatchString(d.Name) && !known[d.Name]:
			v.add("device %s: was made to be lent, and nobody has it", d.Name)
		}
	}
}

// vfs: one that nobody has is in the host and clean, one that somebody has is set up as the ledger says.
func (f Facts) vfs(v *violations) {
	for pci, pf := range f.Host.PFs {
		for i, vf := range pf.VFs {
			name := fmt.Sprintf("vf %d of %s (%s)", i, pf.Name, vf.PCI)
			allocation, lent := f.Ledger.Allocations[vf.PCI]
			switch {
			case lent && (allocation.State == "ready" || allocation.State == "lent"):
				setUp(v, name, vf, allocation)
			case lent:
			case vf.away():
				v.add("%s: is in another namespace, and nobody has it", name)
			default:
				f.clean(v, name, pci, i, vf)
			}
		}
		// None at all is as the machine or the PF comes up again: they are made when somebody wants one.
		if s, ok := f.Ledger.Sharings[pci]; ok && s.Done && pf.NumVFs != s.NumVFs && pf.NumVFs > 0 {
			v.add("pf %s (%s): has %d vfs, of which the ledger says %d", pf.Name, pci, pf.NumVFs, s.NumVFs)
		}
	}
	for id, allocation := range f.Ledger.Allocations {
		pf, there := f.Host.PFs[allocation.PF]
		if there && allocation.State == "lent" && !slices.ContainsFunc(pf.VFs, func(vf VF) bool { return vf.PCI == id }) {
			v.add("device %s (%s): is lent to endpoint %s, and is not there", id, allocation.Label, allocation.Endpoint)
		}
	}
}

// setUp compares a VF with what was asked for.
func setUp(v *violations, name string, vf VF, allocation Allocation) {
	must := func(attr string) bool { return allocation.Spec.Need[attr] > 1 }
	if must("vlan") && (vf.VLAN != allocation.Spec.VLAN.ID || vf.QoS != allocation.Spec.VLAN.QoS) {
		v.add("%s: is lent with vlan %d, and has %d", name, allocation.Spec.VLAN.ID, vf.VLAN)
	}
	if must("mac") && vf.MAC != "" && !strings.EqualFold(vf.MAC, allocation.Spec.MAC) {
		v.add("%s: is lent with mac %s, and has %s", name, allocation.Spec.MAC, vf.MAC)
	}
	if must("trust") && vf.Trust != allocation.Spec.Trust {
		v.add("%s: is lent with trust %v, and has %v", name, allocation.Spec.Trust, vf.Trust)
	}
	if must("spoofchk") && vf.Spoofchk != allocation.Spec.Spoofchk {
		v.add("%s: is lent with spoofchk %v, and has %v", name, allocation.Spec.Spoofchk, vf.Spoofchk)
	}
}

// clean: a free VF is as it was before, or, if it was made since, as nobody has touched it.
func (f Facts) clean(v *violations, name, pci string, index int, vf VF) {
	want := VF{MAC: vf.MAC, Spoofchk: vf.Spoofchk, LinkState: "auto"}
	if f.Before != nil && index < len(f.Before.PFs[pci].VFs) {
		want = f.Before.PFs[pci].VFs[index]
		if want.MAC == zeroMAC { // igb reports none for a VF that has drawn one itself, until that sets it
			want.MAC = vf.MAC
		}
	}
	now := vf
	want.PCI, want.Driver, want.Netdev = now.PCI, now.Driver, now.Netdev
	if now.LinkState == "" { // its driver does not say
		now.LinkState = want.LinkState
	}
	if now != want {
		v.add("%s: nobody has it, and it is %+v, not %+v", name, now, want)
	}
	if d, ok := f.Host.Devices[vf.Netdev]; ok && (d.Up || d.Master != "" || len(d.Addrs) > 0 || d.Promisc || d.AllMulti) {
		v.add("%s: nobody has it, and its netdev is %+v", name, d)
	}
}

// zeroMAC is how the kernel says that a PF has set none.
const zeroMAC = "00:00:00:00:00:00"

// devices: those that were there before, and that nobody has now, are as they were; and there are no others.
func (f Facts) devices(v *violations) {
	lent, used := f.inUse()
	for _, name := range slices.Sorted(maps.Keys(f.Before.Devices)) {
		was := f.Before.Devices[name]
		if lent[was.id(name)] || lent[name] {
			continue
		}
		now, ok := f.Host.Devices[name]
		if !ok {
			v.add("device %s: is not there under its name", name)
			continue
		}
		if used[was.id(name)] { // up, and promiscuous if its driver wants that, for as long as something stands on it
			was.Up, was.Promisc, was.AllMulti = now.Up, now.Promisc, now.AllMulti
		}
		if a, b := fmt.Sprintf("%+v", was), fmt.Sprintf("%+v", now); a != b {
			v.add("device %s: is %s, and was %s", name, b, a)
		}
	}
	for name, now := range f.Host.Devices {
		_, was := f.Before.Devices[name]
		if !was && !madeName.MatchString(name) && !strings.HasPrefix(now.Alias, markPrefix) && !f.vfOf(now) {
			v.add("device %s: was not there before", name)
		}
	}
	for pci, was := range f.Before.PFs {
		now := f.Host.PFs[pci]
		if !used[pci] && !lent[pci] && (now.NumVFs != was.NumVFs || now.Autoprobe != was.Autoprobe) {
			v.add("pf %s (%s): has %d vfs (autoprobe %s), and had %d (%s)", was.Name, pci, now.NumVFs, now.Autoprobe, was.NumVFs,
				was.Autoprobe)
		}
	}
}

// id is what a device is known by here: its PCI address, or its name.
func (d Device) id(name string) string {
	if d.PCI != "" {
		return d.PCI
	}
	return name
}

// vfOf tells whether a device is a VF.
func (f Facts) vfOf(d Device) bool {
	for _, pf := range f.Host.PFs {
		if slices.ContainsFunc(pf.VFs, func(vf VF) bool { return d.PCI != "" && vf.PCI == d.PCI }) {
			return true
		}
	}
	return false
}

// inUse are the devices that somebody has, and those on which something stands or may stand, by their PCI address or the name
// that they had when the network was made. A bond whose place a macvlan has taken is somebody's.
func (f Facts) inUse() (lent, used map[string]bool) {
	lent, used = map[string]bool{}, map[string]bool{}
	defer func() { // what a record does not say
		delete(lent, "")
		delete(used, "")
	}()
	if f.Ledger == nil {
		return lent, used
	}
	names := map[string]string{}
	for _, n := range f.Ledger.Networks {
		for _, d := range n.Devices {
			names[d.ID] = d.Name
			if n.Options["mode"] != "passthrough" {
				used[d.ID], used[d.Name] = true, true
			}
		}
	}
	for id, allocation := range f.Ledger.Allocations {
		whole := allocation.whole()
		lent[id], lent[whole], lent[names[whole]] = true, true, true
		used[allocation.Parent], used[names[allocation.Parent]], used[allocation.PF] = true, true, true
	}
	for pci := range f.Ledger.Sharings {
		used[pci] = true
	}
	return lent, used
}
