package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/store/storetest"
)

// countingStore counts what is read of a store, and its transactions.
type countingStore struct {
	*store.Memory
	read, txns atomic.Int64
	compact    atomic.Bool           // the next change ends all watches
	page       func(context.Context) // called before each page; nil for nothing
}

func (c *countingStore) Get(ctx context.Context, key string) (store.KV, error) {
	c.read.Add(1)
	return c.Memory.Get(ctx, key)
}

func (c *countingStore) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	return c.Memory.Range(ctx, prefix, func(kv store.KV) error {
		c.read.Add(1)
		return fn(kv)
	})
}

func (c *countingStore) Pages(ctx context.Context, prefix string, fn func(rev int64, page []store.KV) error) error {
	return c.Memory.Pages(ctx, prefix, func(rev int64, page []store.KV) error {
		c.read.Add(int64(len(page)))
		if c.page != nil {
			c.page(ctx)
		}
		return fn(rev, page)
	})
}

func (c *countingStore) Watch(ctx context.Context, prefix string, rev int64, fn func(store.Changes) error) error {
	return c.Memory.Watch(ctx, prefix, rev, func(changes store.Changes) error {
		if len(changes.Events) > 0 && c.compact.Swap(false) {
			return store.ErrCompacted
		}
		return fn(changes)
	})
}

func (c *countingStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	c.txns.Add(1)
	return c.Memory.Txn(ctx, conds, then)
}

// since returns what was read since the last call, and how many transactions were made.
func (c *countingStore) since() (read, txns int64) { return c.read.Swap(0), c.txns.Swap(0) }

// counted runs a test in a bubble with a counting store.
func counted(t *testing.T, run func(t *testing.T, c *countingStore)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { run(t, &countingStore{Memory: store.NewMemory()}) })
}

// TestReadsOfNodes: nodes that share a pool read it once. To allocate while others do, to join, to leave, to collide and to be refused reads no
// more than a few records, however many leases there are; a node that is idle reads nothing.
func TestReadsOfNodes(t *testing.T) {
	counted(t, func(t *testing.T, c *countingStore) {
		const shared, others = "10.0.0.0/23", 10
		var nodes []*clusterNode
		var pools []string
		for range others {
			n := newNode(t, c)
			nodes, pools = append(nodes, n), append(pools, n.pool(shared, "pool=lan"))
		}
		for i := range 400 {
			nodes[i%others].get(pools[i%others])
		}
		synctest.Wait()
		c.since()

		for i := range 100 {
			nodes[i%others].get(pools[i%others])
		}
		if read, txns := c.since(); read > 100 || txns > 150 {
			t.Errorf("100 addresses: %d records were read in %d transactions", read, txns)
		}
		own := &countingStore{Memory: c.Memory} // the others are told of the join, and read as well
		late := newNode(t, own)
		p := late.pool(shared, "pool=lan")
		if read, _ := own.since(); read > 10 {
			t.Errorf("a node that joins has read %d records before the answer", read)
		}
		synctest.Wait()
		if read, _ := own.since(); read > 600 {
			t.Errorf("a node that has joined reads %d records of 500", read)
		}
		c.since()
		nodes[0].get(pools[0])
		if read, _ := c.since(); read > 1 {
			t.Errorf("another node reads %d records after the join", read)
		}
		late.releasePool(p)
		of, _ := own.since()
		if read, _ := c.since(); read+of > others+10 {
			t.Errorf("a node that leaves has read %d records", read)
		}
		for range 8 { // the rest, but the one that is kept for a router
			nodes[1].get(pools[1])
		}
		synctest.Wait()
		c.since()
		for range 50 {
			if got, err := nodes[2].ask(pools[2]); !errors.Is(err, ipamdrv.ErrFull) {
				t.Fatalf("given %s, %v", got, err)
			}
		}
		if read, txns := c.since(); read+txns > 0 {
			t.Errorf("50 requests to a full pool: %d records were read in %d transactions", read, txns)
		}
		if err := nodes[2].askFor(pools[2], "10.0.0.77"); !errors.Is(err, ipamdrv.ErrInUse) {
			t.Errorf("an address in use: %v", err)
		}
		if read, _ := c.since(); read > 3 {
			t.Errorf("a request for an address in use has read %d records", read)
		}
		wait(time.Hour)
		// Once a minute each node writes that it runs.
		if read, txns := c.since(); read > 0 || txns > int64(60*(others+1)) {
			t.Errorf("%d idle nodes have read %d records in an hour, in %d transactions", others, read, txns)
		}
		for _, n := range nodes {
			checkReplicas(t, n)
		}
	})
}

// checkReplicas checks that the replicas of a node have what the store has.
func checkReplicas(t *testing.T, n *clusterNode) {
	t.Helper()
	synctest.Wait()
	if err := ipamdrv.CheckCaches(context.Background(), n.d); err != nil {
		t.Error(err)
	}
}

// TestReplicaAfterCompaction: if the changes that a node was to be told next are compacted, it reads the leases again. Meanwhile it allocates.
func TestReplicaAfterCompaction(t *testing.T) {
	counted(t, func(t *testing.T, c *countingStore) {
		a, b := newNode(t, c), newNode(t, c)
		pa, pb := a.pool("10.0.0.0/24", "pool=lan"), b.pool("10.0.0.0/24", "pool=lan")
		var freed string
		for range 100 {
			freed = a.get(pa)
		}
		synctest.Wait()
		c.compact.Store(true)
		a.release(pa, freed)
		for range 100 {
			b.get(pb)
		}
		wait(time.Minute)
		checkReplicas(t, a)
		checkReplicas(t, b)
		for range 54 { // to the last, but the one that is kept for a router
			b.get(pb)
		}
		if got, err := b.ask(pb); !errors.Is(err, ipamdrv.ErrFull) {
			t.Errorf("given %s, %v", got, err)
		}
	})
}

// TestAllocateWhileLoading: a node that has read a part of a pool's leases allocates, and what others write meanwhile is not lost. What needs to
// know all leases waits, and is refused in time if they are not read.
func TestAllocateWhileLoading(t *testing.T) {
	counted(t, func(t *testing.T, c *countingStore) {
		a := newNode(t, c)
		pa := a.pool("10.0.0.0/24", "pool=lan")
		var held []string
		for range 150 {
			held = append(held, a.get(pa))
		}
		paged := make(chan struct{})
		c.page = func(ctx context.Context) {
			select {
			case <-paged:
			case <-ctx.Done():
			}
		}
		b := newNode(t, c)
		pb := b.pool("10.0.0.0/24", "pool=lan")
		seen := map[string]bool{}
		for _, h := range held {
			seen[h] = true
		}
		for range 50 {
			got := b.get(pb)
			if seen[got] {
				t.Fatalf("%s was given twice", got)
			}
			seen[got] = true
		}
		for _, h := range held[:20] { // between the pages
			a.release(pa, h)
			paged <- struct{}{}
			a.get(pa)
		}
		close(paged)
		wait(time.Second)
		checkReplicas(t, b)
	})
	counted(t, func(t *testing.T, c *countingStore) {
		a := newNode(t, c)
		pa := a.pool("10.0.0.0/29", "pool=lan")
		for range 5 {
			a.get(pa)
		}
		c.page = func(ctx context.Context) { <-ctx.Done() }
		b := newNode(t, c)
		pb := b.pool("10.0.0.0/29", "pool=lan")
		began := time.Now()
		got, err := b.ask(pb)
		if took := time.Since(began); err == nil || !strings.Contains(err.Error(), "still being read") || took > 9*time.Second {
			t.Errorf("of a full pool that is being read: %s, %v after %v", got, err, took)
		}
	})
}

// TestTwoNodesCollide: nodes that allocate at the same moment, without being told of each other, get different addresses, also if each is to
// give the lowest.
func TestTwoNodesCollide(t *testing.T) {
	for _, reuse := range []string{"reuse=last", "reuse=immediate"} {
		counted(t, func(t *testing.T, c *countingStore) {
			const nodes, each = 8, 7
			var mu sync.Mutex
			given := map[string]bool{}
			var wg sync.WaitGroup
			for range nodes {
				n := newNode(t, c)
				p := n.pool("10.0.0.0/26", "pool=lan", reuse)
				synctest.Wait()
				wg.Go(func() {
					for range each {
						r, err := n.d.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: p})
						mu.Lock()
						if err != nil || given[r.Address] {
							t.Errorf("given %v, %v", r, err)
						} else {
							given[r.Address] = true
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			if _, txns := c.since(); txns > 12*nodes*each {
				t.Errorf("%s: %d transactions for %d addresses", reuse, txns, nodes*each)
			}
		})
	}
}

// TestPrefetchedAtOnce: the shared store does not answer any more, and many containers start at once. Each gets a prefetched address well before
// its engine gives up, with one subnet and with two, whether or not a request has seen the failure before. When the store is back, what
// was given is recorded, and as many are prefetched again.
func TestPrefetchedAtOnce(t *testing.T) {
	for _, subnets := range [][]string{{"10.0.0.0/24"}, {"10.0.0.0/24", "fd00::/64"}} {
		t.Run(fmt.Sprint(len(subnets)), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				shared := &hangingStore{Memory: store.NewMemory()}
				n := newNode(t, shared)
				var pools []string
				for _, subnet := range subnets {
					pools = append(pools, n.pool(subnet, "prefetch=16"))
				}
				wait(time.Minute)
				shared.hangs.Store(true)
				var given sync.Map
				var wg sync.WaitGroup
				for range 12 {
					wg.Go(func() {
						began := time.Now()
						for _, p := range pools {
							r, err := n.d.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: p})
							if err != nil {
								t.Error(err)
								return
							}
							if _, twice := given.LoadOrStore(netip.MustParsePrefix(r.Address), p); twice {
								t.Errorf("%s was given twice", r.Address)
							}
						}
						if took := time.Since(began); took > 500*time.Millisecond {
							t.Errorf("it took %v", took)
						}
					})
				}
				wg.Wait()
				began := time.Now()
				for range 4 {
					if _, err := n.d.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: pools[0]}); err != nil {
						t.Error(err)
					}
				}
				if took := time.Since(began); took > 50*time.Millisecond {
					t.Errorf("with an open circuit breaker four requests took %v", took)
				}
				_, err := n.d.RequestAddress(context.Background(), &ipam.RequestAddressRequest{PoolID: pools[0]})
				if took := time.Since(began); !errors.Is(err, store.ErrUnavailable) || took > 50*time.Millisecond {
					t.Errorf("without a prefetched address: %v after %v", err, took)
				}
				shared.hangs.Store(false)
				wait(time.Minute)
				if got := keys(t, n.own, "node/reserve/"); len(got) != 16*len(pools) {
					t.Errorf("prefetched are %d addresses", len(got))
				}
				if owed, err := n.d.PoolsWithOps(t.Context()); err != nil || owed > 0 {
					t.Errorf("the outbox still has %d ops, %v", owed, err)
				}
				if got, want := len(held(t, shared.Memory)), (12+16)*len(pools)+4; got != want {
					t.Errorf("the ledger has %d leases, want %d", got, want)
				}
			})
		})
	}
}

// slowDisk is a node's own ledger on a disk that stalls.
type slowDisk struct {
	*store.Memory
	stall atomic.Int64 // a time.Duration
}

func (s *slowDisk) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	wait(time.Duration(s.stall.Load()))
	return s.Memory.Txn(ctx, conds, then)
}

// TestDrawnTooLate: the node's disk stalls while a prefetched address is given, until the engine has given up. The address is released.
func TestDrawnTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared, own := &hangingStore{Memory: store.NewMemory()}, &slowDisk{Memory: store.NewMemory()}
		d, err := ipamdrv.New(ipamdrv.Config{Store: shared, Own: own, Journal: journal.New(filepath.Join(t.TempDir(), "journal"))})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(d.Close)
		r, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.0.0.0/24", Options: pairs([]string{"prefetch=2"})})
		if err != nil {
			t.Fatal(err)
		}
		maintain(t, d)
		shared.hangs.Store(true)
		own.stall.Store(int64(15 * time.Second))
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if got, err := d.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: r.PoolID}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("given %v, %v", got, err)
		}
		own.stall.Store(0)
		shared.hangs.Store(false)
		wait(time.Minute)
		maintain(t, d)
		if got, ahead := held(t, shared.Memory), keys(t, own, "node/reserve/"); len(got) != 2 || len(ahead) != 2 {
			t.Errorf("leases are %v, prefetched %v, want two that are prefetched", got, ahead)
		}
	})
}

// TestPrefetchedOfOneHandle: the engines of two machines have one handle, because one is a copy of the other and the plugin's own ledger was
// empty, so that each is a node of its own. None takes what the other has leased ahead for its own.
func TestPrefetchedOfOneHandle(t *testing.T) {
	clustered(t, func(t *testing.T, _ *store.Memory, far *storetest.Faults) {
		a, b := newNode(t, far), newNode(t, far)
		p := a.pool("10.0.0.0/24", "prefetch=2")
		wait(10 * time.Second)
		given := map[string]bool{a.get(p): true, b.get(p): true}
		wait(10 * time.Second)
		a.restart()
		b.restart()
		wait(10 * time.Second)
		far.Away(true)
		for _, n := range []*clusterNode{a, b, a, b} {
			got := n.get(p)
			if given[got] {
				t.Errorf("%s was given twice", got)
			}
			given[got] = true
		}
		far.Away(false)
		wait(time.Minute)
	})
}

// TestBackgroundOpensBreaker: the background work finds that the shared store does not answer. From then on requests are refused at once, also
// while the rest of the background work takes long.
func TestBackgroundOpensBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &hangingStore{Memory: store.NewMemory()}
		n := &clusterNode{T: t, own: store.NewMemory(), journal: filepath.Join(t.TempDir(), "journal"), shared: shared,
			uses: func(context.Context) ([]ipamdrv.Use, error) {
				if shared.hung.Load() {
					wait(time.Hour)
				}
				return nil, nil
			}}
		n.start()
		t.Cleanup(func() { n.end() })
		wait(58 * time.Second) // so that the node writes that it was seen in the rounds that collect garbage
		p := n.pool("10.0.0.0/24")
		n.get(p)
		wait(2 * time.Minute)
		shared.hangs.Store(true)
		wait(cluster.SeenEvery + time.Minute) // the next write of the background work, its end, and the pause before
		began := time.Now()
		got, err := n.ask(p)
		if took := time.Since(began); !errors.Is(err, store.ErrUnavailable) || took > 0 {
			t.Errorf("given %s, %v after %v", got, err, took)
		}
	})
}
