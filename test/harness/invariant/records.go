package invariant

import "strings"

// ledger checks the records by themselves: no device is allocated twice, and no operation is half done.
func (f Facts) ledger(v *violations) {
	l := f.Ledger
	owned := map[Owner]string{}
	for key, e := range l.Endpoints {
		if other := owned[e.Owner]; other != "" && e.Owner != (Owner{}) {
			v.add("owner %s %s: has the endpoints %s and %s", e.Owner.Kind, e.Owner.ID, other, key)
		}
		owned[e.Owner] = key
		allocation, ok := l.Allocations[e.Device]
		switch {
		case key != e.Network+"/"+e.ID:
			v.add("endpoint %s: its record says that it is %s of network %s", key, e.ID, e.Network)
		case !ok:
			v.add("endpoint %s: has device %s, which the ledger says is free", key, e.Device)
		case allocation.Endpoint != e.ID || allocation.Network != e.Network || allocation.PartOf != "":
			v.add("endpoint %s: has device %s, which is allocated to %s", key, e.Device, allocation.Endpoint)
		}
		n, ok := l.Networks[e.Network]
		switch {
		case !ok:
			v.add("endpoint %s: its network has no record", key)
		case n.Owner != e.Owner.Kind || allocation.Owner != e.Owner:
			v.add("endpoint %s: its owner is %v, that of its device %v, and that of its network %q", key, e.Owner, allocation.Owner, n.Owner)
		}
	}
	for id, allocation := range l.Allocations {
		f.allocation(v, id, allocation)
	}
	for pci, s := range l.Sharings {
		if !s.Done {
			v.add("pf %s: its vfs are still being made", pci)
		}
		if !l.needs(pci) {
			v.add("pf %s: its vfs were made for networks, and there is none", pci)
		}
	}
}

// allocation checks one allocated device.
func (f Facts) allocation(v *violations, id string, allocation Allocation) {
	l := f.Ledger
	holder := allocation.Network + "/" + allocation.Endpoint
	e, held := l.Endpoints[holder]
	switch {
	case allocation.Device != id:
		v.add("device %s: its record says that it is %s", id, allocation.Device)
	case allocation.State == "quarantined" && f.Quarantine:
	case allocation.State == "quarantined":
		v.add("device %s (%s): is quarantined: %s", id, allocation.Label, allocation.Reason)
	case allocation.State != "ready" && allocation.State != "lent":
		v.add("device %s (%s): is still %s", id, allocation.Label, allocation.State)
	case !held:
		v.add("device %s (%s): is %s to endpoint %s, which has no record", id, allocation.Label, allocation.State, holder)
	case allocation.PartOf == "" && e.Device != id:
		v.add("device %s (%s): is allocated to endpoint %s, which has %s", id, allocation.Label, holder, e.Device)
	case allocation.PartOf != "" && allocation.PartOf != e.Device:
		v.add("device %s (%s): is part of %s, endpoint %s has %s", id, allocation.Label, allocation.PartOf, holder, e.Device)
	}
	for other, o := range l.Allocations {
		if other < id && allocation.whole() != "" && allocation.whole() == o.whole() {
			v.add("device %s: is allocated as a whole to endpoints %s and %s", allocation.whole(), allocation.Endpoint, o.Endpoint)
		}
		if other != id && allocation.whole() != "" && (o.Parent == allocation.whole() && o.whole() == "" || o.PF != "" && o.PF == allocation.whole()) {
			v.add("device %s: is allocated as a whole to endpoint %s, and endpoint %s has a part of it", allocation.whole(), allocation.Endpoint, o.Endpoint)
		}
	}
}

// whole returns the device that is allocated as a whole; "" for a VF or a child.
func (l Allocation) whole() string {
	switch {
	case l.Mode != "passthrough":
		return ""
	case l.Parent != "":
		return l.Parent
	}
	return l.Device
}

// needs returns whether a network or an allocation uses a PF's VFs.
func (l *Ledger) needs(pci string) bool {
	for _, n := range l.Networks {
		for _, d := range n.Devices {
			id, _, _ := strings.Cut(d.ID, "/")
			if mode := n.Options["mode"]; id == pci && (mode == "" || mode == "sriov") {
				return true
			}
		}
	}
	for _, allocation := range l.Allocations {
		if allocation.PF == pci {
			return true
		}
	}
	return false
}

// owners checks that owners' networks and endpoints have the pools and leases which their records name.
func (f Facts) owners(v *violations) {
	l := f.Ledger
	leased := map[string]bool{}
	for _, lease := range l.Leases {
		leased[lease.Pool+" "+lease.Address.String()+" "+lease.Token] = true
	}
	for id, n := range l.Networks {
		for _, handle := range n.PoolIDs {
			if !l.hasHandle(handle) {
				v.add("network %s: its pool %s has no record", id, handle)
			}
		}
	}
	for key, e := range l.Endpoints {
		for _, own := range e.Leases {
			pool, _ := splitHandle(own.Pool)
			if !leased[pool+" "+own.Addr.String()+" "+own.Token] {
				v.add("endpoint %s: its address %s is not leased to it", key, own.Addr)
			}
		}
	}
}

// splitHandle returns the pool and the share of a handle, "" for none.
func splitHandle(handle string) (pool, share string) {
	pool, share, _ = strings.Cut(strings.TrimPrefix(handle, "v1:"), ".")
	return pool, share
}

// hasHandle returns whether there is a record of a handle.
func (l *Ledger) hasHandle(handle string) bool {
	pool, share := splitHandle(handle)
	_, ok := l.Pools[pool]
	return ok && (share == "" || l.Shares[pool+"/"+share])
}

// addresses checks the IPAM driver's records by themselves.
func (f Facts) addresses(v *violations) {
	l := f.Ledger
	for _, lease := range l.Leases {
		pool, ok := l.Pools[lease.Pool]
		outside := ok && !pool.Subnet.Contains(lease.Address) && lease.Kind != "gateway"
		switch {
		case !ok:
			v.add("address %s: is of pool %s, which has no record", lease.Address, lease.Pool)
		case outside:
			v.add("address %s: is of a pool that is %s", lease.Address, pool.Subnet)
		}
		for _, h := range lease.Holders {
			if !l.Shares[lease.Pool+"/"+h] {
				v.add("address %s: is held by share %s of pool %s, which has no record", lease.Address, h, lease.Pool)
			}
		}
	}
	for share := range l.Shares {
		pool, _, _ := strings.Cut(share, "/")
		if _, ok := l.Pools[pool]; !ok {
			v.add("share %s: its pool has no record", share)
		}
	}
	for what, refs := range map[string]map[string]string{"name": l.Names, "default subnet": l.Carved} {
		for name, pool := range refs {
			if _, ok := l.Pools[pool]; !ok {
				v.add("%s %s: is kept for pool %s, which has no record", what, name, pool)
			}
		}
	}
}
