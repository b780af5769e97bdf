package netdrv

import (
	"slices"
	"strconv"
)

// What the option policy can be: whether containers are put on the PF with the fewest VFs lent, or on the one with the
// most.
const (
	policySpread = "spread"
	policyPack   = "pack"
)

// anyNode is a numaWish without a wish.
const anyNode = -1

// numaWish is the NUMA node whose PFs are to be used before others. Its zero value has no preference.
type numaWish struct {
	auto  bool
	given bool
	node  int
}

// parseNUMA reads "none", "auto" or the number of a node.
func parseNUMA(v string) (numaWish, error) {
	switch v {
	case "none":
		return numaWish{}, nil
	case "auto":
		return numaWish{auto: true}, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return numaWish{}, errNotAllowed
	}
	return numaWish{given: true, node: n}, nil
}

// prefer is the node to use first, anyNode for whichever. Left to itself it is that of the CPUs which the interrupts go to,
// or the one that is used most already: what talks to each other stays together.
func (w numaWish) prefer(offers []offer, used map[int]int) int {
	switch {
	case w.given:
		return w.node
	case !w.auto || len(offers) == 0:
		return anyNode
	}
	if i := slices.IndexFunc(offers, func(o offer) bool { return o.near }); i >= 0 {
		return offers[i].pf.Node
	}
	best := offers[0].pf.Node
	for _, o := range offers {
		if used[o.pf.Node] > used[best] {
			best = o.pf.Node
		}
	}
	return best
}
