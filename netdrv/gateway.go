package netdrv

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
)

// gateways sets the container's gateways, and the routes to them. Without an IPv4 gateway it disables the engine's gateway service, which
// would connect the container to docker_gwbridge as well: engines before 28 look at the IPv4 gateway alone (needDefaultGW in
// libnetwork/default_gateway.go, 20.10 and 26.1), later ones at both.
func gateways(n ledger.Network, o *option.Network, e ledger.Endpoint, r *plugin.JoinResponse) {
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
	if o.Routed() && !n.Internal && o.Gateway != option.GatewayNone {
		throughDevice(e.Addrs, r)
	}
	for _, gw := range []string{r.Gateway, r.GatewayIPv6} {
		if route := routeTo(gw, near); route != nil {
			r.StaticRoutes = append(r.StaticRoutes, route)
		}
	}
	r.DisableGatewayService = r.Gateway == ""
	if r.DisableGatewayService && r.GatewayIPv6 != "" && n.EngineInvents {
		r.StaticRoutes = append(r.StaticRoutes, &plugin.StaticRoute{Destination: "::/0", NextHop: r.GatewayIPv6})
		r.GatewayIPv6 = ""
	}
}

// throughDevice sets the gateways that the user has not given for a device that resolves none, such as an ipvlan in mode l3
// (drivers/net/ipvlan/ipvlan_main.c, ipvlan_set_port_mode: IFF_NOARP, Linux 6.12): any address that the container does not have leads
// through it. A route without a gateway would do the same, but engines before 28 add that of each network of a container, and fail with
// the second (moby/moby#48576); of gateways they choose one.
func throughDevice(addresses []string, r *plugin.JoinResponse) {
	for _, text := range addresses {
		own, err := netip.ParsePrefix(text)
		if err != nil {
			continue
		}
		to := &r.Gateway
		if own.Addr().Is6() {
			to = &r.GatewayIPv6
		}
		if gw := besides(own); *to == "" && gw.IsValid() {
			*to = gw.String()
		}
	}
}

// besides returns an address that can be the gateway of the one with a prefix length: one next to it in its subnet, or, if it is the only
// one there, one of IPv4's link-local or IPv6's discard-only addresses (RFC 6666). It is invalid if there is none.
func besides(own netip.Prefix) netip.Addr {
	self, subnet := own.Addr(), own.Masked()
	if own.IsSingleIP() {
		other := slices.Concat([]byte{169, 254}, self.AsSlice()[2:])
		if self.Is6() {
			other = slices.Concat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, self.AsSlice()[8:])
		}
		if gw, _ := netip.AddrFromSlice(other); gw != self {
			return gw
		}
		return netip.Addr{}
	}
	gw := self.Next()
	ends := self.Is4() && subnet.Bits() < 31 && gw.IsValid() && !subnet.Contains(gw.Next()) // the broadcast address
	if ends || !subnet.Contains(gw) {
		gw = self.Prev()
	}
	return gw
}

// subnetsOf returns the pools that addresses are in; nil if there is at most one pool of each family, so that there is no choice.
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

// nearest returns the gateway in one of the subnets, of first and of those of others that are of its family; if none is, first.
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

// routeTo returns the route to a gateway outside the network's subnets, without which the engine does not accept it; nil for a gateway
// inside, and for none.
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

// setGateways decides which gateways containers get. Engines before 28 invent one for every network; this request does not say so. Only
// the IPAM driver knows, if it is ours.
func (x *networks) setGateways(ctx context.Context, rec *ledger.Network, o *option.Network, r *plugin.CreateNetworkRequest) error {
	for _, family := range []struct {
		data []*plugin.IPAMData
		to   *string
	}{{r.IPv4Data, &rec.Gateway4}, {r.IPv6Data, &rec.Gateway6}} {
		for _, p := range family.data {
			if p == nil {
				continue
			}
			if p.Gateway == "" || rec.Internal || o.Gateway == option.GatewayNone {
				continue
			}
			gw, err := netip.ParsePrefix(p.Gateway)
			if err != nil {
				return fmt.Errorf("gateway %s: %w", p.Gateway, err)
			}
			invented := x.inventedGateway != nil && x.inventedGateway(ctx, p.Pool, p.Gateway)
			rec.EngineInvents = rec.EngineInvents || invented && o.Gateway != option.GatewayAuto
			switch {
			case invented && (o.Gateway != option.GatewayAuto || isNetworkAddress(gw)):
			case *family.to == "":
				*family.to = gw.Addr().String()
			default:
				rec.Gateways = append(rec.Gateways, gw.Addr().String())
			}
		}
	}
	return nil
}

// isUnusedGateway returns true if the network's containers do not get a gateway, which has a prefix length.
func isUnusedGateway(n ledger.Network, gateway string) bool {
	gw, err := netip.ParsePrefix(gateway)
	return err == nil && !slices.Contains(append([]string{n.Gateway4, n.Gateway6}, n.Gateways...), gw.Addr().String())
}

// auxAddresses lists the auxiliary addresses of a pool (--aux-address), which have prefix lengths.
func auxAddresses(p *plugin.IPAMData) []string {
	var all []string
	for _, a := range p.AuxAddresses {
		if text, ok := a.(string); ok {
			all = append(all, text)
		}
	}
	return all
}

// isNetworkAddress reports whether gw is the address of the subnet itself. That is what the IPAM driver answers, where there is to be no
// gateway, to engines that insist on one.
func isNetworkAddress(gw netip.Prefix) bool {
	return gw.Addr() == gw.Masked().Addr() && gw.Addr().BitLen()-gw.Bits() > 1
}
