package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sort"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
	sort.SliceStable(routes, func(i, j int) bool { return routes[i].Gateway == "" && routes[j].Gateway != "" })
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

// RoutesIn implements [hw.Kernel]. The kernel looks at table and protocol of a request only if the socket asks for strict checks
// (NETLINK_GET_STRICT_CHK, net/ipv4/fib_frontend.c, ip_valid_fib_dump_req, since Linux 4.20); older ones list all.
func (k *Kernel) RoutesIn(table, protocol int) ([]hw.Route, error) {
	var routes []hw.Route
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		found, err := routesIn(k.strict, family, table, protocol)
		if err != nil {
			return nil, err
		}
		routes = append(routes, found...)
	}
	return routes, nil
}

// openStrict opens a pool of one socket for RoutesIn, in the network namespace of the calling thread.
func openStrict() (pool, error) {
	p, err := openPool(1)
	if err != nil {
		return p, err
	}
	return p, p.use(func(s *nl.SocketHandle) error {
		err := unix.SetsockoptInt(s.Socket.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
		if errors.Is(err, unix.ENOPROTOOPT) {
			return nil
		}
		return err
	})
}

// routesIn is RoutesIn for one family.
func routesIn(p pool, family byte, table, protocol int) (routes []hw.Route, err error) {
	head := make([]byte, unix.SizeofRtMsg)
	head[0], head[5] = family, byte(protocol)
	answers, err := listMessages(p, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, appendAttr(head, unix.RTA_TABLE, u32(uint32(table))))
	if errors.Is(err, unix.ENOENT) { // no route was ever in that table
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, answer := range answers {
		m, err := split(answer, unix.SizeofRtMsg)
		if err != nil {
			return nil, err
		}
		cached := binary.NativeEndian.Uint32(m.head[8:])&unix.RTM_F_CLONED != 0
		if m.head[0] == family && m.table() == uint32(table) && int(m.head[5]) == protocol && !cached {
			routes = append(routes, hw.Route{Index: int(m.number(unix.RTA_OIF, 0)), Dst: m.destination().String(), Table: table,
				Metric: int(m.number(unix.RTA_PRIORITY, 0)), Protocol: protocol, Scope: int(m.head[6]), Type: int(m.head[7])})
		}
	}
	return routes, nil
}

// RemoveRoute implements [hw.Kernel].
func (k *Kernel) RemoveRoute(index int, r hw.Route) error {
	if index <= 0 {
		return hw.FromErrno(unix.ENODEV)
	}
	route, err := fromRoute(index, r)
	if err != nil {
		return err
	}
	if err := k.nl.RouteDel(route); !errors.Is(err, unix.ESRCH) {
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

const (
	// routeFlags are the flags of a next hop that an administrator sets; the others are state.
	routeFlags = unix.RTNH_F_ONLINK | unix.RTNH_F_PERVASIVE
	// ticks is the unit of the life of a route (USER_HZ).
	ticks = 100
	// rtaNexthopID is RTA_NH_ID.
	rtaNexthopID = 30
)

// routes lists the routes through a link in every table, those without a gateway first: a gateway has to be reachable when
// its route is added. prefixes are those to which the kernel makes routes itself.
//
// A route over several links is dropped by the kernel when one of them goes, if it is IPv4, so all its next hops are kept;
// of an IPv6 route only those over this link.
func routes(p pool, index int, prefixes []prefix) ([]hw.Entry, error) {
	var direct, others []hw.Entry
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		answers, err := listMessages(p, unix.RTM_GETROUTE, unix.RTM_NEWROUTE, append([]byte{family}, make([]byte, unix.SizeofRtMsg-1)...))
		if err != nil {
			return nil, err
		}
		for _, answer := range answers {
			m, err := split(answer, unix.SizeofRtMsg)
			if err != nil {
				return nil, err
			}
			// A kernel without IPv6 answers with the routes of all families.
			if m.head[0] != family || !m.through(index) || m.madeAgain(prefixes) {
				continue
			}
			if e, viaGateway := m.route(index); viaGateway {
				others = append(others, e)
			} else {
				direct = append(direct, e)
			}
		}
	}
	all := append(direct, others...)
	seen := map[string]bool{}
	for i, e := range all {
		m, err := split(e.Body, unix.SizeofRtMsg)
		if err != nil {
			return nil, err
		}
		key := m.sortKey()
		all[i].Beside = m.head[0] == unix.AF_INET && seen[key]
		seen[key] = true
	}
	return all, nil
}

// through returns true for a route that leads through a link, or may.
func (m message) through(index int) bool {
	return m.number(unix.RTA_OIF, 0) == uint32(index) ||
		slices.ContainsFunc(hopsOf(m.get(unix.RTA_MULTIPATH)), func(h hop) bool { return h.index() == index })
}

// madeAgain returns true for a route that the kernel makes itself, for an address or from a router advertisement, and for
// one of its cache. Which program has made a route is not in its protocol: NetworkManager gives its own "kernel".
func (m message) madeAgain(prefixes []prefix) bool {
	protocol, kind := m.head[5], m.head[7]
	cached := binary.NativeEndian.Uint32(m.head[8:])&unix.RTM_F_CLONED != 0
	switch {
	case cached, protocol == unix.RTPROT_RA, protocol == unix.RTPROT_REDIRECT:
		return true
	case kind == unix.RTN_LOCAL, kind == unix.RTN_BROADCAST, kind == unix.RTN_ANYCAST, kind == unix.RTN_MULTICAST:
		return true
	case protocol != unix.RTPROT_KERNEL:
		return false
	}
	dst := m.destination()
	if ip := dst.Addr(); ip.Is6() && (dst.Bits() == 64 && ip.IsLinkLocalUnicast() || dst.Bits() == 8 && ip.IsMulticast()) {
		return true
	}
	return slices.Contains(prefixes, prefix{dst, m.number(unix.RTA_PRIORITY, 0)})
}

// destination returns the destination of a route.
func (m message) destination() netip.Prefix {
	ip, ok := netip.AddrFromSlice(m.get(unix.RTA_DST))
	switch {
	case ok:
	case m.head[0] == unix.AF_INET6:
		ip = netip.IPv6Unspecified()
	default:
		ip = netip.IPv4Unspecified()
	}
	return netip.PrefixFrom(ip, int(m.head[1]))
}

// table returns the table of a route.
func (m message) table() uint32 { return m.number(unix.RTA_TABLE, uint32(m.head[4])) }

// sortKey is what the kernel sorts routes by.
func (m message) sortKey() string {
	return fmt.Sprint(m.destination(), m.table(), m.number(unix.RTA_PRIORITY, 0), m.head[3])
}

// route converts a listed route through a link.
func (m message) route(index int) (e hw.Entry, viaGateway bool) {
	e = hw.Entry{Kind: hw.EntryRoute}
	if info := m.get(unix.RTA_CACHEINFO); len(info) >= 12 {
		if left := indexAt(info, 8); left > 0 {
			e.ValidSec = max(1, left/ticks)
		}
	}
	if src, ok := netip.AddrFromSlice(m.get(unix.RTA_PREFSRC)); ok {
		e.Address = src.String()
	}
	// A route of a nexthop object shows the object's next hops as well; the object went with the link.
	m.without(unix.RTA_CACHEINFO, unix.RTA_EXPIRES, rtaNexthopID)
	flags := binary.NativeEndian.Uint32(m.head[8:])
	binary.NativeEndian.PutUint32(m.head[8:], flags&routeFlags)
	text := []string{"route", m.destination().String()}
	gateway := func(gw, via []byte) {
		ip, ok := netip.AddrFromSlice(gw)
		if !ok && len(via) > 2 { // after the family
			ip, ok = netip.AddrFromSlice(via[2:])
		}
		if ok {
			viaGateway = true
			text = append(text, "via", ip.String())
		}
	}
	gateway(m.get(unix.RTA_GATEWAY), m.get(unix.RTA_VIA))
	if m.get(unix.RTA_OIF) != nil {
		m.set(unix.RTA_OIF, u32(0))
	}
	if hops := hopsOf(m.get(unix.RTA_MULTIPATH)); len(hops) > 0 {
		var kept []byte
		for _, h := range hops {
			own := h.index() == index
			if !own && m.head[0] == unix.AF_INET6 {
				continue
			}
			kept = append(kept, h.entry(own)...)
			gateway(h.attr(unix.RTA_GATEWAY), h.attr(unix.RTA_VIA))
		}
		m.set(unix.RTA_MULTIPATH, kept)
	}
	if table := m.table(); table != unix.RT_TABLE_MAIN {
		text = append(text, "table", fmt.Sprint(table))
	}
	if metric := m.number(unix.RTA_PRIORITY, 0); metric != 0 {
		text = append(text, "metric", fmt.Sprint(metric))
	}
	if tos := m.head[3]; tos != 0 {
		text = append(text, "tos", fmt.Sprintf("%#x", tos))
	}
	e.Text, e.Body = strings.Join(text, " "), m.body()
	return e, viaGateway
}

// A hop is a next hop of a route over several: a struct rtnexthop with its attributes.
type hop []byte

// hopsOf splits the value of RTA_MULTIPATH.
func hopsOf(b []byte) (hops []hop) {
	for len(b) >= unix.SizeofRtNexthop {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofRtNexthop || n > len(b) {
			break
		}
		hops = append(hops, hop(b[:n]))
		b = b[min(len(b), (n+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	return hops
}

func (h hop) index() int { return indexAt(h, 4) }

// attr returns the value of an attribute of a next hop.
func (h hop) attr(attr int) []byte {
	m, err := split(h, unix.SizeofRtNexthop)
	if err != nil {
		return nil
	}
	return m.get(attr)
}

// entry returns the next hop without state, and without the ifindex if it is over the link itself.
func (h hop) entry(own bool) []byte {
	b := slices.Clone(h)
	b[2] &= routeFlags
	if own {
		putIndex(b, 4, 0)
	}
	return append(b, make([]byte, -len(b)&(unix.NLA_ALIGNTO-1))...)
}

// addRoute adds a route. IPv6 adds it to others to the same destination: as another next hop if it can.
func addRoute(p pool, index int, e hw.Entry) error {
	m, err := split(e.Body, unix.SizeofRtMsg)
	if err != nil {
		return err
	}
	if m.get(unix.RTA_OIF) != nil {
		m.set(unix.RTA_OIF, u32(uint32(index)))
	}
	if multi := m.get(unix.RTA_MULTIPATH); multi != nil {
		multi = slices.Clone(multi)
		for _, h := range hopsOf(multi) { // they are parts of multi
			if h.index() == 0 {
				putIndex(h, 4, index)
			}
		}
		m.set(unix.RTA_MULTIPATH, multi)
	}
	if e.ValidSec > 0 {
		m.set(unix.RTA_EXPIRES, u32(uint32(e.ValidSec)))
	}
	flags := unix.NLM_F_CREATE | unix.NLM_F_EXCL
	if m.head[0] == unix.AF_INET6 || e.Beside {
		flags = unix.NLM_F_CREATE | unix.NLM_F_APPEND
	}
	return unlessExists(sendMessage(p, unix.RTM_NEWROUTE, flags, m.body()))
}

// unlessExists drops the error about something that exists.
func unlessExists(err error) error {
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}
