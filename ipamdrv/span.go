package ipamdrv

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// span is the addresses from first to last, of one family.
type span struct{ first, last netip.Addr }

// maxSpans is how many of them a pool can exclude: the choice of an address looks at each.
const maxSpans = 256

// parseSpans reads a list such as 10.0.0.1-10.0.0.20,10.0.0.64/28,fd00::5.
func parseSpans(text string) ([]span, bool) {
	var spans []span
	for item := range strings.SplitSeq(text, ",") {
		s, ok := parseSpan(strings.TrimSpace(item))
		if !ok {
			return nil, false
		}
		spans = append(spans, s)
	}
	return spans, len(spans) <= maxSpans
}

// parseSpan reads one item of a list.
func parseSpan(item string) (span, bool) {
	if p, err := netip.ParsePrefix(item); err == nil {
		p = p.Masked()
		return span{p.Addr(), lastOf(p)}, !p.Addr().Is4In6()
	}
	from, to, both := strings.Cut(item, "-")
	if !both {
		to = from
	}
	first, err := parseAddr(strings.TrimSpace(from))
	last, err2 := parseAddr(strings.TrimSpace(to))
	return span{first, last}, err == nil && err2 == nil && first.Is4() == last.Is4() && first.Compare(last) <= 0
}

// lastOf is the last address of p.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(raw)
	return last
}

// stretch is the numbers from lo to hi, see [subnet].
type stretch struct{ lo, hi uint64 }

// without is what is left of the numbers from lo to hi when the addresses of spans are taken out, in order.
func (s *subnet) without(lo, hi uint64, spans []span) []stretch {
	var left []stretch
	for _, out := range s.numbers(lo, hi, spans) {
		if out.lo > lo {
			left = append(left, stretch{lo, out.lo - 1})
		}
		if out.hi >= hi {
			return left
		}
		lo = max(lo, out.hi+1)
	}
	if lo <= hi {
		left = append(left, stretch{lo, hi})
	}
	return left
}

// numbers are those of spans' addresses that are from lo to hi, in order of where they begin.
func (s *subnet) numbers(lo, hi uint64, spans []span) []stretch {
	var all []stretch
	if lo > hi {
		return nil
	}
	from, to := s.addr(lo), s.addr(hi)
	for _, sp := range spans {
		first, last := sp.first, sp.last
		if first.Is4() != from.Is4() || last.Less(from) || to.Less(first) {
			continue
		}
		out := stretch{lo, hi}
		if from.Less(first) {
			out.lo, _ = s.number(first)
		}
		if last.Less(to) {
			out.hi, _ = s.number(last)
		}
		all = append(all, out)
	}
	slices.SortFunc(all, func(a, b stretch) int { return cmp.Compare(a.lo, b.lo) })
	return all
}
