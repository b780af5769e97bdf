package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/store"
)

// restored is a ledger that can be one that was restored from a backup.
type restored struct {
	store.Store
	past bool
}

// refusal is the error of every call then.
func (r *restored) refusal() error {
	if r.past {
		return fmt.Errorf("%w: %w", store.ErrUnavailable, store.ErrPast)
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

func (r *restored) Past() []byte {
	if r.past {
		return []byte("10 3")
	}
	return []byte("10")
}

func (r *restored) Recall([]byte) error { return nil }

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
		if got, err := n.ask(pool); !errors.Is(err, store.ErrPast) {
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
