package netdrv

import (
	"net/netip"
	"slices"

	"github.com/mellanox/passthrough/netdrv/ledger"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// gateways fills in what the container's default routes need. When there is none the engine must be told not to look for
// another: it would give the container a second leg, on docker_gwbridge (libnetwork, engines 20.10 to 29).
func gateways(n ledger.Network, e ledger.Endpoint, r *plugin.JoinResponse) {
	near := n.Pools
	if len(e.Subnets) > 0 {
		near = e.Subnets
	}
	if e.IPv4 {
		r.Gateway = nearest(n.Gateway4, n.Gateways, e.Subnets)
	}
	if e.IPv6 {
		r.GatewayIPv6 = nearest(n.Gateway6, n.Gateways, e.Subnets)
	}
	for _, gw := range []string{r.Gateway, r.GatewayIPv6} {
		if route := routeTo(gw, near); route != nil {
			r.StaticRoutes = append(r.StaticRoutes, route)
		}
	}
	r.DisableGatewayService = r.Gateway == "" && r.GatewayIPv6 == ""
}

// subnetsOf are the pools that addresses are in; nil when there is but one pool of each family, so that nothing has to be
// told apart.
func subnetsOf(pools []string, addresses ...string) []string {
	of := map[bool]int{} // pools by whether they are IPv6
	for _, p := range pools {
		if pool, err := netip.ParsePrefix(p); err == nil {
			of[pool.Addr().Is6()]++
		}
	}
	if of[false] < 2 && of[true] < 2 {
		return nil
	}
	var subnets []string
	for _, p := range pools {
		pool, err := netip.ParsePrefix(p)
		if err == nil && slices.ContainsFunc(addresses, func(text string) bool {
			a, err := netip.ParsePrefix(text)
			return err == nil && pool.Contains(a.Addr())
		}) {
			subnets = append(subnets, p)
		}
	}
	return subnets
}

// nearest is the gateway that is in one of the subnets, of the first and the others of its family; else the first.
func nearest(first string, others, subnets []string) string {
	for _, text := range append([]string{first}, others...) {
		gw, err := netip.ParseAddr(text)
		same, err2 := netip.ParseAddr(first)
		if err != nil || err2 != nil || gw.Is4() != same.Is4() {
			continue
		}
		for _, s := range subnets {
			if p, err := netip.ParsePrefix(s); err == nil && p.Contains(gw) {
				return text
			}
		}
	}
	return first
}

// routeTo is the route to a gateway outside the network's subnets, which the engine demands before it accepts such a
// gateway; nil for one inside, and for none.
func routeTo(gateway string, pools []string) *plugin.StaticRoute {
	const connected = 1 // libnetwork types.CONNECTED
	gw, err := netip.ParseAddr(gateway)
	if err != nil {
		return nil
	}
	for _, p := range pools {
		if pool, err := netip.ParsePrefix(p); err == nil && pool.Contains(gw) {
			return nil
		}
	}
	return &plugin.StaticRoute{Destination: netip.PrefixFrom(gw, gw.BitLen()).String(), RouteType: connected}
}
