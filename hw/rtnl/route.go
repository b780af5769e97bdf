package rtnl

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Routes implements [hw.Kernel]. Routes without a gateway come first, because a gateway has to be reachable when its
// route is added. A route over several links is listed once for each of them.
func (k *Kernel) Routes(index int) ([]hw.Route, error) {
	if index != 0 {
		if _, err := k.LinkAt(index); err != nil {
			return nil, err
		}
	}
	var routes []hw.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		found, err := dump(func() ([]netlink.Route, error) {
			anyTable := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
			return k.nl.RouteListFiltered(family, anyTable, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, err
		}
		for _, r := range found {
			if r.Protocol != unix.RTPROT_KERNEL && r.Flags&unix.RTM_F_CLONED == 0 && r.Dst != nil {
				routes = append(routes, toRoutes(r)...)
			}
		}
	}
	routes = slices.DeleteFunc(routes, func(r hw.Route) bool { return index != 0 && r.Index != index })
	slices.SortStableFunc(routes, func(a, b hw.Route) int {
		return cmp.Compare(min(len(a.Gateway), 1), min(len(b.Gateway), 1))
	})
	return routes, nil
}

// toRoutes converts a route of the library: to one route, or one for each of its next hops.
func toRoutes(r netlink.Route) []hw.Route {
	one := hw.Route{
		Index:    r.LinkIndex,
		Dst:      r.Dst.String(),
		Gateway:  gateway(r.Gw, r.Via),
		Table:    r.Table,
		Metric:   r.Priority,
		Protocol: int(r.Protocol),
		Scope:    int(r.Scope),
		Type:     r.Type,
		MTU:      r.MTU,
		OnLink:   r.Flags&unix.RTNH_F_ONLINK != 0,
	}
	if r.Src != nil {
		one.Src = r.Src.String()
	}
	if len(r.MultiPath) == 0 {
		return []hw.Route{one}
	}
	var hops []hw.Route
	for _, hop := range r.MultiPath {
		one.Index, one.Gateway, one.OnLink = hop.LinkIndex, gateway(hop.Gw, hop.Via), hop.Flags&unix.RTNH_F_ONLINK != 0
		hops = append(hops, one)
	}
	return hops
}

// gateway returns the address of the next hop; via is an address of the other family (an IPv4 route over an IPv6
// gateway).
func gateway(gw net.IP, via netlink.Destination) string {
	if v, ok := via.(*netlink.Via); ok {
		return v.Addr.String()
	}
	if gw == nil {
		return ""
	}
	return gw.String()
}

// AddRoute implements [hw.Kernel]. An IPv4 route exists already if one to the same destination with the same metric
// does; IPv6 accepts several of those with different gateways and combines them into one route over several next hops.
func (k *Kernel) AddRoute(index int, r hw.Route) error {
	if index <= 0 {
		return hw.FromErrno(unix.ENODEV)
	}
	route, err := fromRoute(index, r)
	if err != nil {
		return err
	}
	add := k.nl.RouteAdd
	if route.Dst.IP.To4() == nil {
		add = k.nl.RouteAppend
	}
	if err := add(route); !errors.Is(err, unix.EEXIST) {
		return hw.FromErrno(err)
	}
	return nil
}

// fromRoute is the inverse of toRoutes.
func fromRoute(index int, r hw.Route) (*netlink.Route, error) {
	dst, err := parseNet(r.Dst)
	if err != nil {
		return nil, err
	}
	route := &netlink.Route{LinkIndex: index, Dst: dst, Table: r.Table, Priority: r.Metric, Type: r.Type, MTU: r.MTU,
		Protocol: netlink.RouteProtocol(r.Protocol), Scope: netlink.Scope(r.Scope)}
	if r.OnLink {
		route.Flags = unix.RTNH_F_ONLINK
	}
	if r.Src != "" {
		if route.Src = net.ParseIP(r.Src); route.Src == nil {
			return nil, fmt.Errorf("source %q: %w", r.Src, hw.ErrInvalid)
		}
	}
	if r.Gateway == "" {
		return route, nil
	}
	gw := net.ParseIP(r.Gateway)
	switch {
	case gw == nil:
		return nil, fmt.Errorf("gateway %q: %w", r.Gateway, hw.ErrInvalid)
	case gw.To4() == nil && dst.IP.To4() != nil:
		route.Via = &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: gw}
	default:
		route.Gw = gw
	}
	return route, nil
}
