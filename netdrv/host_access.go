package netdrv

import (
	"fmt"
	"net/netip"
	"slices"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
)

// hostNames are the names of auxiliary addresses that are the host's (--aux-address host=ADDRESS): the IPAM driver, whichever it is, gives
// them to no container. The engine takes each name once.
var hostNames = []string{"host", "host6"}

// setHostAddrs finds the addresses that the host is to have among the containers of a network with host access. It needs one of each
// family. It is an error if another network with host access has the same addresses elsewhere: the host could not tell containers apart.
func (x *networks) setHostAddrs(rec *ledger.Network, o *option.Network, r *plugin.CreateNetworkRequest, others []ledger.Network) error {
	if !o.HostAccess {
		return nil
	}
	for _, family := range []struct {
		data []*plugin.IPAMData
		name string
	}{{r.IPv4Data, hostNames[0]}, {r.IPv6Data, hostNames[1]}} {
		addrs, pool := hostAddrs(family.data)
		if pool != "" && len(addrs) == 0 {
			return fmt.Errorf("option host_access: the host needs an address in %s; reserve one: --aux-address %s=ADDRESS", pool, family.name)
		}
		rec.HostAddrs = append(rec.HostAddrs, addrs...)
	}
	if len(rec.HostAddrs) == 0 {
		return fmt.Errorf("option host_access: the host needs an address, and the network has no subnet")
	}
	for _, other := range others {
		if len(other.HostAddrs) > 0 && other.Devices[0].ID != rec.Devices[0].ID && overlap(other.Pools, rec.Pools) {
			return fmt.Errorf("option host_access: network %s has host access as well, and containers with the same addresses on another device: "+
				"the host cannot tell them apart; use another subnet", ledger.ShortID(other.ID))
		}
	}
	return nil
}

// hostAddrs returns the auxiliary addresses of a family that are the host's, and the first pool of the family.
func hostAddrs(data []*plugin.IPAMData) (addrs []netip.Addr, pool string) {
	for _, p := range data {
		if p == nil || p.Pool == "" {
			continue
		}
		if pool == "" {
			pool = p.Pool
		}
		for _, name := range hostNames {
			text, _ := p.AuxAddresses[name].(string)
			if a, err := netip.ParsePrefix(text); err == nil {
				addrs = append(addrs, a.Addr())
			}
		}
	}
	return addrs, pool
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
