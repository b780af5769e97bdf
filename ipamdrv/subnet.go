package ipamdrv

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// subnet is the arithmetic of one pool: which of its addresses may be given, which may be chosen, and how they are
// numbered for the index.
type subnet struct {
	prefix netip.Prefix // masked
	within netip.Prefix // what --ip-range limits the choice to; not valid when there is no limit

	// Addresses are numbered from base. A subnet of more than 2^64 addresses is numbered from where the choice begins;
	// those below base and those 2^64 and more above it have no number: they can be asked for, but are not chosen.
	base   netip.Addr
	lo, hi uint64    // the choice; empty when lo > hi
	choice []stretch // of lo to hi what is not excluded
}

// newSubnet works out the numbers. within must be inside prefix, or not valid; what is excluded need not be.
func newSubnet(prefix, within netip.Prefix, excluded []span) subnet {
	s := subnet{prefix: prefix, within: within, base: prefix.Addr()}
	choice := prefix
	if within.IsValid() {
		choice = within
	}
	if hostBits(prefix) > 64 {
		s.base = choice.Addr()
	}
	s.lo, _ = s.number(choice.Addr())
	s.hi = math.MaxUint64
	if n := hostBits(choice); n < 64 {
		s.hi = s.lo + 1<<n - 1
	}
	if s.reserved(s.addr(s.lo)) != "" {
		s.lo++
	}
	// A choice of one address that is reserved is empty by now; one step down could go below 0.
	if s.lo <= s.hi && s.reserved(s.addr(s.hi)) != "" {
		s.hi--
	}
	s.choice = s.without(s.lo, s.hi, excluded)
	return s
}

// one says whether there is but one address to choose.
func (s *subnet) one() bool { return len(s.choice) == 1 && s.choice[0].lo == s.choice[0].hi }

// count is how many addresses there are to choose; it is right below 2^64.
func (s *subnet) count() (n uint64) {
	for _, st := range s.choice {
		n += st.hi - st.lo + 1
	}
	return n
}

// chosen says whether number n is among those to choose.
func (s *subnet) chosen(n uint64) bool {
	return slices.ContainsFunc(s.choice, func(st stretch) bool { return n >= st.lo && n <= st.hi })
}

// hostBits is the number of bits that addresses of p differ in.
func hostBits(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }

// number is the number of a, false when it has none.
func (s *subnet) number(a netip.Addr) (uint64, bool) {
	from, to := s.base.As16(), a.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(to[8:]), binary.BigEndian.Uint64(from[8:]), 0)
	high, borrow := bits.Sub64(binary.BigEndian.Uint64(to[:]), binary.BigEndian.Uint64(from[:]), borrow)
	return low, high == 0 && borrow == 0
}

// addr is the reverse of number.
func (s *subnet) addr(n uint64) netip.Addr {
	raw := s.base.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(raw[8:]), n, 0)
	binary.BigEndian.PutUint64(raw[8:], low)
	binary.BigEndian.PutUint64(raw[:], binary.BigEndian.Uint64(raw[:])+carry)
	return netip.AddrFrom16(raw).Unmap()
}

// first is the subnet's first usable address.
func (s *subnet) first() netip.Addr {
	if a := s.prefix.Addr(); s.reserved(a) == "" {
		return a
	}
	return s.prefix.Addr().Next()
}

// reserved says what a is when no container may have it, "" otherwise. In subnets of one and two addresses all are
// usable (RFC 3021, RFC 6164).
func (s *subnet) reserved(a netip.Addr) string {
	switch {
	case hostBits(s.prefix) < 2:
		return ""
	case a == s.prefix.Addr() && a.Is4():
		return "the subnet's network address"
	case a == s.prefix.Addr():
		return "the subnet-router anycast address"
	case a.Is4() && !s.prefix.Contains(a.Next()):
		return "the subnet's broadcast address"
	}
	return ""
}

// router is the number of the address that is not chosen while the pool has no gateway, false when there is none: the
// subnet is too small to spare one, or --ip-range leaves nothing else to choose.
func (s *subnet) router() (uint64, bool) {
	if hostBits(s.prefix) < 3 || s.one() {
		return 0, false
	}
	n, ok := s.number(s.first())
	return n, ok && s.chosen(n)
}

// family names the subnet's address family.
func (s *subnet) family() string {
	if s.prefix.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// cidr is a with the subnet's prefix length, as the engine wants it.
func (s *subnet) cidr(a netip.Addr) string { return netip.PrefixFrom(a, s.prefix.Bits()).String() }

// parsePrefix reads a subnet as a user writes it. The bits that its prefix length does not cover are cleared: some
// engines pass them on.
func parsePrefix(what, text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, refuse(ErrInvalid, "%s %.64q: must be an address and a prefix length, such as 10.1.0.0/24 or "+
			"fd00:1::/64", what, text)
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	switch {
	case p.Bits() == 0:
		return netip.Prefix{}, refuse(ErrInvalid, "%s %s: the prefix length must not be 0", what, p)
	case p.Addr().Is6() && p.Overlaps(mapped):
		return netip.Prefix{}, refuse(ErrInvalid, "%s %s: overlaps %s, which stands for IPv4; give IPv4 subnets as such",
			what, p, mapped)
	case p.Addr().IsMulticast():
		return netip.Prefix{}, refuse(ErrInvalid, "%s %s: multicast addresses cannot be given to a container", what, p)
	}
	return p, nil
}

// mapped are the IPv6 addresses that stand for IPv4 ones.
var mapped = netip.PrefixFrom(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff}), 96)

// parseAddr reads an address. IPv4 addresses in IPv6 clothes are undressed.
func parseAddr(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, refuse(ErrInvalid, "address %.64q: must be an IPv4 or IPv6 address", text)
	}
	if a.Zone() != "" {
		return netip.Addr{}, refuse(ErrInvalid, "address %.64q: must not have a zone", text)
	}
	return a.Unmap(), nil
}
