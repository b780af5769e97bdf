package ipamdrv_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/store"
)

// slowStore is a store with a round trip time.
type slowStore struct{ *store.Memory }

const roundTrip = 3 * time.Millisecond

func (d slowStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	time.Sleep(roundTrip)
	return d.Memory.Txn(ctx, conds, then)
}

func (d slowStore) Get(ctx context.Context, key string) (store.KV, error) {
	time.Sleep(roundTrip)
	return d.Memory.Get(ctx, key)
}

func (d slowStore) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	time.Sleep(roundTrip)
	return d.Memory.Range(ctx, prefix, fn)
}

// TestManyNodesJoinAtOnce: many nodes join one pool at the same moment. All succeed within the engine's timeout.
func TestManyNodesJoinAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := store.NewMemory()
		var nodes []*clusterNode
		for range 60 {
			nodes = append(nodes, newNode(t, slowStore{under}))
		}
		began := time.Now()
		var wg sync.WaitGroup
		for _, n := range nodes {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 9*time.Second)
				defer cancel()
				r := &ipam.RequestPoolRequest{Pool: "10.0.0.0/24", Options: pairs([]string{"pool=lan"})}
				if _, err := n.d.RequestPool(ctx, r); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if shares := keys(t, under, "ipam/share/"); len(shares) != len(nodes) {
			t.Errorf("%d shares after %v", len(shares), time.Since(began))
		}
	})
}

// conflictingStore is a store in which another request is always faster: no transaction's condition holds.
type conflictingStore struct{ store.Store }

func (a conflictingStore) Txn(_ context.Context, conds []store.Cond, _ []store.Op) (store.Result, error) {
	return store.Result{Failed: conds[0]}, nil
}

// TestRetryEnds: a request that always conflicts fails in time, and before its engine's timeout.
func TestRetryEnds(t *testing.T) {
	withFixture(t, func(b *fixture) {
		pool := b.pool("10.0.0.0/24", "")
		d := newDriver(b.T, conflictingStore{b.store})
		for _, patience := range []time.Duration{time.Second, time.Hour} {
			began := time.Now()
			ctx, cancel := context.WithTimeout(b.Context(), patience)
			_, err := d.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: pool})
			cancel()
			took := time.Since(began)
			if err == nil || took > min(patience, 10*time.Second) {
				b.Errorf("after %v: %v", took, err)
			}
			if gone := errors.Is(err, context.DeadlineExceeded); gone != (patience == time.Second) {
				b.Errorf("of %v patience: %v", patience, err)
			}
		}
	})
}
