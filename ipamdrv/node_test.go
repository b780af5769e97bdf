package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/store/storetest"
)

// clusterNode is a node with a shared ledger, which can be killed.
type clusterNode struct {
	*testing.T
	own     *store.Memory
	journal string // its path
	shared  store.Store
	log     *zap.Logger
	uses    func(context.Context) ([]ipamdrv.Use, error) // nil: nothing is collected
	machine cluster.Machine
	d       *ipamdrv.Driver
	end     context.CancelFunc
}

// newNode starts a node with its background work.
func newNode(t *testing.T, shared store.Store) *clusterNode {
	n := &clusterNode{T: t, own: store.NewMemory(), journal: filepath.Join(t.TempDir(), "journal"), shared: shared}
	n.start()
	t.Cleanup(func() { n.end() })
	return n
}

// start starts the process on the node's own ledger.
func (n *clusterNode) start() {
	n.Helper()
	d, err := ipamdrv.New(ipamdrv.Config{Store: n.shared, Own: n.own, Journal: journal.New(n.journal),
		NodeName: "n", Log: n.log, Uses: n.uses, Machine: n.machine})
	if err != nil {
		n.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.d, n.end = d, func() { cancel(); d.Close() }
	go func() { _ = d.Maintain(ctx) }()
	synctest.Wait() // the first round of the background work
}

// restart ends the process and starts it again.
func (n *clusterNode) restart() {
	n.Helper()
	n.end()
	n.own = n.own.Reopen()
	n.start()
}

// pool creates or joins a pool.
func (n *clusterNode) pool(subnet string, options ...string) string {
	n.Helper()
	r := &ipam.RequestPoolRequest{Pool: subnet, Options: map[string]string{}}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		r.Options[name] = value
	}
	got, err := n.d.RequestPool(context.Background(), r)
	if err != nil {
		n.Fatal(err)
	}
	return got.PoolID
}

// ask requests an address.
func (n *clusterNode) ask(pool string) (string, error) { return n.askBy(pool, "") }

// askBy requests an address for a container with that name.
func (n *clusterNode) askBy(pool, name string) (string, error) {
	synctest.Wait() // nodes have been told of each other's writes
	r, err := n.d.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: pool, Options: by(name)})
	if err != nil {
		return "", err
	}
	return netip.MustParsePrefix(r.Address).Addr().String(), nil
}

// get requests an address, which must succeed.
func (n *clusterNode) get(pool string) string {
	n.Helper()
	a, err := n.ask(pool)
	if err != nil {
		n.Fatal(err)
	}
	return a
}

// release releases an address, which must succeed.
func (n *clusterNode) release(pool, addr string) {
	n.Helper()
	if _, err := n.d.ReleaseAddress(context.Background(), &ipam.ReleaseAddressRequest{PoolID: pool, Address: addr}); err != nil {
		n.Errorf("ReleaseAddress(%s): %v", addr, err)
	}
}

// releasePool releases a handle, which must succeed.
func (n *clusterNode) releasePool(pool string) {
	n.Helper()
	if _, err := n.d.ReleasePool(context.Background(), &ipam.ReleasePoolRequest{PoolID: pool}); err != nil {
		n.Errorf("ReleasePool: %v", err)
	}
}

// held lists all leases in a ledger, in order.
func held(t failer, s store.Store) []string {
	t.Helper()
	var all []string
	for _, list := range leases(t, s) {
		all = append(all, list...)
	}
	slices.Sort(all)
	return all
}

// wantHeld compares the leases of a ledger.
func wantHeld(t *testing.T, s store.Store, when string, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := held(t, s); !slices.Equal(got, want) {
		t.Errorf("%s: held are %v, want %v", when, got, want)
	}
}

// clustered runs a test in a bubble, with a shared ledger that can be made unavailable.
func clustered(t *testing.T, run func(t *testing.T, under *store.Memory, far *storetest.Faults)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		under := store.NewMemory()
		run(t, under, storetest.NewFaults(under, 1, 0))
	})
}

// TestReleaseWhileUnavailable: a release while the shared ledger is unavailable succeeds and is kept in the outbox through a restart. The
// address is not free before the outbox is flushed.
func TestReleaseWhileUnavailable(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b := newNode(t, far), newNode(t, far)
		pa, pb := a.pool("10.0.0.0/30", "pool=lan"), b.pool("10.0.0.0/30", "pool=lan")
		one, two := a.get(pa), b.get(pb)
		far.Away(true)
		a.release(pa, one)
		a.release(pa, one) // the engine may repeat it
		a.restart()
		wantHeld(t, under, "away", one, two)
		far.Away(false)
		if _, err := b.ask(pb); !errors.Is(err, ipamdrv.ErrFull) {
			t.Errorf("before it is delivered: %v, want full", err)
		}
		wait(10 * time.Second)
		wantHeld(t, under, "delivered", two)
		if got := a.get(pa); got != one {
			t.Errorf("got %s, want the one that was released, %s", got, one)
		}
		wait(time.Minute)
		wantHeld(t, under, "given again", one, two) // the release was not done twice
	})
}

// TestReleasePoolWhileUnavailable: addresses and their pool are released while the shared ledger is unavailable.
func TestReleasePoolWhileUnavailable(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a := newNode(t, far)
		pool := a.pool("10.0.0.0/24")
		one := a.get(pool)
		far.Away(true)
		a.release(pool, one)
		a.releasePool(pool)
		far.Away(false)
		wait(10 * time.Second)
		if left := keys(t, under, "ipam/"); len(left) > 0 {
			t.Errorf("the ledger still has %q", left)
		}
		if left := keys(t, a.own, "node/"); len(left) > 0 {
			t.Errorf("the node still has %q", left)
		}
		if _, err := a.ask(pool); !errors.Is(err, ipamdrv.ErrUnknownPool) {
			t.Errorf("the pool is there: %v", err)
		}
	})
}

// TestPrefetch: while the shared ledger is unavailable a node gives its prefetched addresses. No other node is given them.
func TestPrefetch(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b := newNode(t, far), newNode(t, far)
		options := []string{"pool=lan", "prefetch=2"}
		pa, pb := a.pool("10.0.0.0/28", options...), b.pool("10.0.0.0/28", options...)
		wait(10 * time.Second)
		if got := held(t, under); len(got) != 4 {
			t.Errorf("prefetched are %v, want two for each node", got)
		}
		far.Away(true)
		a.restart()
		first, second := a.get(pa), a.get(pa)
		if _, err := a.ask(pa); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a third one: %v, want that the ledger is away", err)
		}
		a.release(pa, second)
		a.restart()
		far.Away(false)
		wait(10 * time.Second)
		seen := map[string]bool{first: true}
		for range 20 {
			for pool, n := range map[string]*clusterNode{pa: a, pb: b} {
				got, err := n.ask(pool)
				if errors.Is(err, ipamdrv.ErrFull) {
					continue
				}
				if err != nil || seen[got] {
					t.Errorf("%s, %v; given were %v", got, err, seen)
				}
				seen[got] = true
			}
		}
		if len(seen) < 13 { // one of 14 may be kept for a router
			t.Errorf("only %d addresses were given", len(seen))
		}
		a.releasePool(pa)
		b.releasePool(pb)
		wantHeld(t, under, "in the end")
	})
}

// TestPrefetchReconcile: a node that died after it leased an address ahead, and before it recorded that in its own ledger, finds it
// again.
func TestPrefetchReconcile(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a := newNode(t, far)
		a.pool("10.0.0.0/24", "prefetch=3")
		wait(10 * time.Second)
		before := held(t, under)
		for _, key := range keys(t, a.own, "node/reserve/") {
			if _, err := a.own.Txn(t.Context(), nil, []store.Op{store.Del("node/reserve/" + key)}); err != nil {
				t.Fatal(err)
			}
		}
		a.restart()
		wait(10 * time.Second)
		wantHeld(t, under, "after a restart", before...)
		if got := keys(t, a.own, "node/reserve/"); len(got) != 3 {
			t.Errorf("prefetched are %q", got)
		}
	})
}

// TestRemoveNode: after an operator removed a lost node, its addresses are free. If it returns, it gets a new ID.
func TestRemoveNode(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a, b := newNode(t, far), newNode(t, far)
		pa, pb := a.pool("10.0.0.0/29", "pool=lan", "prefetch=1"), b.pool("10.0.0.0/29", "pool=lan", "prefetch=1")
		private := a.pool("10.1.0.0/24")
		a.get(pa)
		a.get(private)
		mine := b.get(pb)
		wait(10 * time.Second)
		nodes, err := cluster.Nodes(t.Context(), under)
		if err != nil || len(nodes) != 2 {
			t.Fatalf("nodes: %v, %v", nodes, err)
		}
		lost := nodes[0].ID
		if !strings.Contains(value(t, under, "ipam/pool/"+strings.TrimPrefix(private, "v1:")), lost) {
			lost = nodes[1].ID
		}
		n, err := ipamdrv.RemoveNode(t.Context(), under, lost)
		if err != nil || n != 2 {
			t.Errorf("forget: %d handles, %v", n, err)
		}
		if n, err := ipamdrv.RemoveNode(t.Context(), under, lost); err != nil || n != 0 {
			t.Errorf("forgotten twice: %d handles, %v", n, err)
		}
		if _, err := ipamdrv.RemoveNode(t.Context(), under, "nobody"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("removing an unknown node: %v", err)
		}
		if got := held(t, under); len(got) != 2 || !slices.Contains(got, mine) {
			t.Errorf("held are %v, want %s and the prefetched ones of the other", got, mine)
		}
		if _, err := a.ask(pa); err == nil {
			t.Error("the lost node gives addresses of a pool that it has no more")
		}
		if _, err := a.d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.2.0.0/24"}); err != nil &&
			!errors.Is(err, cluster.ErrRemoved) {
			t.Errorf("RequestPool: %v", err)
		}
		a.release(pa, "10.0.0.2") // its engine cleans up
		a.releasePool(pa)
		a.get(a.pool("10.3.0.0/24"))
	})
}

// TestRemoveNodeWithLargePool: a lost node is removed whose pool has more leases than one transaction can remove.
func TestRemoveNodeWithLargePool(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a := newNode(t, far)
		pool := a.pool("10.0.0.0/16")
		for range 3500 {
			a.get(pool)
		}
		a.end()
		nodes, err := cluster.Nodes(t.Context(), far)
		if err != nil || len(nodes) != 1 {
			t.Fatalf("nodes: %v, %v", nodes, err)
		}
		if n, err := ipamdrv.RemoveNode(t.Context(), far, nodes[0].ID); err != nil || n != 1 {
			t.Errorf("forget: %d handles, %v", n, err)
		}
		if left := keys(t, under, "ipam/"); len(left) > 0 {
			t.Errorf("the ledger still has %d records", len(left))
		}
	})
}

// TestMemberRecordGone: a node whose member record is missing writes it again. (Removing a node leaves a record.)
func TestMemberRecordGone(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a := newNode(t, far)
		pool := a.pool("10.0.0.0/24")
		for _, key := range keys(t, under, "cluster/member/") {
			if _, err := under.Txn(t.Context(), nil, []store.Op{store.Del("cluster/member/" + key)}); err != nil {
				t.Fatal(err)
			}
		}
		wantHeld(t, under, "it goes on", a.get(pool))
	})
}

// value returns the value of a record.
func value(t *testing.T, s store.Store, key string) string {
	t.Helper()
	kv, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return string(kv.Value)
}

// TestReleaseLargePool: a pool is removed that has more leases than one transaction can remove.
func TestReleaseLargePool(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		a := newNode(t, far)
		for _, options := range [][]string{nil, {"pool=lan"}} {
			pool := a.pool("10.0.0.0/16", options...)
			for range 3500 {
				a.get(pool)
			}
			a.releasePool(pool)
			if left := keys(t, under, "ipam/"); len(left) > 0 {
				t.Errorf("the ledger still has %d records", len(left))
			}
		}
	})
}

// beforeTxn calls run before the first transaction that matches.
type beforeTxn struct {
	store.Store
	match func(then []store.Op) bool
	run   func()
}

func (b *beforeTxn) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if run := b.run; run != nil && b.match(then) {
		b.run = nil
		run()
	}
	return b.Store.Txn(ctx, conds, then)
}

// TestGatewayWhileAnotherShareLeaves: a network takes the gateway of a shared pool while another one leaves the pool. It has the gateway
// afterwards.
func TestGatewayWhileAnotherShareLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := store.NewMemory()
		leaving := &beforeTxn{Store: under, match: func(then []store.Op) bool {
			return strings.HasPrefix(then[0].Key, "ipam/share/") && then[0].Value == nil
		}}
		a, b, c := newNode(t, leaving), newNode(t, under), newNode(t, under)
		pa, pb, pc := a.pool("10.0.0.0/29", "pool=lan"), b.pool("10.0.0.0/29", "pool=lan"), c.pool("10.0.0.0/29", "pool=lan")
		gateway := func(n *clusterNode, pool string) {
			t.Helper()
			r := &ipam.RequestAddressRequest{PoolID: pool, Address: "10.0.0.1", Options: asGateway}
			if _, err := n.d.RequestAddress(context.Background(), r); err != nil {
				t.Error(err)
			}
		}
		gateway(a, pa)
		gateway(b, pb)
		leaving.run = func() { gateway(c, pc) }
		a.releasePool(pa)
		b.releasePool(pb)
		wantHeld(t, under, "held by the third", "10.0.0.1")
		c.releasePool(pc)
	})
}

// TestOverflowOnEachNode: the same network on two nodes, each with its own group of pools.
func TestOverflowOnEachNode(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		for _, n := range []*clusterNode{newNode(t, far), newNode(t, far)} {
			first := n.pool("10.0.0.0/30", "overflow=office")
			n.pool("10.0.1.0/30", "overflow=office")
			n.get(first)
			n.get(first)
			third := n.get(first)
			if !strings.HasPrefix(third, "10.0.1.") {
				t.Errorf("the third address is %s", third)
			}
			far.Away(true)
			n.release(first, third)
			far.Away(false)
			wait(10 * time.Second)
			if got := n.get(first); !strings.HasPrefix(got, "10.0.1.") {
				t.Errorf("after a release the third address is %s", got)
			}
		}
		if got := held(t, under); len(got) != 6 {
			t.Errorf("held are %v", got)
		}
	})
}

// TestNodesThroughFaults: whatever is lost, delayed or killed, no address is given twice, and in the end the ledger has exactly what the
// engines have.
func TestNodesThroughFaults(t *testing.T) {
	for seed := range uint64(60) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { runThroughFaults(t, seed) })
		})
	}
}
