package hw

import (
	"errors"
	"net/netip"
	"slices"
)

// Networks lists the subnets that the host has addresses in or routes to, sorted and without the default routes.
func (h *hostNetwork) Networks() ([]netip.Prefix, error) {
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
		cidrs = append(cidrs, r.Dst)
	}
	for _, l := range links {
		addrs, err := h.kernel.Addrs(l.Index)
		if err != nil && !errors.Is(err, ErrNotFound) { // a link may have gone since
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
