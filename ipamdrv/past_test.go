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

// restored is a ledger that can be one that was restored from a backup.
type restored struct {
	store.Store
	past bool
}

// refusal is the error of every call then.
func (r *restored) refusal() error {
	if r.past {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, store.ErrRolledBack)
	}
	return nil
}

func (r *restored) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if err := r.refusal(); err != nil {
		return store.Result{}, err
	}
	return r.Store.Txn(ctx, conds, then)
}

func (r *restored) Get(ctx context.Context, key string) (store.KV, error) {
	if err := r.refusal(); err != nil {
		return store.KV{}, err
	}
	return r.Store.Get(ctx, key)
}

func (r *restored) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	if err := r.refusal(); err != nil {
		return err
	}
	return r.Store.Range(ctx, prefix, fn)
}

func (r *restored) Watermark() []byte {
	if r.past {
		return []byte("10 3")
	}
	return []byte("10")
}

func (r *restored) SetWatermark([]byte) error { return nil }

// While the ledger shows an older state a node gives nothing that it has ahead, and that it saw such a state is in its own
// ledger before the caller hears of it.
func TestLedgerWentBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := &restored{Store: store.NewMemory()}
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
			t.Errorf("ahead are %q", got)
		}
	})
}

// lose removes the lease of an address from the ledger, as the restoration of a backup that is older does.
func lose(t *testing.T, s store.Store, addr string) {
	t.Helper()
	for _, key := range keys(t, s, "ipam/lease/") {
		if strings.HasSuffix(key, "/"+addr) {
			if _, err := s.Txn(t.Context(), nil, []store.Op{store.Del("ipam/lease/" + key)}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A node that accepts an older state has nothing ahead but what is its own there.
func TestAcceptForgetsWhatIsAhead(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, far *storetest.Faults) {
		n := newNode(t, far)
		pool := n.pool("10.0.0.0/24", "prefetch=3")
		wait(10 * time.Second)
		synctest.Wait()
		ahead := held(t, under)
		n.end()
		synctest.Wait()
		lose(t, under, ahead[0])
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

// What was given while the ledger was away, and of which a ledger that was restored knows nothing, is leased again: nobody else
// gets it. If somebody has it by then, it stays his, the node has nothing left to do, and an operator is told.
func TestDrawnAndRestored(t *testing.T) {
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
		lose(t, under, lost)
		lose(t, under, taken)
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
			t.Errorf("the node owes %d, %v", owed, err)
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
