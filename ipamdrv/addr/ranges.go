package addr

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// A Range is the addresses from First to Last, of one family.
type Range struct{ First, Last netip.Addr }

// maxRanges is how many ranges a list can have: each choice of an address looks at all of them.
const maxRanges = 256

// ParseRanges parses a list such as 10.0.0.1-10.0.0.20,10.0.0.64/28,fd00::5.
func ParseRanges(text string) ([]Range, bool) {
	var ranges []Range
	for item := range strings.SplitSeq(text, ",") {
		r, ok := parseRange(strings.TrimSpace(item))
		if !ok {
			return nil, false
		}
		ranges = append(ranges, r)
	}
	return ranges, len(ranges) <= maxRanges
}

// parseRange parses one item of a list.
func parseRange(item string) (Range, bool) {
	if p, err := netip.ParsePrefix(item); err == nil {
		p = p.Masked()
		return Range{p.Addr(), LastOf(p)}, !p.Addr().Is4In6()
	}
	from, to, both := strings.Cut(item, "-")
	if !both {
		to = from
	}
	first, err := Parse(strings.TrimSpace(from))
	last, err2 := Parse(strings.TrimSpace(to))
	return Range{first, last}, err == nil && err2 == nil && first.Is4() == last.Is4() && first.Compare(last) <= 0
}

// LastOf returns the last address of p.
func LastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(raw)
	return last
}

// An IndexRange is the indexes from Lo to Hi, see [Subnet].
type IndexRange struct{ Lo, Hi uint64 }

// subtract returns the indexes from lo to hi without those of the excluded addresses, in order.
func (s *Subnet) subtract(lo, hi uint64, excluded []Range) []IndexRange {
	var left []IndexRange
	for _, out := range s.indexRanges(lo, hi, excluded) {
		if out.Lo > lo {
			left = append(left, IndexRange{lo, out.Lo - 1})
		}
		if out.Hi >= hi {
			return left
		}
		lo = max(lo, out.Hi+1)
	}
	if lo <= hi {
		left = append(left, IndexRange{lo, hi})
	}
	return left
}

// indexRanges returns the indexes of the ranges' addresses that are from lo to hi, in the order in which they begin.
func (s *Subnet) indexRanges(lo, hi uint64, ranges []Range) []IndexRange {
	var all []IndexRange
	if lo > hi {
		return nil
	}
	from, to := s.Addr(lo), s.Addr(hi)
	for _, r := range ranges {
		if r.First.Is4() != from.Is4() || r.Last.Less(from) || to.Less(r.First) {
			continue
		}
		out := IndexRange{lo, hi}
		if from.Less(r.First) {
			out.Lo, _ = s.Index(r.First)
		}
		if r.Last.Less(to) {
			out.Hi, _ = s.Index(r.Last)
		}
		all = append(all, out)
	}
	slices.SortFunc(all, func(a, b IndexRange) int { return cmp.Compare(a.Lo, b.Lo) })
	return all
}
