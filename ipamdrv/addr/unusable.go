package addr

import (
	"fmt"
	"net/netip"
)

// unusable are the prefixes whose addresses no host can have, and what they are.
var unusable = []struct {
	prefix netip.Prefix
	what   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), `addresses of "this network"`}, // RFC 1122 3.2.1.3
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback addresses"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast addresses"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved addresses"}, // RFC 1112 4, with the broadcast address
	{netip.MustParsePrefix("::/128"), "unspecified addresses"},
	{netip.MustParsePrefix("::1/128"), "loopback addresses"},
	{netip.MustParsePrefix("ff00::/8"), "multicast addresses"},
}

// Unusable says what a is if no host can have it, such as "loopback addresses", and "" otherwise.
func Unusable(a netip.Addr) string {
	for _, u := range unusable {
		if u.prefix.Contains(a) {
			return u.what
		}
	}
	return ""
}

// unusableIn says which addresses of a subnet no host can have, "" for none. An IPv6 subnet that begins with others is usable: allocation does
// not reach the end of a large one.
func unusableIn(p netip.Prefix) string {
	for _, u := range unusable {
		if u.prefix.Contains(p.Addr()) || p.Addr().Is4() && u.prefix.Overlaps(p) {
			return u.what
		}
	}
	return ""
}

// CheckUsable returns an error if no host can have any address of r; what names it in the error.
func CheckUsable(what string, r Range) error {
	if is := Unusable(r.First); is != "" && is == Unusable(r.Last) {
		return unusableError(fmt.Sprintf("%s: %s", what, r.First), is)
	}
	return nil
}

func unusableError(what, is string) error {
	return fmt.Errorf("%s: %s cannot be given to a container", what, is)
}

// ParseNew parses a subnet that a user wants to have; what names it in the error. It refuses subnets with addresses that no host can have, and
// IPv4 subnets in the notation of IPv6.
func ParseNew(what, text string) (netip.Prefix, error) {
	p, err := ParsePrefix(what, text)
	if err != nil {
		return netip.Prefix{}, err
	}
	if written, err := netip.ParsePrefix(text); err == nil && written.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s %s: it is an IPv4-mapped IPv6 subnet, which stands for the IPv4 subnet %s; give it as such", what, text, p)
	}
	if is := unusableIn(p); is != "" {
		return netip.Prefix{}, unusableError(fmt.Sprintf("%s %s", what, p), is)
	}
	return p, nil
}
