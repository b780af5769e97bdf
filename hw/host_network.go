package hw

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"syscall"
)

// HostSubnets lists the subnets that the host has addresses in or routes to, sorted and without the default routes and those to
// containers that the plugin has added.
func (h *hostNetwork) HostSubnets() ([]netip.Prefix, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return nil, &Error{Op: "list links", Err: err}
	}
	routes, err := h.kernel.Routes(0)
	if err != nil {
		return nil, &Error{Op: "list routes", Err: err}
	}
	var cidrs []string
	for _, r := range routes {
		if !r.announced() {
			cidrs = append(cidrs, r.Dst)
		}
	}
	for _, l := range links {
		addrs, err := h.kernel.Addrs(l.Index)
		if err != nil && !errors.Is(err, ErrNotFound) { // the link may be gone by now
			return nil, &Error{Dev: l.Name, Op: "list addresses", Err: err}
		}
		for _, a := range addrs {
			cidrs = append(cidrs, a.CIDR)
			if a.Peer != "" {
				cidrs = append(cidrs, a.Peer)
			}
		}
	}
	var all []netip.Prefix
	for _, c := range cidrs {
		if p, err := netip.ParsePrefix(c); err == nil && p.Bits() > 0 {
			all = append(all, p.Masked())
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	return slices.Compact(all), nil
}

// Addresses lists the addresses of a device, with their prefix lengths.
func (h *hostNetwork) Addresses(n Netdev) ([]string, error) {
	addrs, err := h.kernel.Addrs(n.Index)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list addresses", Err: err}
	}
	var cidrs []string
	for _, a := range addrs {
		cidrs = append(cidrs, a.CIDR)
	}
	return cidrs, nil
}

// ProbeAddress asks the segment of a device which MAC has an address, by ARP or IPv6 neighbour discovery; "" if none
// answers within holderBound. The kernel asks, as for a frame of its own, so no raw socket is needed; the neighbour
// entry is removed afterwards.
func (h *hostNetwork) ProbeAddress(ctx context.Context, device string, a netip.Addr) (MAC, error) {
	op := "ask who has " + a.String()
	l, err := h.segment(device)
	if err != nil {
		return "", &Error{Dev: device, Op: op, Err: err}
	}
	mac, known, err := h.kernel.Neighbour(l.Index, a)
	if err == nil && mac != "" || err != nil {
		return mac, wrapped(device, op, err)
	}
	if known { // the entry may be outdated: ask again
		err = h.kernel.ForgetNeighbour(l.Index, a)
	}
	if err == nil {
		err = h.kernel.Solicit(l.Index, a)
	}
	if err != nil {
		return "", &Error{Dev: device, Op: op, Err: err}
	}
	err = wait(ctx, holderBound, func() (bool, error) {
		mac, _, err = h.kernel.Neighbour(l.Index, a)
		return mac != "", err
	})
	if timedOut(err) || errors.Is(err, context.DeadlineExceeded) {
		err = nil
	}
	return mac, wrapped(device, op, errors.Join(err, h.kernel.ForgetNeighbour(l.Index, a)))
}

// wrapped adds to err what was attempted; nil stays nil.
func wrapped(device, op string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Dev: device, Op: op, Err: err}
}

// segment returns a device that can send frames: up and with carrier.
func (h *hostNetwork) segment(device string) (Link, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return Link{}, err
	}
	for _, l := range links {
		switch {
		case l.Name != device:
		case !l.Up:
			return Link{}, errors.New("it is down: device not ready")
		case !l.Carrier:
			return Link{}, errors.New("it has no carrier: device not ready")
		default:
			return l, nil
		}
	}
	return Link{}, ErrNotFound
}

// mainTable is RT_TABLE_MAIN (include/uapi/linux/rtnetlink.h).
const mainTable = 254

// defaultRoute says that the host reaches other networks through a device, in words that follow its name; "" if it does
// not. The device has a default route in some table, such as that of a VRF, or a link above it has one: a VLAN,
// macvlan, ipvlan or IPoIB child, or the bond, bridge or Open vSwitch that it is a port of.
func (h *hostNetwork) defaultRoute(n Netdev, links []Link) (string, error) {
	routes, err := h.kernel.Routes(0)
	if err != nil {
		return "", &Error{Dev: n.Name, Op: "list routes", Err: err}
	}
	for _, r := range routes {
		if r.Dst != "0.0.0.0/0" && r.Dst != "::/0" {
			continue
		}
		i := slices.IndexFunc(links, func(l Link) bool { return l.Index == r.Index })
		switch {
		case i < 0 || !standsOn(links[i], n.Index, links):
		case r.Table == mainTable:
			return fmt.Sprintf("carries the host's default route (through %s)", links[i].Name), nil
		default:
			return fmt.Sprintf("carries the default route of table %d (through %s)", r.Table, links[i].Name), nil
		}
	}
	return "", nil
}

// session says that a session of the host leads through a device, in words that follow its name; "" if none does.
func (h *hostNetwork) session(n Netdev, links []Link) (string, error) {
	sessions, err := h.kernel.Sessions()
	if err != nil {
		return "", &Error{Dev: n.Name, Op: "look for tcp sessions", Err: err}
	}
	if len(sessions) == 0 {
		return "", nil
	}
	for _, l := range links {
		if l.Type == "loopback" || !standsOn(l, n.Index, links) {
			continue
		}
		addrs, err := h.kernel.Addrs(l.Index)
		if err != nil {
			return "", &Error{Dev: l.Name, Op: "list addresses", Err: err}
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.CIDR)
			i := slices.IndexFunc(sessions, func(s netip.AddrPort) bool { return s.Addr() == p.Addr() })
			if err == nil && i >= 0 {
				return fmt.Sprintf("carries a tcp session (to %s on %s)", sessions[i], l.Name), nil
			}
		}
	}
	return "", nil
}

// childKinds are the kinds of link whose frames leave through another link, their parent.
var childKinds = []string{"vlan", "macsec", Macvlan, "macvtap", IPVlan, "ipvtap", IPoIB}

// isChildOf returns true if a link is a child of the one with the given index.
func (l Link) isChildOf(index int) bool {
	return l.Peer == index && slices.Contains(childKinds, l.Kind)
}

// standsOn returns true if frames of l leave through the link with the given index.
func standsOn(l Link, index int, links []Link) bool { return leadsTo(l, index, links, map[int]bool{}) }

// leadsTo is standsOn with the links that were visited already: links may form a cycle.
func leadsTo(l Link, index int, links []Link, passed map[int]bool) bool {
	if l.Index == index {
		return true
	}
	if passed[l.Index] {
		return false
	}
	passed[l.Index] = true
	for _, below := range links {
		under := l.isChildOf(below.Index) || below.Master == l.Index || l.ofOpenVSwitch() && switched(below, links)
		if under && leadsTo(below, index, links, passed) {
			return true
		}
	}
	return false
}

// ofOpenVSwitch returns true if a link is part of Open vSwitch: the datapath, called ovs-system, or an internal port,
// which has the addresses of the host.
func (l Link) ofOpenVSwitch() bool { return l.Kind == "openvswitch" || l.Name == "ovs-system" }

// switched returns true if a link is a port of Open vSwitch. Its master is the datapath, whatever bridge it is in
// (net/openvswitch/vport-netdev.c, ovs_netdev_link, Linux 6.12): frames of any internal port may leave through it.
func switched(l Link, links []Link) bool {
	return slices.ContainsFunc(links, func(m Link) bool { return m.Index == l.Master && m.ofOpenVSwitch() })
}

// hostAccessProtocol is the protocol number of routes through children of the host.
const hostAccessProtocol = 118

// hostRoutes returns the routes through a child of the host to some addresses, by their destinations; src are the sources.
func hostRoutes(src, to []netip.Addr) map[string]Route {
	routes := map[string]Route{}
	for _, a := range to {
		i := slices.IndexFunc(src, func(s netip.Addr) bool { return s.Is4() == a.Is4() })
		if i < 0 {
			continue
		}
		r := Route{Dst: netip.PrefixFrom(a, a.BitLen()).String(), Src: src[i].String(), Table: mainTable, Protocol: hostAccessProtocol}
		if a.Is4() {
			r.Scope = scopeLink
		}
		routes[r.Dst] = r
	}
	return routes
}

// AddHostRoutes adds routes through a child of the host to some addresses, with src as the source for those of its family.
func (h *hostNetwork) AddHostRoutes(n Netdev, src, to []netip.Addr) error {
	return h.eachHostRoute(n, "add", hostRoutes(src, to), h.kernel.AddRoute)
}

// RemoveHostRoutes removes routes of AddHostRoutes. It succeeds if they are gone.
func (h *hostNetwork) RemoveHostRoutes(n Netdev, src, to []netip.Addr) error {
	return h.eachHostRoute(n, "remove", hostRoutes(src, to), h.kernel.RemoveRoute)
}

func (h *hostNetwork) eachHostRoute(n Netdev, op string, routes map[string]Route, do func(index int, r Route) error) error {
	var errs []error
	for _, dst := range slices.Sorted(maps.Keys(routes)) {
		errs = append(errs, wrapped(n.Name, op+" route "+dst, do(n.Index, routes[dst])))
	}
	return errors.Join(errs...)
}

// SyncHostRoutes makes the routes through a child of the host those to some addresses. Routes that others have added stay.
func (h *hostNetwork) SyncHostRoutes(n Netdev, src, to []netip.Addr) error {
	all, err := h.kernel.RoutesIn(mainTable, hostAccessProtocol)
	if err != nil {
		return &Error{Dev: n.Name, Op: "list routes", Err: err}
	}
	missing, surplus := hostRoutes(src, to), map[string]Route{}
	for _, r := range all {
		if r.Index != n.Index {
			continue
		}
		if _, ok := missing[r.Dst]; ok {
			delete(missing, r.Dst)
		} else {
			surplus[r.Dst] = r
		}
	}
	return errors.Join(h.eachHostRoute(n, "remove", surplus, h.kernel.RemoveRoute), h.eachHostRoute(n, "add", missing, h.kernel.AddRoute))
}

// DeviceWith returns the name of the device of the host that has an address; "" if none has.
func (h *hostNetwork) DeviceWith(a netip.Addr) (string, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return "", &Error{Op: "list links", Err: err}
	}
	for _, l := range links {
		addrs, err := h.kernel.Addrs(l.Index)
		if err != nil && !errors.Is(err, ErrNotFound) { // the link may be gone by now
			return "", &Error{Dev: l.Name, Op: "list addresses", Err: err}
		}
		for _, have := range addrs {
			if p, err := netip.ParsePrefix(have.CIDR); err == nil && p.Addr() == a {
				return l.Name, nil
			}
		}
	}
	return "", nil
}

// Table and protocol number of the routes that the plugin adds for routing daemons. They are in no rule of the host, so the host itself
// never uses them. FRR imports tables up to 252 only (lib/zebra.h, ZEBRA_KERNEL_TABLE_MAX, FRR 8.4).
const (
	AnnounceTable    = 117
	AnnounceProtocol = 117
)

// scopeLink is RT_SCOPE_LINK (include/uapi/linux/rtnetlink.h): the destination is on the link.
const scopeLink = 253

// announced returns true for a route of the plugin's own.
func (r Route) announced() bool { return r.Table == AnnounceTable && r.Protocol == AnnounceProtocol }

// Announced lists the routes that Announce has added.
func (h *hostNetwork) Announced() ([]Route, error) {
	routes, err := h.kernel.RoutesIn(AnnounceTable, AnnounceProtocol)
	return routes, wrapped("", "list announced routes", err)
}

// Announce adds a route to dst through a device, in the table AnnounceTable, so that a routing daemon can tell others where dst is. It
// succeeds if the route exists. The kernel removes it when the device is set down. The error matches ErrUnsupported if the device has no
// IPv6.
func (h *hostNetwork) Announce(n Netdev, dst netip.Prefix) error {
	op, want := "announce "+dst.String(), announcement(dst)
	err := h.kernel.AddRoute(n.Index, want)
	if errors.Is(err, syscall.EACCES) && dst.Addr().Is6() { // net/ipv6/route.c, ip6_route_info_create, Linux 6.12
		err = Because(ErrUnsupported, "IPv6 is disabled on it (net.ipv6.conf.%s.disable_ipv6)", n.Name)
	}
	if err != nil {
		return &Error{Dev: n.Name, Op: op, Err: err}
	}
	routes, err := h.Announced()
	if err == nil && !slices.ContainsFunc(routes, func(r Route) bool { return r.Index == n.Index && r.Dst == want.Dst }) {
		err = &Error{Dev: n.Name, Op: op, Err: fmt.Errorf("another program has a route to it in table %d: %w", AnnounceTable, fs.ErrExist)}
	}
	return err
}

// Withdraw removes a route of Announced. It succeeds if the route is gone.
func (h *hostNetwork) Withdraw(r Route) error {
	if !r.announced() {
		return &Error{Op: "withdraw " + r.Dst, Err: fmt.Errorf("it is not a route of the plugin: %w", ErrInvalid)}
	}
	return wrapped("", "withdraw "+r.Dst, h.kernel.RemoveRoute(r.Index, r))
}

// announcement returns the route that announces dst.
func announcement(dst netip.Prefix) Route {
	r := Route{Dst: dst.Masked().String(), Table: AnnounceTable, Protocol: AnnounceProtocol}
	if dst.Addr().Is4() {
		r.Scope = scopeLink
	}
	return r
}
