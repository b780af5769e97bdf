package ipamdrv_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/storetest"
)

// identity returns the ID of a node.
func (n *clusterNode) identity() string {
	n.Helper()
	_, id, _ := strings.Cut(value(n.T, n.own, "cluster/identity"), " ")
	return id
}

// wantRemoveNode removes a lost node, which must have that many handles.
func wantRemoveNode(t *testing.T, s store.Store, id string, want int) {
	t.Helper()
	if n, err := ipamdrv.RemoveNode(t.Context(), s, id); err != nil || n != want {
		t.Errorf("forget: %d handles, %v, want %d", n, err, want)
	}
}

// TestOwnershipAfterLostLedger: a node that lost its own ledger gets a new ID, but its engine still has the pools. The new ID owns them
// from their first use on, and they stay when the old ID is removed.
func TestOwnershipAfterLostLedger(t *testing.T) {
	for _, options := range [][]string{nil, {"pool=lan"}} {
		clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
			before := newNode(t, far)
			pool := before.pool("10.0.0.0/24", options...)
			one := before.get(pool)
			before.end()
			after := newNode(t, far)
			two := after.get(pool)
			wantRemoveNode(t, under, before.identity(), 0)
			wantHeld(t, under, "the old one is forgotten", one, two)
			three := after.get(pool)
			wantHeld(t, under, "it goes on", one, two, three)
			after.end()
			wantRemoveNode(t, under, after.identity(), 1)
			wantHeld(t, under, "the new one is forgotten")
		})
	}
}

// TestOwnershipOfUnsharedPools: a node owns pools that were created before the ledger was shared, from their first use on.
func TestOwnershipOfUnsharedPools(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		alone := newDriver(t, under)
		var made []string
		for _, options := range [][]string{nil, {"pool=lan"}} {
			r, err := alone.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.0.0.0/24", Options: pairs(options)})
			if err != nil {
				t.Fatal(err)
			}
			made = append(made, r.PoolID)
		}
		n := newNode(t, far)
		for _, pool := range made {
			n.get(pool)
		}
		n.end()
		wantRemoveNode(t, under, n.identity(), 2)
		wantHeld(t, under, "forgotten")
	})
}

// TestNoOwnershipOfRemovedNode: the handles of a removed node are not taken over, whenever it is removed.
func TestNoOwnershipOfRemovedNode(t *testing.T) {
	for _, options := range [][]string{nil, {"pool=lan"}} {
		for _, meanwhile := range []bool{false, true} {
			clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
				lost := newNode(t, far)
				pool := lost.pool("10.0.0.0/24", options...)
				lost.end()
				forget := func() {
					if err := cluster.RemoveNode(t.Context(), under, lost.identity()); err != nil {
						t.Error(err)
					}
				}
				adopting := &beforeTxn{Store: under, run: forget, match: func(then []store.Op) bool {
					return strings.HasPrefix(then[0].Key, "ipam/")
				}}
				if !meanwhile {
					adopting.run()
					adopting.run = nil
				}
				n := newNode(t, adopting)
				got, err := n.ask(pool)
				want := `pool "` + pool + `": request address: it was the pool of node ` + lost.identity() +
					`, which was declared lost; create the network again`
				if err == nil || !errors.Is(err, ipamdrv.ErrUnknownPool) || err.Error() != want {
					t.Errorf("given %s, %v, want %s", got, err, want)
				}
				n.release(pool, "10.0.0.2")
				wait(time.Minute)
				wantHeld(t, under, "in the end")
			})
		}
	}
}
