package ipamdrv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// getBy requests an address for a container with that name, which must succeed.
func (n *clusterNode) getBy(pool, name string) string {
	n.Helper()
	a, err := n.askBy(pool, name)
	if err != nil {
		n.Fatal(err)
	}
	return a
}

// TestKeptOnNode: containers of several nodes have the same name, as those of one compose file do. Each gets its own address again, in whatever
// order they return, and a new one on another node does not get it. A task of a swarm gets its address on any node, and a container of a node
// whose version does not record the node gets it, too.
func TestKeptOnNode(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		var nodes []*clusterNode
		var pools []string
		for range 3 {
			n := newNode(t, far)
			nodes, pools = append(nodes, n), append(pools, n.pool("10.0.0.0/24", "pool=lan"))
		}
		const web = "shop-web-1"
		had := []string{nodes[0].getBy(pools[0], web), nodes[1].getBy(pools[1], web)}
		for i, a := range had {
			nodes[i].release(pools[i], a)
		}
		if got := nodes[2].getBy(pools[2], web); got == had[0] || got == had[1] {
			t.Errorf("a container of a third node has %s, which is kept for one of another node", got)
		}
		nodes[1].restart()
		for i, a := range had { // the one that was released first returns first
			if got := nodes[i].getBy(pools[i], web); got != a {
				t.Errorf("the container of node %d has %s, want %s again", i, got, a)
			}
		}
		task := nodes[0].getBy(pools[0], "app.1.unhitbzs526445gskxdpjfkzs")
		nodes[0].release(pools[0], task)
		if got := nodes[1].getBy(pools[1], "app.1.layvr0zb3jsknyir3mmeor8sy"); got != task {
			t.Errorf("the next task of the slot has %s, want %s", got, task)
		}
		id := keys(t, under, "ipam/pool/")[0]
		rec := fmt.Appendf(nil, `{"v":1,"kind":"resting","name":"old","since":%q}`, time.Now().UTC().Format(time.RFC3339))
		if _, err := under.Txn(t.Context(), nil, []store.Op{store.Put("ipam/lease/"+id+"/10.0.0.99", rec)}); err != nil {
			t.Fatal(err)
		}
		if got := nodes[2].getBy(pools[2], "old"); got != "10.0.0.99" {
			t.Errorf("of a node of an older version a container has %s, want 10.0.0.99", got)
		}
	})
}

// TestKeptOnPrivatePool: a pool in a store that nodes share, which is one node's, keeps addresses as well, also while they are released later.
func TestKeptOnPrivatePool(t *testing.T) {
	clustered(t, func(t *testing.T, _ *store.Memory, far *storetest.Faults) {
		n := newNode(t, far)
		p := n.pool("10.0.0.0/24")
		had := n.getBy(p, "web")
		far.Away(true)
		n.release(p, had)
		n.restart()
		far.Away(false)
		wait(time.Minute)
		if got := n.getBy(p, "web"); got != had {
			t.Errorf("the container has %s, want %s", got, had)
		}
	})
}

// TestKeptWithoutReads: to keep addresses for containers costs no read more: an address that is given to its container, a new one and a release
// read as much as without.
func TestKeptWithoutReads(t *testing.T) {
	costs := map[string][2]int64{}
	for _, option := range []string{"sticky=off", "sticky=24h", ""} {
		counted(t, func(t *testing.T, c *countingStore) {
			options := []string{"pool=lan"}
			if option != "" {
				options = append(options, option)
			}
			a, b := newNode(t, c), newNode(t, c)
			pa, pb := a.pool("10.0.0.0/23", options...), b.pool("10.0.0.0/23", options...)
			for i := range 200 {
				a.getBy(pa, fmt.Sprintf("c%d", i))
			}
			b.getBy(pb, "c0")
			c.since()
			for i := range 50 {
				name := fmt.Sprintf("b%d", i)
				had := b.getBy(pb, name)
				b.release(pb, had)
				if got := b.getBy(pb, name); (got == had) == (option == "sticky=off") {
					t.Errorf("%q: it had %s and has %s", option, had, got)
				}
			}
			read, txns := c.since()
			costs[option] = [2]int64{read, txns}
		})
	}
	if off := costs["sticky=off"]; costs[""] != off || costs["sticky=24h"] != off {
		t.Errorf("records read and transactions: %v", costs)
	}
}

// TestKeptWhileLoading: a node that has not read all leases of a pool waits a second for the address that is kept for a container, and longer
// only if the user gave the option. A container that had none waits as long, one without a name not at all.
func TestKeptWhileLoading(t *testing.T) {
	for _, test := range []struct {
		name, option string
		wait         time.Duration
		err          bool
	}{{"web", "reuse=last", time.Second, false}, {"", "reuse=last", 0, false}, {"web", "sticky=1h", 8 * time.Second, true}} {
		counted(t, func(t *testing.T, c *countingStore) {
			a, b := newNode(t, c), newNode(t, c)
			a.pool("10.0.0.0/24", "pool=lan", test.option)
			pb := b.pool("10.0.0.0/24", "pool=lan", test.option)
			had := b.getBy(pb, "web")
			b.release(pb, had)
			read := make(chan struct{})
			c.page = func(ctx context.Context) {
				select {
				case <-read:
				case <-ctx.Done():
				}
			}
			b.restart()
			began := time.Now()
			got, err := b.askBy(pb, test.name)
			if took := time.Since(began); took != test.wait || (err != nil) != test.err || got == had {
				t.Errorf("%q, %s: %s, %v after %v, want it after %v", test.name, test.option, got, err, took, test.wait)
			}
			if err == nil {
				b.release(pb, got)
			}
			close(read)
			if got := b.getBy(pb, "web"); test.name == "web" && test.err && got != had {
				t.Errorf("%s: when all are read the container has %s, want %s", test.option, got, had)
			}
		})
	}
}
