package ipamdrv_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// hangingStore is a store whose calls wait until their context or their own timeout ends, as those of an etcd that does not answer.
type hangingStore struct {
	*store.Memory
	hangs atomic.Bool
	hung  atomic.Bool // a call has waited
}

func (s *hangingStore) wait(ctx context.Context) error {
	if !s.hangs.Load() {
		return nil
	}
	s.hung.Store(true)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	<-ctx.Done()
	return store.ErrUnavailable
}

func (s *hangingStore) Get(ctx context.Context, key string) (store.KV, error) {
	if err := s.wait(ctx); err != nil {
		return store.KV{}, err
	}
	return s.Memory.Get(ctx, key)
}

func (s *hangingStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if err := s.wait(ctx); err != nil {
		return store.Result{}, err
	}
	return s.Memory.Txn(ctx, conds, then)
}

func (s *hangingStore) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	if err := s.wait(ctx); err != nil {
		return err
	}
	return s.Memory.Range(ctx, prefix, fn)
}

// TestQueriesOfTheNetworkDriver: what the network driver asks about addresses of other IPAM drivers, and about the containers of ours,
// does not wait for a shared store.
func TestQueriesOfTheNetworkDriver(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		shared := &hangingStore{Memory: under}
		n := newNode(t, shared)
		p := n.pool("10.0.0.0/24")
		address, err := n.askBy(p, "web")
		if err != nil {
			t.Fatal(err)
		}
		shared.hangs.Store(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		asked := time.Now()
		if n.d.InventedGateway(ctx, "172.18.0.0/16", "172.18.0.1/16") {
			t.Error("the gateway of another IPAM driver's pool counts as invented")
		}
		if got := n.d.ContainerName(address+"/24") + n.d.ContainerName("172.18.0.2/16"); got != "web" {
			t.Errorf("containers %q, want web and an unknown one", got)
		}
		if took := time.Since(asked); took != 0 {
			t.Errorf("took %v", took)
		}
		wait(2 * time.Minute)
		if got := n.d.ContainerName(address + "/24"); got != "" {
			t.Errorf("container %q is still remembered", got)
		}
	})
}
