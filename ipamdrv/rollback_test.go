package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// rollbackStore is a store that can become one that was restored from an old backup.
type rollbackStore struct {
	*store.Memory
	past bool
}

// refusal is the error of every call after that.
func (r *rollbackStore) refusal() error {
	if r.past {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, store.ErrRolledBack)
	}
	return nil
}

func (r *rollbackStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if err := r.refusal(); err != nil {
		return store.Result{}, err
	}
	return r.Memory.Txn(ctx, conds, then)
}

func (r *rollbackStore) Get(ctx context.Context, key string) (store.KV, error) {
	if err := r.refusal(); err != nil {
		return store.KV{}, err
	}
	return r.Memory.Get(ctx, key)
}

func (r *rollbackStore) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	if err := r.refusal(); err != nil {
		return err
	}
	return r.Memory.Range(ctx, prefix, fn)
}

func (r *rollbackStore) Watermark() []byte {
	if r.past {
		return []byte("10 3")
	}
	return []byte("10")
}

func (r *rollbackStore) SetWatermark([]byte) error { return nil }

// TestRollbackBlocksPrefetched: while the shared ledger shows an older state a node gives no prefetched address. It records the rollback
// in its own ledger before the caller gets the error.
func TestRollbackBlocksPrefetched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &rollbackStore{Memory: store.NewMemory()}
		n := newNode(t, shared)
		pool := n.pool("10.0.0.0/24", "prefetch=2")
		wait(10 * time.Second)
		synctest.Wait()
		shared.past = true
		if got, err := n.ask(pool); !errors.Is(err, store.ErrRolledBack) {
			t.Errorf("given %s, %v", got, err)
		}
		if got := value(t, n.own, "cluster/past"); got != "10 3" {
			t.Errorf("written down is %q", got)
		}
		if got := keys(t, n.own, "node/reserve/"); len(got) != 2 {
			t.Errorf("prefetched are %q", got)
		}
	})
}

// deleteLease deletes the lease of an address, as the restore of an older backup does.
func deleteLease(t *testing.T, s store.Store, addr string) {
	t.Helper()
	for _, key := range keys(t, s, "ipam/lease/") {
		if strings.HasSuffix(key, "/"+addr) {
			if _, err := s.Txn(t.Context(), nil, []store.Op{store.Del("ipam/lease/" + key)}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestAcceptRestoreDropsPrefetched: after an operator accepted an older state a node has only the prefetched addresses that are its own
// in it.
func TestAcceptRestoreDropsPrefetched(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		n := newNode(t, far)
		pool := n.pool("10.0.0.0/24", "prefetch=3")
		wait(10 * time.Second)
		synctest.Wait()
		ahead := held(t, under)
		n.end()
		synctest.Wait()
		deleteLease(t, under, ahead[0])
		n.own = n.own.Reopen()
		if err := ipamdrv.AcceptRestore(t.Context(), n.own); err != nil {
			t.Fatal(err)
		}
		n.start()
		wait(10 * time.Second)
		synctest.Wait()
		now := held(t, under)
		if len(now) != 3 || !slices.Contains(now, ahead[1]) || !slices.Contains(now, ahead[2]) {
			t.Errorf("in the ledger are %v, want three with %v", now, ahead[1:])
		}
		far.Away(true)
		for range 3 {
			if got := n.get(pool); !slices.Contains(now, got) {
				t.Errorf("given %s, in the ledger are %v", got, now)
			}
		}
	})
}

// TestAssignAfterRollback: an address was given while the ledger was unavailable, and the ledger was restored from a backup without its
// lease. The lease is written again. If another container has the address by then, it keeps it, the outbox drops the op, and the log
// tells the operator.
func TestAssignAfterRollback(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		n, other := newNode(t, far), newNode(t, under)
		core, logs := observer.New(zap.ErrorLevel)
		n.end()
		n.log = zap.New(core)
		n.own = n.own.Reopen()
		n.start()
		pool, others := n.pool("10.0.0.0/24", "pool=lan", "prefetch=2"), other.pool("10.0.0.0/24", "pool=lan", "prefetch=2")
		wait(10 * time.Second)
		synctest.Wait()
		far.Away(true)
		lost, taken := n.get(pool), n.get(pool)
		deleteLease(t, under, lost)
		deleteLease(t, under, taken)
		if err := other.askFor(others, taken); err != nil {
			t.Fatal(err)
		}
		far.Away(false)
		wait(10 * time.Second)
		synctest.Wait()
		if err := other.askFor(others, lost); !errors.Is(err, ipamdrv.ErrInUse) {
			t.Errorf("%s, which a container has: %v", lost, err)
		}
		if owed, err := n.d.PoolsWithOps(t.Context()); err != nil || owed > 0 {
			t.Errorf("the outbox has %d ops, %v", owed, err)
		}
		if all := logs.All(); len(all) != 1 || all[0].ContextMap()["address"] != taken {
			t.Errorf("the log says %v", all)
		}
		n.release(pool, taken)
		if !slices.Contains(held(t, under), taken) {
			t.Error("the release of one ended the lease of the other")
		}
	})
}
