package option

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/internal/opttable"
)

// A Route is one that a container has through its device.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr // not valid for a destination that is on the device's segment
}

// String returns the route as users write it.
func (r Route) String() string {
	if !r.Via.IsValid() {
		return r.Dst.String() + " dev"
	}
	return r.Dst.String() + " via " + r.Via.String()
}

// parseRoutes parses "DST via GATEWAY" and "DST dev", separated by commas or semicolons; "none" is no route. The docker command splits the
// values of some of its flags at commas.
func parseRoutes(s string) ([]Route, error) {
	if strings.EqualFold(s, "none") {
		return []Route{}, nil
	}
	var routes []Route
	for item := range strings.FieldsFuncSeq(s, func(r rune) bool { return r == ',' || r == ';' }) {
		words := strings.Fields(item)
		if len(words) == 0 {
			continue
		}
		r, ok := parseRoute(words)
		if !ok {
			return nil, opttable.ErrNotAllowed
		}
		routes = append(routes, r)
	}
	if len(routes) == 0 {
		return nil, opttable.ErrNotAllowed
	}
	return routes, nil
}

// parseRoute parses the words of one route. A destination without a prefix length is one address.
func parseRoute(words []string) (r Route, ok bool) {
	dst, err := netip.ParsePrefix(words[0])
	if a, errAddr := netip.ParseAddr(words[0]); errAddr == nil && a.Zone() == "" {
		dst, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil || dst.Addr().Is4In6() {
		return r, false
	}
	r.Dst = dst
	switch {
	case len(words) == 2 && strings.EqualFold(words[1], "dev"):
		return r, true
	case len(words) == 3 && strings.EqualFold(words[1], "via"):
		r.Via, err = netip.ParseAddr(words[2])
		return r, err == nil && r.Via.Zone() == "" && !r.Via.Is4In6()
	}
	return r, false
}

// checkRoutes refuses routes that no container can have.
func checkRoutes(routes []Route) error {
	seen := map[netip.Prefix]bool{}
	for _, r := range routes {
		var why string
		switch dst := r.Dst; {
		case dst.Bits() == 0:
			why = "is a default route, which the engine chooses; use --gateway"
		case dst != dst.Masked():
			why = "has bits beyond its prefix length; the subnet is " + dst.Masked().String()
		case !dst.Addr().IsGlobalUnicast() && !dst.Addr().IsLinkLocalUnicast() && !dst.Addr().IsMulticast():
			why = "leads to no other host"
		case r.Via.IsValid() && r.Via.Is4() != dst.Addr().Is4():
			why = "has a gateway of the other address family"
		case r.Via.IsValid() && !r.Via.IsGlobalUnicast() && !r.Via.IsLinkLocalUnicast():
			why = "has a gateway that is no host's address"
		case seen[dst]:
			why = "is the second to its destination"
		}
		if why != "" {
			return fmt.Errorf("option routes: %s: %s", r, why)
		}
		seen[r.Dst] = true
	}
	return nil
}

// CheckRoutes refuses routes that do not fit the subnets of a network, which are CIDRs: each needs one of its family, and the gateway has to
// be in one.
func CheckRoutes(routes []Route, subnets []string) error {
	var all []netip.Prefix
	for _, s := range subnets {
		if p, err := netip.ParsePrefix(s); err == nil && p.Bits() > 0 { // 0.0.0.0/0 is that of a network without addresses
			all = append(all, p.Masked())
		}
	}
	for _, r := range routes {
		family := func(p netip.Prefix) bool { return p.Addr().Is4() == r.Dst.Addr().Is4() }
		near := func(p netip.Prefix) bool { return p.Contains(r.Via) }
		itself := func(p netip.Prefix) bool { return p.Addr() == r.Via && p.Addr().BitLen()-p.Bits() > 1 }
		switch {
		case !slices.ContainsFunc(all, family):
			return fmt.Errorf("option routes: %s: the network has no subnet of that address family", r)
		case slices.Contains(all, r.Dst):
			return fmt.Errorf("option routes: %s: is the network's own subnet, to which each container has a route already", r)
		case slices.ContainsFunc(all, itself):
			return fmt.Errorf("option routes: %s: the gateway is the address of the subnet itself, which is no host's", r)
		case r.Via.IsValid() && !slices.ContainsFunc(all, near):
			return fmt.Errorf("option routes: %s: the gateway is in none of the network's subnets %s; it has to be, for containers to reach it",
				r, strings.Join(subnets, ", "))
		}
	}
	return nil
}
