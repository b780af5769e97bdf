package hw

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"syscall"
)

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
		err = because(ErrUnsupported, "IPv6 is disabled on it (net.ipv6.conf.%s.disable_ipv6)", n.Name)
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
