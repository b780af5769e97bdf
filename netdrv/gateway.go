package netdrv

import (
	"net/netip"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// gateways fills in what the container's default routes need. When there is none the engine must be told not to look for
// another: it would give the container a second leg, on docker_gwbridge (libnetwork, engines 20.10 to 29).
func gateways(n *network, e endpointRecord, r *plugin.JoinResponse) {
	if e.IPv4 {
		r.Gateway = n.Gateway4
	}
	if e.IPv6 {
		r.GatewayIPv6 = n.Gateway6
	}
	for _, gw := range []string{r.Gateway, r.GatewayIPv6} {
		if route := routeTo(gw, n.Pools); route != nil {
			r.StaticRoutes = append(r.StaticRoutes, route)
		}
	}
	r.DisableGatewayService = r.Gateway == "" && r.GatewayIPv6 == ""
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
