package ipamdrv_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// engines are the addresses that the engines of several nodes have.
type engines struct {
	*testing.T
	nodes []*clusterNode
	pools []string
	has   []map[string]bool // by node
}

// runThroughFaults is one run with a seed.
func runThroughFaults(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	under := store.NewMemory()
	far := storetest.NewFaults(under, seed, 0)
	e := &engines{T: t}
	options := []string{"pool=lan"}
	if seed%2 == 0 {
		options = append(options, "prefetch=2")
	}
	switch seed / 4 % 3 {
	case 1:
		options = append(options, "quarantine=3s")
	case 2:
		options = append(options, "quarantine=1s", "sticky=5s")
	}
	subnet := []string{"10.0.0.0/26", "10.0.0.0/29"}[seed/2%2]
	for range 3 {
		n := newNode(t, far)
		e.nodes, e.has = append(e.nodes, n), append(e.has, map[string]bool{})
		e.pools = append(e.pools, n.pool(subnet, options...))
	}
	far.Trouble(0.2)
	for range 300 {
		e.step(rng, far)
	}
	if err := far.Calm(t.Context()); err != nil {
		t.Fatal(err)
	}
	wait(time.Minute)
	want := 0
	for i, n := range e.nodes {
		want += len(e.has[i])
		if owed, err := n.d.PoolsWithOps(t.Context()); err != nil || owed > 0 {
			t.Errorf("the outbox of node %d still has %d ops, %v", i, owed, err)
		}
		want += len(keys(t, n.own, "node/reserve/"))
	}
	if got := held(t, under); len(got) != want {
		t.Errorf("the ledger has %v, the engines %v", got, e.has)
	}
	for i, n := range e.nodes {
		checkReplicas(t, n)
		n.releasePool(e.pools[i])
	}
	if left := keys(t, under, "ipam/"); len(left) > 0 {
		t.Errorf("in the end the ledger has %q", left)
	}
}

// step is one random step.
func (e *engines) step(rng *rand.Rand, far *storetest.Faults) {
	e.Helper()
	i := rng.IntN(len(e.nodes))
	n := e.nodes[i]
	switch r := rng.IntN(20); {
	case r < 8:
		got, err := n.askBy(e.pools[i], fmt.Sprintf("c%d", rng.IntN(8)))
		if err != nil {
			return
		}
		for j, has := range e.has {
			if has[got] {
				e.Errorf("node %d was given %s, which node %d has", i, got, j)
			}
		}
		e.has[i][got] = true
	case r < 16:
		for addr := range e.has[i] { // any of them
			delete(e.has[i], addr)
			n.release(e.pools[i], addr)
			if rng.IntN(3) == 0 { // the engine repeats the call
				wait(2100 * time.Millisecond)
				n.release(e.pools[i], addr)
			}
			break
		}
	case r < 17:
		n.restart()
	case r < 18:
		far.Away(rng.IntN(2) == 0)
	default:
		wait(time.Duration(rng.IntN(4000)) * time.Millisecond)
	}
}
