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
	madePrefix = "made-"                 // of the identity of a link that the plugin created
	markPrefix = "lent by passthrough: " // of the alias of an allocated device
)

// madeName matches the name in the host of a link that the plugin created.
var madeName = regexp.MustCompile(`^pt[0-9a-f]{12}$`)

// made checks that every link that the plugin created or marked is in the ledger.
func (f Facts) made(v *violations) {
	known := map[string]bool{} // marks and names
	know := func(id string) {
		if key, ok := strings.CutPrefix(id, madePrefix); ok {
			sum := sha256.Sum256([]byte(key))
			known[fmt.Sprintf("pt%x", sum[:6])] = true
		}
		known[markPrefix+id] = true
	}
	for _, n := range f.Ledger.Networks { // a VLAN device that was created for it
		for _, d := range n.Devices {
			know(d.ID)
		}
		know(n.HostDevice.ID)
		know(madePrefix + "host-" + n.ID) // the host's own child
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
			v.add("device %s: is marked %q, and is not allocated", d.Name, d.Alias)
		case !marked && madeName.MatchString(d.Name) && !known[d.Name]:
			v.add("device %s: was created by the plugin, and is not allocated", d.Name)
		}
	}
}

// announced checks that the routes in the plugin's table are those of containers.
func (f Facts) announced(v *violations) {
	wanted := map[string]bool{}
	for id, allocation := range f.Ledger.Allocations {
		for _, dst := range allocation.Announce {
			dst = strings.TrimSuffix(strings.TrimSuffix(dst, "/32"), "/128") // as iproute2 shows it
			wanted[dst] = wanted[dst] || allocation.State == "lent"
			if allocation.State == "lent" && !slices.ContainsFunc(slices.Collect(maps.Values(f.Host.Devices)),
				func(d Device) bool { return slices.Contains(d.announced, dst) }) {
				v.add("device %s (%s): is lent, and %s is not announced", id, allocation.Label, dst)
			}
		}
	}
	for _, d := range f.Host.Devices {
		for _, dst := range d.announced {
			if !wanted[dst] {
				v.add("device %s: %s is announced, and no container has it", d.Name, dst)
			}
		}
	}
}

// vfs checks that a free VF is in the host and clean, and that an allocated VF is set up as the ledger says.
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
				v.add("%s: is in another namespace, and is not allocated", name)
			default:
				f.clean(v, name, pci, i, vf)
			}
		}
		// After a reboot, or after the PF is plugged in, there are no VFs until a container needs one.
		if s, ok := f.Ledger.Sharings[pci]; ok && s.Done && pf.NumVFs != s.NumVFs && pf.NumVFs > 0 {
			v.add("pf %s (%s): has %d vfs, of which the ledger says %d", pf.Name, pci, pf.NumVFs, s.NumVFs)
		}
	}
	for id, allocation := range f.Ledger.Allocations {
		pf, there := f.Host.PFs[allocation.PF]
		if there && allocation.State == "lent" && !slices.ContainsFunc(pf.VFs, func(vf VF) bool { return vf.PCI == id }) {
			v.add("device %s (%s): is allocated to endpoint %s, and does not exist", id, allocation.Label, allocation.Endpoint)
		}
	}
}

// setUp compares a VF with its spec.
func setUp(v *violations, name string, vf VF, allocation Allocation) {
	must := func(attr string) bool { return allocation.Spec.Need[attr] > 1 }
	if must("vlan") && (vf.VLAN != allocation.Spec.VLAN.ID || vf.QoS != allocation.Spec.VLAN.QoS) {
		v.add("%s: should have vlan %d, but has %d", name, allocation.Spec.VLAN.ID, vf.VLAN)
	}
	if must("mac") && vf.MAC != "" && !strings.EqualFold(vf.MAC, allocation.Spec.MAC) {
		v.add("%s: should have mac %s, but has %s", name, allocation.Spec.MAC, vf.MAC)
	}
	if must("trust") && vf.Trust != allocation.Spec.Trust {
		v.add("%s: should have trust %v, but has %v", name, allocation.Spec.Trust, vf.Trust)
	}
	if must("spoofchk") && vf.Spoofchk != allocation.Spec.Spoofchk {
		v.add("%s: should have spoofchk %v, but has %v", name, allocation.Spec.Spoofchk, vf.Spoofchk)
	}
}

// clean checks that a free VF is as it was before, or, if it was created since, in its initial state.
func (f Facts) clean(v *violations, name, pci string, index int, vf VF) {
	want := VF{MAC: vf.MAC, Spoofchk: vf.Spoofchk, LinkState: "auto"}
	if f.Before != nil && index < len(f.Before.PFs[pci].VFs) {
		want = f.Before.PFs[pci].VFs[index]
		if want.MAC == zeroMAC { // igb reports none for a VF that has a random MAC of its own
			want.MAC = vf.MAC
		}
	}
	now := vf
	want.PCI, want.Driver, want.Netdev = now.PCI, now.Driver, now.Netdev
	if now.LinkState == "" { // its driver does not report it
		now.LinkState = want.LinkState
	}
	if now != want {
		v.add("%s: is free, and is %+v, not %+v", name, now, want)
	}
	if d, ok := f.Host.Devices[vf.Netdev]; ok && (d.Up || d.Master != "" || len(d.Addrs) > 0 || d.Promisc || d.AllMulti || d.XDP) {
		v.add("%s: is free, and its netdev is %+v", name, d)
	}
}

// zeroMAC is what the kernel reports if the PF has set no MAC.
const zeroMAC = "00:00:00:00:00:00"

// devices checks that the devices from before which are free now are unchanged, and that there are no others.
func (f Facts) devices(v *violations) {
	lent, used := f.inUse()
	for _, name := range slices.Sorted(maps.Keys(f.Before.Devices)) {
		was := f.Before.Devices[name]
		if lent[was.id(name)] || lent[name] {
			continue
		}
		now, ok := f.Host.Devices[name]
		if !ok {
			v.add("device %s: is not there under its name; %s", name, f.instead(was))
			continue
		}
		was.announced = now.announced // those are checked by announced
		if used[was.id(name)] {       // up, and promiscuous if its driver needs that, as long as it is in use
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

// instead returns a description of the device that now has the PCI address of one whose name is gone.
func (f Facts) instead(was Device) string {
	for pf, p := range f.Host.PFs {
		for i, vf := range p.VFs {
			if was.PCI == vf.PCI {
				return fmt.Sprintf("vf %d of %s (%s) is bound to %q, has override %q and netdev %q, mac %s", i, p.Name, pf, vf.Driver, vf.Override,
					vf.Netdev, vf.MAC)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Host.Devices)) {
		if d := f.Host.Devices[name]; was.PCI != "" && d.PCI == was.PCI || was.PCI == "" && d.MAC == was.MAC {
			return fmt.Sprintf("it may be %+v", d)
		}
	}
	return fmt.Sprintf("it was %+v", was)
}

// id identifies a device: its PCI address, or its name.
func (d Device) id(name string) string {
	if d.PCI != "" {
		return d.PCI
	}
	return name
}

// vfOf returns whether a device is a VF.
func (f Facts) vfOf(d Device) bool {
	for _, pf := range f.Host.PFs {
		if slices.ContainsFunc(pf.VFs, func(vf VF) bool { return d.PCI != "" && vf.PCI == d.PCI }) {
			return true
		}
	}
	return false
}

// inUse returns the allocated devices, and the devices below an allocation or a network, by PCI address or by the name at the
// creation of the network. A bond that a macvlan replaces counts as allocated.
func (f Facts) inUse() (lent, used map[string]bool) {
	lent, used = map[string]bool{}, map[string]bool{}
	defer func() { // the key of an empty field
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
