//go:build cluster

package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// etcdNode is a driver of one node with an etcd.
type etcdNode struct {
	*ipamdrv.Driver
	own, shared store.Store
}

// startNode starts a node with its background work.
func startNode(t *testing.T, c *etcdtest.Cluster) *etcdNode {
	t.Helper()
	dir := t.TempDir()
	own, err := boltstore.Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	shared := openEtcd(t, c)
	j := journal.New(filepath.Join(dir, "journal"))
	d, err := ipamdrv.New(ipamdrv.Config{Store: shared, Own: own, Journal: j, NodeName: "n", MaintainEvery: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = d.Maintain(ctx) }() // it ends with its context
	t.Cleanup(func() {
		end()
		<-done
		d.Close()
		if err := errors.Join(own.Close(), j.Close()); err != nil {
			t.Error(err)
		}
	})
	return &etcdNode{d, own, shared}
}

func openEtcd(t *testing.T, c *etcdtest.Cluster) store.Store {
	t.Helper()
	s, err := etcdstore.Open(etcdstore.Config{Endpoints: c.Endpoints(), Prefix: "/passthrough"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// engineTimeout is how long an engine waits for an answer.
const engineTimeout = 10 * time.Second

// request requests an address as an engine does.
func (n *etcdNode) request(t *testing.T, pool string) (netip.Addr, error) {
	ctx, cancel := context.WithTimeout(t.Context(), engineTimeout)
	defer cancel()
	r, err := n.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: pool})
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.MustParsePrefix(r.Address).Addr(), nil
}

// pool requests a pool as an engine does.
func (n *etcdNode) pool(t *testing.T, subnet string, options map[string]string) (string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), engineTimeout)
	defer cancel()
	r, err := n.RequestPool(ctx, &ipam.RequestPoolRequest{Pool: subnet, Options: options})
	if err != nil {
		return "", err
	}
	return r.PoolID, nil
}

// TestPrefetchedWhileEtcdIsAway: etcd is killed or stopped, and a dozen containers start at once, with one subnet and with two. All get their
// addresses in a small part of the engine's timeout. When etcd is back, it has all of them, and the node has as many ahead again.
func TestPrefetchedWhileEtcdIsAway(t *testing.T) {
	for _, how := range []string{"killed", "stopped"} {
		for _, subnets := range [][]string{{"10.0.0.0/24"}, {"10.0.0.0/24", "fd00::/64"}} {
			t.Run(fmt.Sprintf("%s, %d subnets", how, len(subnets)), func(t *testing.T) {
				c := etcdtest.Start(t, 1)
				n := startNode(t, c)
				var pools []string
				for _, subnet := range subnets {
					p, err := n.pool(t, subnet, map[string]string{"prefetch": "16"})
					if err != nil {
						t.Fatal(err)
					}
					pools = append(pools, p)
				}
				n.await(t, 16*len(pools))
				back := c.Members[0].Start
				if how == "killed" {
					c.Members[0].Kill()
				} else {
					c.Members[0].Freeze()
					back = c.Members[0].Thaw
				}
				n.startMany(t, 12, pools)
				back()
				n.await(t, 16*len(pools))
				if got, want := len(held(t, n.shared)), (12+16)*len(pools); got != want {
					t.Errorf("etcd has %d leases, want %d", got, want)
				}
			})
		}
	}
}

// await waits until the node has prefetched so many addresses and has nothing left to do in etcd.
func (n *etcdNode) await(t *testing.T, prefetched int) {
	t.Helper()
	err := retry.Poll(t.Context(), 50*time.Millisecond, time.Minute, func() (bool, error) {
		ops, err := n.PoolsWithOps(t.Context())
		return ops == 0 && len(keys(t, n.own, "node/reserve/")) == prefetched, err
	})
	if err != nil {
		t.Fatalf("%d addresses are to be prefetched, %v are: %v", prefetched, keys(t, n.own, "node/reserve/"), err)
	}
}

// startMany requests an address of each pool for many containers at once.
func (n *etcdNode) startMany(t *testing.T, many int, pools []string) {
	t.Helper()
	var given sync.Map
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			began := time.Now()
			for _, p := range pools {
				a, err := n.request(t, p)
				if err != nil {
					t.Error(err)
				} else if _, twice := given.LoadOrStore(a, p); twice {
					t.Errorf("%s was given twice", a)
				}
			}
			took := time.Since(began)
			t.Logf("given after %v", took)
			if took > engineTimeout/4 {
				t.Errorf("a container had to wait for %v", took)
			}
		})
	}
	wg.Wait()
}

// fill writes leases of another node's network into a pool, from the second address on.
func fill(t *testing.T, s store.Store, pool string, first netip.Addr, leases int) {
	t.Helper()
	const batch = 2000
	var ops []store.Op
	a := first
	for i := range leases {
		ops = append(ops, store.Put("ipam/lease/"+pool+"/"+a.String(), fmt.Appendf(nil,
			`{"v":1,"kind":"chosen","name":"container-%d","since":"2026-01-01T00:00:00Z","token":"TOKEN%d","holders":["%032x"]}`, i, i, 1)))
		a = a.Next()
		if len(ops) < batch && i < leases-1 {
			continue
		}
		if r, err := s.Txn(t.Context(), nil, ops); err != nil || !r.OK {
			t.Fatal(r, err)
		}
		ops = nil
	}
}

// largePool makes a shared pool and fills it.
func largePool(t *testing.T, c *etcdtest.Cluster, subnet string, leases int) (node *etcdNode, handle string) {
	t.Helper()
	n := startNode(t, c)
	h, err := n.pool(t, subnet, map[string]string{"pool": "lan"})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, n.shared, keys(t, n.shared, "ipam/pool/")[0], netip.MustParsePrefix(subnet).Addr().Next().Next(), leases)
	return n, h
}

// TestLargePool: nodes join a pool of 300,000 leases, and allocate at once, before they have read it: no request takes the time that it
// takes to read the pool. The node that had it all along is told of each lease.
func TestLargePool(t *testing.T) {
	const leases = 300_000
	c := etcdtest.Start(t, 1)
	first, p := largePool(t, c, "10.0.0.0/12", leases)
	late := startNode(t, c)
	began := time.Now()
	lateP, err := late.pool(t, "10.0.0.0/12", map[string]string{"pool": "lan"})
	if err != nil {
		t.Fatal(err)
	}
	given := map[netip.Addr]bool{}
	for range 20 {
		for _, ask := range []struct {
			node *etcdNode
			pool string
		}{{first, p}, {late, lateP}} {
			a, err := ask.node.request(t, ask.pool)
			if err != nil || given[a] {
				t.Fatalf("given %s, %v", a, err)
			}
			given[a] = true
		}
	}
	t.Logf("a node has joined, and each of two has 20 addresses, after %v", time.Since(began))
	for _, n := range []*etcdNode{first, late} {
		err := retry.Poll(t.Context(), 100*time.Millisecond, time.Minute, func() (bool, error) {
			return ipamdrv.Following(t.Context(), n.Driver)
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("a node has read %d leases after %v", leases, time.Since(began))
		err = retry.Poll(t.Context(), 100*time.Millisecond, time.Minute, func() (bool, error) { // until it was told of the last lease
			return ipamdrv.CheckCaches(t.Context(), n.Driver) == nil, nil
		})
		if err != nil {
			t.Errorf("%v: %v", err, ipamdrv.CheckCaches(t.Context(), n.Driver))
		}
	}
}

// TestManyNodesJoinLargePool: 30 nodes join a pool with 10,000 leases at once, as after a power failure of a rack. None fails.
func TestManyNodesJoinLargePool(t *testing.T) {
	c := etcdtest.Start(t, 1)
	largePool(t, c, "10.0.0.0/16", 10_000)
	var nodes []*etcdNode
	for range 30 {
		nodes = append(nodes, startNode(t, c))
	}
	began := time.Now()
	var given sync.Map
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			p, err := n.pool(t, "10.0.0.0/16", map[string]string{"pool": "lan"})
			joined := time.Since(began)
			if err == nil { // as engines before 28 do
				_, err = n.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: p, Options: asGateway})
			}
			if err != nil {
				t.Error(err)
				return
			}
			a, err := n.request(t, p)
			if _, twice := given.LoadOrStore(a, n); err != nil || twice {
				t.Errorf("given %s, %v", a, err)
			}
			t.Logf("joined after %v, an address after %v", joined, time.Since(began))
		})
	}
	wg.Wait()
}
