// Package addr is the arithmetic of addresses: the subnet of a pool, its numbering, the ranges that are excluded from it, and the set of
// taken addresses. It is pure: it knows no store, no lease and no log. Its errors say what is wrong with a text, for the user who wrote it.
package addr

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
)

// A Subnet knows which addresses of a pool may be given, which may be chosen, and their indexes.
type Subnet struct {
	Prefix  netip.Prefix // masked
	IPRange netip.Prefix // what --ip-range limits the choice to; not valid if there is no limit

	// Addresses are counted from Base. A subnet of more than 2^64 addresses is counted from where the choice begins; those below Base and
	// those 2^64 and more above it have no index: a container can ask for them, but they are not chosen.
	Base   netip.Addr
	Lo, Hi uint64       // the choice, with what is excluded; empty if Lo > Hi
	Choice []IndexRange // of Lo to Hi what is not excluded
}

// NewSubnet returns a subnet. ipRange must be inside prefix, or not valid; excluded ranges may be outside.
func NewSubnet(prefix, ipRange netip.Prefix, excluded []Range) Subnet {
	s := Subnet{Prefix: prefix, IPRange: ipRange, Base: prefix.Addr()}
	choice := prefix
	if ipRange.IsValid() {
		choice = ipRange
	}
	if hostBits(prefix) > 64 {
		s.Base = choice.Addr()
	}
	s.Lo, _ = s.Index(choice.Addr())
	s.Hi = math.MaxUint64
	if n := hostBits(choice); n < 64 {
		s.Hi = s.Lo + 1<<n - 1
	}
	if s.Reserved(s.Addr(s.Lo)) != "" {
		s.Lo++
	}
	// A choice of one reserved address is empty by now; one step down could go below 0.
	if s.Lo <= s.Hi && s.Reserved(s.Addr(s.Hi)) != "" {
		s.Hi--
	}
	s.Choice = s.subtract(s.Lo, s.Hi, excluded)
	return s
}

// one returns true if there is exactly one address to choose.
func (s *Subnet) one() bool { return len(s.Choice) == 1 && s.Choice[0].Lo == s.Choice[0].Hi }

// Count returns how many addresses there are to choose. It is right below 2^64.
func (s *Subnet) Count() (n uint64) {
	for _, r := range s.Choice {
		n += r.Hi - r.Lo + 1
	}
	return n
}

// Chosen returns true if the address of an index may be chosen.
func (s *Subnet) Chosen(index uint64) bool {
	return slices.ContainsFunc(s.Choice, func(r IndexRange) bool { return index >= r.Lo && index <= r.Hi })
}

// hostBits returns the number of bits in which the addresses of p differ.
func hostBits(p netip.Prefix) int { return p.Addr().BitLen() - p.Bits() }

// Index returns the index of a, and false if it has none.
func (s *Subnet) Index(a netip.Addr) (uint64, bool) {
	from, to := s.Base.As16(), a.As16()
	low, borrow := bits.Sub64(binary.BigEndian.Uint64(to[8:]), binary.BigEndian.Uint64(from[8:]), 0)
	high, borrow := bits.Sub64(binary.BigEndian.Uint64(to[:]), binary.BigEndian.Uint64(from[:]), borrow)
	return low, high == 0 && borrow == 0
}

// Addr returns the address of an index.
func (s *Subnet) Addr(index uint64) netip.Addr {
	raw := s.Base.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(raw[8:]), index, 0)
	binary.BigEndian.PutUint64(raw[8:], low)
	binary.BigEndian.PutUint64(raw[:], binary.BigEndian.Uint64(raw[:])+carry)
	return netip.AddrFrom16(raw).Unmap()
}

// First returns the subnet's first usable address.
func (s *Subnet) First() netip.Addr {
	if a := s.Prefix.Addr(); s.Reserved(a) == "" {
		return a
	}
	return s.Prefix.Addr().Next()
}

// Reserved says what a is if no container may have it, and "" otherwise. In subnets of one and two addresses all are usable (RFC 3021,
// RFC 6164).
func (s *Subnet) Reserved(a netip.Addr) string {
	switch {
	case hostBits(s.Prefix) < 2:
		return ""
	case a == s.Prefix.Addr() && a.Is4():
		return "the subnet's network address"
	case a == s.Prefix.Addr():
		return "the subnet-router anycast address"
	case a.Is4() && !s.Prefix.Contains(a.Next()):
		return "the subnet's broadcast address"
	}
	return ""
}

// Router returns the index of the address that is kept for a router while the pool has no gateway. It returns false if there is none: the
// subnet is too small to spare one, or --ip-range leaves nothing else to choose.
func (s *Subnet) Router() (uint64, bool) {
	if hostBits(s.Prefix) < 3 || s.one() {
		return 0, false
	}
	n, ok := s.Index(s.First())
	return n, ok && s.Chosen(n)
}

// Family returns the name of the subnet's address family.
func (s *Subnet) Family() string {
	if s.Prefix.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// CIDR returns a with the subnet's prefix length, as the engine expects it.
func (s *Subnet) CIDR(a netip.Addr) string {
	space := make([]byte, 0, 64) // on the stack
	return string(netip.PrefixFrom(a, s.Prefix.Bits()).AppendTo(space))
}

// ParsePrefix parses a subnet that a user wrote; what names it in the error. It clears the host bits, which some engines pass on. It accepts
// subnets that [ParseNew] refuses: pools of older versions may have them.
func ParsePrefix(what, text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s %.64q: must be an address and a prefix length, such as 10.1.0.0/24 or "+
			"fd00:1::/64", what, text)
	}
	if p.Addr().Is4In6() && p.Bits() > 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	p = p.Masked()
	switch {
	case p.Bits() == 0:
		return netip.Prefix{}, fmt.Errorf("%s %s: the prefix length must not be 0", what, p)
	case p.Addr().Is6() && p.Overlaps(mapped):
		return netip.Prefix{}, fmt.Errorf("%s %s: overlaps %s, which stands for IPv4; give IPv4 subnets as such",
			what, p, mapped)
	case p.Addr().IsMulticast():
		return netip.Prefix{}, fmt.Errorf("%s %s: multicast addresses cannot be given to a container", what, p)
	}
	return p, nil
}

// mapped has the IPv6 addresses that stand for IPv4 addresses (RFC 4291 2.5.5.2).
var mapped = netip.PrefixFrom(netip.AddrFrom16([16]byte{10: 0xff, 11: 0xff}), 96)

// Parse parses an address. IPv4-mapped IPv6 addresses are unmapped.
func Parse(text string) (netip.Addr, error) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("address %.64q: must be an IPv4 or IPv6 address", text)
	}
	if a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("address %.64q: must not have a zone", text)
	}
	return a.Unmap(), nil
}

// CheckInside returns an error if an ip-range is not inside the subnet.
func CheckInside(ipRange, subnet netip.Prefix) error {
	if !subnet.Contains(ipRange.Addr()) || ipRange.Bits() < subnet.Bits() {
		return fmt.Errorf("ip-range %s: must be inside subnet %s", ipRange, subnet)
	}
	return nil
}
