package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// TestConcurrentRequests: many containers start at once on a bbolt ledger. Each gets a different address, until the pool is full.
func TestConcurrentRequests(t *testing.T) {
	s, err := boltstore.Open(filepath.Join(t.TempDir(), "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	d := newDriver(t, s)
	var handles []string
	for range 3 {
		r, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.99.0.0/28"})
		if err != nil {
			t.Fatal(err)
		}
		handles = append(handles, r.PoolID)
	}

	const asking, addresses = 20, 13 // of the 14 one is kept for a router
	var mu sync.Mutex                // guards got and full
	got, full := map[string]int{}, 0
	var wg sync.WaitGroup
	for i := range asking * len(handles) {
		wg.Go(func() {
			pool := handles[i%len(handles)]
			r, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: pool})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				got[pool+" "+r.Address]++
			case errors.Is(err, ipamdrv.ErrFull):
				full++
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for address, n := range got {
		if n != 1 {
			t.Errorf("%s was given %d times", address, n)
		}
	}
	if len(got) != addresses*len(handles) || full != (asking-addresses)*len(handles) {
		t.Errorf("%d got an address and %d none, want %d and %d", len(got), full, addresses*len(handles),
			(asking-addresses)*len(handles))
	}
	checkInvariants(t, d, s)
}

// TestReleasePoolWhileBusy: requests, releases and the removal of the pool run concurrently. In the end the ledger is empty.
func TestReleasePoolWhileBusy(t *testing.T) {
	s := store.NewMemory()
	d := newDriver(t, s)
	var wg sync.WaitGroup
	for i := range 20 {
		r, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.99.0.0/24"})
		if err != nil {
			t.Fatal(err)
		}
		for j := range 6 {
			wg.Go(func() {
				got, err := d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: r.PoolID})
				if err != nil && !errors.Is(err, ipamdrv.ErrUnknownPool) {
					t.Error(err)
				}
				if err == nil && j%2 == 0 {
					addr := strings.TrimSuffix(got.Address, "/24")
					req := &ipam.ReleaseAddressRequest{PoolID: r.PoolID, Address: addr}
					if _, err := d.ReleaseAddress(t.Context(), req); err != nil {
						t.Error(err)
					}
				}
				if j == i%6 {
					if _, err := d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: r.PoolID}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	if left := keys(t, s, ""); len(left) > 0 {
		t.Errorf("the ledger still has %q", left)
	}
}

// TestPoolsAreIndependent: a request that hangs in the ledger does not delay requests to another pool. A request that must be alone waits for
// it, and ends at its own deadline.
func TestPoolsAreIndependent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := store.NewMemory()
		gate := &gate{Store: under, open: make(chan struct{})}
		d := newDriver(t, gate)
		var handles []string
		for range 2 {
			r, err := d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.99.0.0/24"})
			if err != nil {
				t.Fatal(err)
			}
			handles = append(handles, r.PoolID)
		}
		gate.stuck = handles[0]
		ask := func(ctx context.Context, pool, address string) (string, error) {
			r, err := d.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: pool, Address: address})
			if err != nil {
				return "", err
			}
			return r.Address, nil
		}
		first := make(chan string)
		go func() {
			got, err := ask(t.Context(), handles[0], "")
			first <- fmt.Sprint(got, err)
		}()
		synctest.Wait()

		if got, err := ask(t.Context(), handles[1], ""); err != nil || got != "10.99.0.2/24" {
			t.Errorf("the other pool: %q, %v", got, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := ask(ctx, handles[0], "10.99.0.9")
		wantError(t, err, context.DeadlineExceeded,
			`pool "`+handles[0]+`": request address: waiting for an earlier request: context deadline exceeded`)

		close(gate.open)
		if got := <-first; got != "10.99.0.2/24<nil>" {
			t.Errorf("the request that was held up: %s", got)
		}
		checkInvariants(t, d, under)
	})
}

// gate delays the transactions of one pool until it opens.
type gate struct {
	store.Store
	stuck string
	open  chan struct{}
}

func (g *gate) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if g.stuck != "" && then[0].Key[len("ipam/lease/"):][:32] == g.stuck[len("v1:"):] {
		<-g.open
	}
	return g.Store.Txn(ctx, conds, then)
}
