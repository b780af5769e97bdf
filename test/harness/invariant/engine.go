package invariant

import (
	"net/netip"
	"slices"
	"strings"
)

// Engine is what an engine knows about the plugin's networks, endpoints and addresses.
type Engine struct {
	Networks  []string // IDs of those of this driver
	Endpoints []string // NETWORK/ENDPOINT of running containers on them
	// Addresses were assigned to it and are not released, on any network with this IPAM driver. An address of several
	// endpoints is listed several times. Nil: not read.
	Addresses []netip.Addr
	// Pools are the handles that it requested and has not released. Nil: not read.
	Pools []string
	// Unheard is the number of requests for an address or a release that got no answer. The engine does not know their result
	// and does not repeat them. Their addresses are freed with their network.
	Unheard int
	// UnheardPools is the number of requests for a pool or its release that got no answer.
	UnheardPools int
	// Lost are networks that it tried to create or remove without an answer: it does not have them, but the ledger may.
	Lost []string
	// Attached are the containers of other owners that have a device. Nil: not read.
	Attached []Owner
}

// engine checks that engine and ledger have the same networks and endpoints.
func (f Facts) engine(v *violations) {
	networks := map[string]bool{}
	for _, id := range f.Engine.Networks {
		networks[id] = true
		if _, ok := f.Ledger.Networks[id]; !ok {
			v.add("network %s: the engine has it, the ledger has not", id)
		}
	}
	for id, n := range f.Ledger.Networks {
		if n.Owner == "" && !networks[id] && !slices.Contains(f.Engine.Lost, id) {
			v.add("network %s: the ledger has it, the engine has not", id)
		}
	}
	endpoints := map[string]bool{}
	for _, key := range f.Engine.Endpoints {
		endpoints[key] = true
		e, ok := f.Ledger.Endpoints[key]
		switch allocation := f.Ledger.Allocations[e.Device]; {
		case !ok:
			v.add("endpoint %s: the engine has it, the ledger has not", key)
		case allocation.State != "lent":
			v.add("endpoint %s: a container has it, and its device %s is %s", key, e.Device, allocation.State)
		}
	}
	for key, e := range f.Ledger.Endpoints {
		if e.Owner == (Owner{}) && !endpoints[key] {
			v.add("endpoint %s: the ledger has it, the engine has not", key)
		}
	}
}

// attached checks that the devices of owners are those that their containers have, and that owners' networks end with their last endpoint.
func (f Facts) attached(v *violations) {
	if f.Engine.Attached == nil {
		return
	}
	recorded, used := map[Owner]bool{}, map[string]bool{}
	for key, e := range f.Ledger.Endpoints {
		if e.Owner == (Owner{}) {
			continue
		}
		recorded[e.Owner], used[e.Network] = true, true
		switch allocation := f.Ledger.Allocations[e.Device]; {
		case !slices.Contains(f.Engine.Attached, e.Owner):
			v.add("endpoint %s: the ledger has it for %s %s, which has no container", key, e.Owner.Kind, e.Owner.ID)
		case allocation.State != "lent":
			v.add("endpoint %s: the container of %s %s has it, and its device %s is %s", key, e.Owner.Kind, e.Owner.ID, e.Device, allocation.State)
		}
	}
	for _, o := range f.Engine.Attached {
		if !recorded[o] {
			v.add("owner %s %s: its container has a device, the ledger has not", o.Kind, o.ID)
		}
	}
	for id, n := range f.Ledger.Networks {
		if n.Owner != "" && !used[id] {
			v.add("network %s: is one of %s, and has no endpoint", id, n.Owner)
		}
	}
}

// leases checks that the engine's addresses are leased, as often as they were assigned, and no others, except gateways and
// auxiliary addresses, which not every engine lists.
func (f Facts) leases(v *violations) {
	if f.Engine.Addresses == nil {
		return
	}
	given := map[netip.Addr]int{}
	for _, a := range f.Engine.Addresses {
		given[a]++
	}
	for _, e := range f.Ledger.Endpoints {
		for _, own := range e.Leases {
			given[own.Addr]++
		}
	}
	leaked := 0
	for _, lease := range f.Ledger.Leases {
		n := max(1, len(lease.Holders))
		switch {
		case lease.Kind == "resting", lease.Kind == "reserve": // not in use
		case given[lease.Address] >= n:
			given[lease.Address] -= n
		case lease.Kind == "chosen":
			if leaked++; leaked > f.Engine.Unheard {
				v.add("address %s: is leased, and no endpoint of the engine has it", lease.Address)
			}
		}
	}
	for a, n := range given {
		if n > 0 {
			v.add("address %s: the engine has it, %d times more than it is leased", a, n)
		}
	}
}

// handles checks that the pools of the ledger are those of the engine.
func (f Facts) handles(v *violations) {
	if f.Engine.Pools == nil {
		return
	}
	has := map[string]bool{} // by the key of the record
	known := slices.Clone(f.Engine.Pools)
	for _, n := range f.Ledger.Networks {
		known = append(known, n.PoolIDs...)
	}
	for _, handle := range known {
		id, share := splitHandle(handle)
		if !f.Ledger.hasHandle(handle) {
			v.add("pool %s: the engine has it, the ledger has not", handle)
		}
		has[id], has[id+"/"+share] = true, true
	}
	leaked := map[string]bool{}
	for id := range f.Ledger.Pools {
		leaked[id] = !has[id]
	}
	for key := range f.Ledger.Shares {
		id, _, _ := strings.Cut(key, "/")
		leaked[id] = leaked[id] || !has[key]
	}
	n := 0
	for id, is := range leaked {
		if is {
			n++
		}
		if is && n > f.Engine.UnheardPools {
			v.add("pool %s: the ledger has it, the engine has not", id)
		}
	}
}

// nothing checks that the ledger is empty if the engine has no networks. Only a node's membership remains.
func (f Facts) nothing(v *violations) {
	e := f.Engine
	if e.Pools == nil || len(e.Networks)+len(e.Pools)+len(e.Lost)+len(e.Attached)+e.UnheardPools > 0 {
		return
	}
	for _, key := range f.Ledger.Keys {
		if !strings.HasPrefix(key, "cluster/") {
			v.add("record %s: is there without a network", key)
		}
	}
}
