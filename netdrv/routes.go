package netdrv

import (
	"fmt"
	"net/netip"
	"slices"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/option"
)

// setRoutes decides which routes a container has, and writes them into its record. Of its network's those are left out that it cannot have:
// of an address family that it has no address of, and those to which it is the gateway. If the user gave them for the container they are
// refused.
func setRoutes(req *mode.Request, own bool, e *ledger.Endpoint) error {
	if own {
		if err := option.CheckRoutes(req.Options.Routes, req.Network.Pools); err != nil {
			return err
		}
	}
	for _, r := range req.Options.Routes {
		var why string
		switch isGateway := func(a string) bool { p, err := netip.ParsePrefix(a); return err == nil && p.Addr() == r.Via }; {
		case r.Dst.Addr().Is4() && !e.IPv4 || r.Dst.Addr().Is6() && !e.IPv6:
			why = "the container has no address of that family on this network"
		case slices.ContainsFunc(e.Addrs, isGateway):
			why = "the gateway is the container itself"
		default:
			e.Routes = append(e.Routes, ledger.Route(r))
			continue
		}
		if own {
			return fmt.Errorf("option routes: %s: %s", r, why)
		}
	}
	return nil
}

// routes answers the container's own routes. A gateway in another of the network's subnets than the container's gets a route as well: it is
// on the same segment.
func routes(e ledger.Endpoint, r *plugin.JoinResponse) {
	const nextHop, connected = 0, 1 // libnetwork types.NEXTHOP and CONNECTED
	for _, route := range e.Routes {
		answer := &plugin.StaticRoute{Destination: route.Dst.String(), RouteType: connected}
		if route.Via.IsValid() {
			answer.RouteType, answer.NextHop = nextHop, route.Via.String()
		}
		near := routeTo(answer.NextHop, onLink(e))
		if near != nil && !slices.ContainsFunc(r.StaticRoutes, func(s *plugin.StaticRoute) bool { return s.Destination == near.Destination }) {
			r.StaticRoutes = append(r.StaticRoutes, near)
		}
		r.StaticRoutes = append(r.StaticRoutes, answer)
	}
}

// onLink returns what a container reaches without a gateway: the subnets of its addresses, and destinations of its routes without one.
func onLink(e ledger.Endpoint) []string {
	subnets := slices.Clone(e.Addrs)
	for _, route := range e.Routes {
		if !route.Via.IsValid() {
			subnets = append(subnets, route.Dst.String())
		}
	}
	for i, s := range subnets {
		if p, err := netip.ParsePrefix(s); err == nil {
			subnets[i] = p.Masked().String()
		}
	}
	return subnets
}
