//go:build lab

package campaign

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// A plan is the definition of a network.
type plan struct {
	name, mode string
	nics       []string // parent devices
	subnet     string
	args       []string // of docker network create, without IPAM driver and subnet
	apart      []string // networks that cannot exist at the same time
}

// plans are all networks of a campaign. Two have the same subnet, on purpose.
var plans = []plan{
	vfs("one", []string{nic1}, "10.1.0.0/24", "vlan=10"),
	vfs("two", []string{nic1, nic2}, "10.2.0.0/24", "vlan=20"),
	vfs("far", []string{nic2}, "10.1.0.0/24", "vlan=30", "privileged=yes", "mtu=1400"),
	vfs("plain", []string{nic2}, "10.4.0.0/24"), // untagged, so that a container can have VLANs of its own
	vfs("bond", []string{nic1, nic2}, "10.3.0.0/24", "vlan=40", "bond=active-backup"),
	ours("thin", "macvlan", nic1, "10.6.0.0/24"),
	ours("flat", "ipvlan", nic2, "10.6.1.0/24"),
	ours("whole", "passthrough", nic3, "10.7.0.0/24"),
	{"theirs", "", []string{nic1}, "10.8.0.0/24", []string{"-d", "macvlan", "-o", "parent=" + nic1}, nil},
}

// vfs returns the plan of a network of VFs.
func vfs(name string, nics []string, subnet string, options ...string) plan {
	args := []string{"-d", Plugin, "-o", "netdevice=" + strings.Join(nics, ",")}
	for _, o := range options {
		args = append(args, "-o", o)
	}
	return plan{name, "sriov", nics, subnet, args, nil}
}

// ours returns the plan of a network of another mode of the plugin.
func ours(name, mode, nic, subnet string) plan {
	return plan{name, mode, []string{nic}, subnet, []string{"-d", Plugin, "-o", "netdevice=" + nic, "-o", "mode=" + mode}, nil}
}

// A network is an existing network.
type network struct {
	plan
	id string
}

// made adds a created network to the model.
func (c *campaign) made(p plan, id string) {
	c.nets[p.name] = &network{p, id}
	if p.mode == "macvlan" || p.mode == "ipvlan" {
		c.raised[p.nics[0]] = true
	}
}

// A container is the expected state of a container while no operation is in progress.
type container struct {
	name, restart string
	nets          map[string]string // by network, the address that the user requested; "" for none
	running       bool
	tampered      bool // its devices were changed from inside
}

// named returns the sorted names of its networks.
func (k *container) named() []string { return slices.Sorted(maps.Keys(k.nets)) }

// has returns whether it is connected to a network.
func (k *container) has(net string) bool { _, ok := k.nets[net]; return ok }

// autoRestart returns whether it has the restart policy "always".
func (k *container) autoRestart() bool { return k.restart != "no" }

// maxContainers is the maximum number of containers at a time.
const maxContainers = 9

// random returns a random element.
func random[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// networks returns the existing networks, sorted by name.
func (c *campaign) networks() []*network { return sorted(c.nets) }

// containers returns the existing containers for which keep returns true, sorted by name.
func (c *campaign) containers(keep func(*container) bool) []*container {
	return slices.DeleteFunc(sorted(c.cons), func(k *container) bool { return !keep(k) })
}

// sorted returns the values of a map in the order of its keys.
func sorted[T any](all map[string]T) (values []T) {
	for _, key := range slices.Sorted(maps.Keys(all)) {
		values = append(values, all[key])
	}
	return values
}

// The usual sets of containers.
func all(*container) bool                 { return true }
func running(k *container) bool           { return k.running }
func (c *campaign) off(k *container) bool { return !k.running && c.possible(k) }
func healthy(k *container) bool           { return k.running && !k.tampered }

// possible returns whether all networks of a container exist.
func (c *campaign) possible(k *container) bool {
	return !slices.ContainsFunc(k.named(), func(n string) bool { return c.nets[n] == nil })
}

// used returns whether a container, running or not, is configured with a network.
func (c *campaign) used(net string) bool {
	return len(c.containers(func(k *container) bool { return k.has(net) })) > 0
}

// room returns how many more containers can be started on a network, by the last view.
func (c *campaign) room(n *network) int {
	const plenty = 1000
	if n.mode != "sriov" && n.mode != "passthrough" {
		return plenty
	}
	var free []int
	for _, nic := range n.nics {
		pci := pciOf(nic)
		taken := 0
		for _, l := range c.last.Ledger.Allocations {
			if l.PF == pci || string(l.Device) == pci {
				taken++
			}
		}
		if n.mode == "passthrough" {
			return 1 - taken
		}
		free = append(free, cmp.Or(c.last.Host.PFs[pci].NumVFs, 7)-taken)
	}
	if slices.Contains(n.args, "bond=active-backup") {
		return slices.Min(free)
	}
	sum := 0
	for _, f := range free {
		sum += f
	}
	return sum
}

// full returns whether a container may be refused because its networks have no free device.
func (c *campaign) full(k *container) bool {
	return slices.ContainsFunc(k.named(), func(n string) bool { return c.nets[n] == nil || c.room(c.nets[n]) < len(k.nets) })
}

// wanted returns an address of a network that no container has requested.
func (c *campaign) wanted(n *network) string {
	base := netip.MustParsePrefix(n.subnet).Addr().As4()
	for i := 200; ; i++ {
		base[3] = byte(i)
		address := netip.AddrFrom4(base).String()
		if len(c.containers(func(k *container) bool { return k.nets[n.name] == address })) == 0 {
			return address
		}
	}
}

// unreleased returns whether a requested address of a container was leased in the last view, and more often than
// containers had it: its release was lost.
func (c *campaign) unreleased(k *container) bool {
	for _, wanted := range k.nets {
		spare := 0
		for _, l := range c.last.Ledger.Leases {
			if l.Address.String() == wanted && l.Kind != "resting" {
				spare++
			}
		}
		for _, a := range c.last.Engine.Addresses {
			if a.String() == wanted {
				spare--
			}
		}
		if spare > 0 {
			return true
		}
	}
	return false
}

// newName returns a new container name.
func (c *campaign) newName() string {
	c.created++
	return "c" + string(rune('a'+c.created/26%26)) + string(rune('a'+c.created%26))
}

// seen returns a container of the view, nil if it does not exist.
func (v *view) seen(name string) *invariant.Container {
	for i := range v.Containers {
		if v.Containers[i].Name == name {
			return &v.Containers[i]
		}
	}
	return nil
}
