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

// A plan is a network that there can be.
type plan struct {
	name, mode string
	nics       []string // on which it stands
	subnet     string
	args       []string // of docker network create, without IPAM driver and subnet
	apart      []string // networks that cannot be there at the same time
}

// plans are all of them. Two have the same subnet, which is nobody's business but theirs.
var plans = []plan{
	vfs("one", []string{nic1}, "10.1.0.0/24", "vlan=10"),
	vfs("two", []string{nic1, nic2}, "10.2.0.0/24", "vlan=20"),
	vfs("far", []string{nic2}, "10.1.0.0/24", "vlan=30", "privileged=yes", "mtu=1400"),
	vfs("bond", []string{nic1, nic2}, "10.3.0.0/24", "vlan=40", "bond=active-backup"),
	ours("thin", "macvlan", nic1, "10.6.0.0/24"),
	ours("flat", "ipvlan", nic2, "10.6.1.0/24"),
	ours("whole", "passthrough", nic3, "10.7.0.0/24"),
	{"theirs", "", []string{nic1}, "10.8.0.0/24", []string{"-d", "macvlan", "-o", "parent=" + nic1}, nil},
}

// vfs is a network of VFs.
func vfs(name string, nics []string, subnet string, options ...string) plan {
	args := []string{"-d", Plugin, "-o", "netdevice=" + strings.Join(nics, ",")}
	for _, o := range options {
		args = append(args, "-o", o)
	}
	return plan{name, "sriov", nics, subnet, args, nil}
}

// ours is a network of another mode of the plugin.
func ours(name, mode, nic, subnet string) plan {
	return plan{name, mode, []string{nic}, subnet, []string{"-d", Plugin, "-o", "netdevice=" + nic, "-o", "mode=" + mode}, nil}
}

// A network is one that is there.
type network struct {
	plan
	id string
}

// made takes note of a network that has been made.
func (c *campaign) made(p plan, id string) {
	c.nets[p.name] = &network{p, id}
	if p.mode == "macvlan" || p.mode == "ipvlan" {
		c.raised[p.nics[0]] = true
	}
}

// A container is one that is there, as it has to be when nothing is under way.
type container struct {
	name, restart string
	nets          map[string]string // its networks, and the address that the user gave it there; "" for none
	running       bool
	tampered      bool // somebody has changed its devices from within
}

// named are a container's networks in order.
func (k *container) named() []string { return slices.Sorted(maps.Keys(k.nets)) }

// has tells whether it is on a network.
func (k *container) has(net string) bool { _, ok := k.nets[net]; return ok }

// again tells whether the engine starts it by itself, always.
func (k *container) again() bool { return k.restart != "no" }

// most is how many containers a campaign has at once.
const most = 9

// drawn draws one of some by lot.
func random[T any](r *rand.Rand, all []T) T { return all[r.IntN(len(all))] }

// networks are those that are there, in order of their names.
func (c *campaign) networks() []*network { return sorted(c.nets) }

// containers are those that are there and that keep says, in order of their names.
func (c *campaign) containers(keep func(*container) bool) []*container {
	return slices.DeleteFunc(sorted(c.cons), func(k *container) bool { return !keep(k) })
}

// sorted are the values of a map in the order of its keys.
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

// possible tells whether all networks of a container are there.
func (c *campaign) possible(k *container) bool {
	return !slices.ContainsFunc(k.named(), func(n string) bool { return c.nets[n] == nil })
}

// used tells whether a container refers to a network, running or not.
func (c *campaign) used(net string) bool {
	return len(c.containers(func(k *container) bool { return k.has(net) })) > 0
}

// room is how many more containers can be started on a network, by what was last seen.
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

// full tells whether a container may be refused for want of devices.
func (c *campaign) full(k *container) bool {
	return slices.ContainsFunc(k.named(), func(n string) bool { return c.nets[n] == nil || c.room(c.nets[n]) < len(k.nets) })
}

// wanted is an address of a network that no container has been given, for a user to ask for.
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

// unreleased tells whether an address that a user wants for a container was leased when all was well last, and more often than
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

// newName is a name for a container.
func (c *campaign) newName() string {
	c.ever++
	return "c" + string(rune('a'+c.ever/26%26)) + string(rune('a'+c.ever%26))
}

// seen is a container as it was last seen, nil if it was not.
func (v *view) seen(name string) *invariant.Container {
	for i := range v.Containers {
		if v.Containers[i].Name == name {
			return &v.Containers[i]
		}
	}
	return nil
}
