package ipamdrv_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// observed returns what Observe returns, as text.
func (n *clusterNode) observed() string {
	n.Helper()
	o, err := n.d.Observe(n.Context())
	if err != nil {
		n.Fatal(err)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "away %t, owed %d, unread %d", o.Away != nil, o.Owed, o.Unread)
	for _, p := range o.Pools {
		fmt.Fprintf(&text, "; %s %q %v: %d of %d, %d ahead, %d cooling", p.Subnet, p.Name, p.Networks, p.Leased, p.Size, p.Prefetched, p.Cooldown)
	}
	return text.String()
}

// TestObserve: the metrics count the pools of this node, with the leases of other nodes in them, and say which container has an address. While
// the shared store is away they do not wait for it, and say what is owed.
func TestObserve(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b := newNode(t, far), newNode(t, under)
		lan := a.pool("10.0.0.0/29", "pool=lan", "quarantine=1h")
		other := b.pool("10.0.0.0/29", "pool=lan", "quarantine=1h")
		a.gateway(lan)
		a.d.BindPool(t.Context(), "net1", "passthrough-local", "10.0.0.0/29", "10.0.0.1/29", nil, false)
		one, two := a.getBy(lan, "web1"), a.getBy(lan, "web2")
		a.release(lan, two)
		b.get(other)
		wait(time.Minute)
		if got, want := a.observed(), `away false, owed 0, unread 0; 10.0.0.0/29 "lan" [net1]: 3 of 6, 0 ahead, 1 cooling`; got != want {
			t.Errorf("%s; want %s", got, want)
		}
		o, err := a.d.Observe(t.Context())
		if err != nil || len(o.Containers) != 1 || o.Containers[ipamdrv.Place{Network: "net1", Addr: netip.MustParseAddr(one)}] != "web1" {
			t.Errorf("the containers are %v, %v", o.Containers, err)
		}
		far.Away(true)
		a.release(lan, one)
		start := time.Now()
		if got, want := a.observed(), "away true, owed 1, unread 0; "; !strings.HasPrefix(got, want) {
			t.Errorf("while the store is away: %s; want %s", got, want)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("it took %s while the store is away", took)
		}
		a.restart()
		if got, want := a.observed(), "owed 1, unread 1"; !strings.HasSuffix(got, want) {
			t.Errorf("after a restart: %s; want %s", got, want)
		}
		far.Away(false)
	})
}
