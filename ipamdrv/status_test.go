package ipamdrv_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// shown returns what Pools and Leases return, as text, without IDs and times.
func (n *clusterNode) shown() string {
	n.Helper()
	pools, err := n.d.Pools(n.Context())
	if err != nil {
		return "error: " + err.Error()
	}
	var text strings.Builder
	for _, p := range pools.Pools {
		fmt.Fprintf(&text, "%s %q gateway %q networks %v: %d of %d, %d ahead, %d cooling\n", p.Subnet, p.Name, p.Gateway, p.Networks, p.Leased, p.Size,
			p.Prefetched, p.Cooldown)
		leases, err := n.d.Leases(n.Context(), &admin.LeasesRequest{Pool: p.ID})
		if err != nil {
			n.Fatal(err)
		}
		for _, l := range leases.Leases {
			fmt.Fprintf(&text, "  %s %s %q\n", l.Address, l.Kind, l.Container)
		}
	}
	return text.String()
}

// TestStatusOfPools: an operator sees the pools of this node with the counts and kinds of their addresses, and not those of other nodes.
func TestStatusOfPools(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		a, b := newNode(t, under), newNode(t, under)
		lan := a.pool("10.0.0.0/29", "pool=lan", "quarantine=1h")
		alone := b.pool("10.9.0.0/24")
		a.gateway(lan)
		a.d.BindPool(t.Context(), "net1", "passthrough-local", "10.0.0.0/29", "10.0.0.1/29", nil, false)
		one, two := a.getBy(lan, "web1"), a.getBy(lan, "web2")
		a.release(lan, two)
		b.get(alone)
		want := "10.0.0.0/29 \"lan\" gateway \"10.0.0.1\" networks [net1]: 2 of 6, 0 ahead, 1 cooling\n" +
			"  10.0.0.1 gateway \"\"\n" + strings.Join(slices.Sorted(slices.Values([]string{
			"  " + one + " chosen \"web1\"\n", "  " + two + " cooldown \"web2\"\n"})), "")
		if diff := cmp.Diff(want, a.shown()); diff != "" {
			t.Errorf("node a (-want +got):\n%s", diff)
		}
		fabric := b.pool("10.0.0.0/29", "pool=lan", "quarantine=1h")
		asked := func(address string) []admin.Lease {
			h, _, _ := strings.Cut(strings.TrimPrefix(fabric, "v1:"), ".")
			got, err := b.d.Leases(t.Context(), &admin.LeasesRequest{Pool: h, Address: address})
			if err != nil {
				t.Fatal(err)
			}
			return got.Leases
		}
		if got := asked(one); len(got) != 1 || got[0].Container != "web1" || got[0].Node == "" || got[0].Node != asked(two)[0].Node {
			t.Errorf("node b says of %s: %+v", one, got)
		}
		for _, free := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
			if got := asked(free); free != one && free != two && len(got) > 0 {
				t.Errorf("node b says of %s, which is free: %+v", free, got)
			}
		}
		b.releasePool(fabric)
		if got := b.shown(); strings.Contains(got, "lan") || !strings.Contains(got, "10.9.0.0/24") {
			t.Errorf("node b shows\n%s", got)
		}
	})
}
