package netdrv

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/option"
)

// hostNames are the names of auxiliary addresses that are the host's (--aux-address host=ADDRESS): the IPAM driver, whichever it is, gives
// them to no container. The engine takes each name once.
var hostNames = []string{"host", "host6"}

// hostAddrs returns the addresses that the host is to have among the containers of a network with host access, one of each family at least.
func hostAddrs(o *option.Network, r *plugin.CreateNetworkRequest) (all []netip.Addr, _ error) {
	if !o.HostAccess {
		return nil, nil
	}
	for _, family := range []struct {
		data []*plugin.IPAMData
		name string
	}{{r.IPv4Data, hostNames[0]}, {r.IPv6Data, hostNames[1]}} {
		addrs, pool := hostAddrsIn(family.data)
		if pool != "" && len(addrs) == 0 {
			return nil, fmt.Errorf("option host_access: the host needs an address in %s; reserve one: --aux-address %s=ADDRESS", pool, family.name)
		}
		all = append(all, addrs...)
	}
	if len(all) == 0 {
		return nil, errors.New("option host_access: the host needs an address, and the network has no subnet")
	}
	return all, nil
}

// hostAddrsIn returns the auxiliary addresses of a family that are the host's, and the first pool of the family.
func hostAddrsIn(data []*plugin.IPAMData) (addrs []netip.Addr, pool string) {
	for _, p := range data {
		if p == nil || p.Pool == "" {
			continue
		}
		pool = cmp.Or(pool, p.Pool)
		for _, name := range hostNames {
			text, _ := p.AuxAddresses[name].(string)
			if a, err := netip.ParsePrefix(text); err == nil {
				addrs = append(addrs, a.Addr())
			}
		}
	}
	return addrs, pool
}

// poolsOf returns the subnets of a new network.
func poolsOf(r *plugin.CreateNetworkRequest) (pools []string) {
	for _, p := range slices.Concat(r.IPv4Data, r.IPv6Data) {
		if p != nil && p.Pool != "" {
			pools = append(pools, p.Pool)
		}
	}
	return pools
}

// checkHostAddrs refuses host access with an address that the host has by another network, or to containers that it could not tell from
// those of another network, on another device.
func checkHostAddrs(n ledger.Network, others []ledger.Network) error {
	for _, other := range others {
		i := slices.IndexFunc(n.HostAddrs, func(a netip.Addr) bool { return slices.Contains(other.HostAddrs, a) })
		switch {
		case len(n.HostAddrs) == 0 || len(other.HostAddrs) == 0:
		case other.HostParent().ID != n.HostParent().ID && overlap(other.Pools, n.Pools):
			return mode.Conflict(other.ID, "option host_access: network %s has it as well, and containers with the same addresses on another "+
				"device: the host cannot tell them apart; use another subnet", ledger.ShortID(other.ID))
		case i >= 0:
			return mode.Conflict(other.ID, "option host_access: the host has address %s by network %s; reserve another with --aux-address", n.HostAddrs[i],
				ledger.ShortID(other.ID))
		}
	}
	return nil
}

// overlap reports whether one of some subnets overlaps one of others.
func overlap(some, others []string) bool {
	return slices.ContainsFunc(some, func(s string) bool {
		a, err := netip.ParsePrefix(s)
		return err == nil && slices.ContainsFunc(others, func(o string) bool {
			b, err := netip.ParsePrefix(o)
			return err == nil && a.Overlaps(b)
		})
	})
}
