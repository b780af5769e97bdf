package pool_test

import (
	"context"
	"errors"
	"testing"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

func TestParseHandle(t *testing.T) {
	const id, share = "00112233445566778899aabbccddeeff", "ffeeddccbbaa99887766554433221100"
	for text, want := range map[string]pool.Handle{"v1:" + id: {ID: id}, "v1:" + id + "." + share: {ID: id, Share: share}} {
		if got, ok := pool.ParseHandle(text); !ok || got != want || got.String() != text {
			t.Errorf("%s: %+v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "v1:", id, "v2:" + id, "v1:" + id + ".", "v1:" + id[1:], "v1:" + id + "0", "v1:00112233445566778899AABBCCDDEEFF", "v1:" + id + "/" + share,
		"LocalDefault/10.0.0.0/8"} {
		if got, ok := pool.ParseHandle(text); ok {
			t.Errorf("%s: %+v", text, got)
		}
	}
	if a, b := pool.NewID(), pool.NewID(); a == b {
		t.Errorf("two IDs are %s", a)
	}
}

// ambiguous is a store whose transactions have no answer. It applies them if applies is true; reads fail if blind is true.
type ambiguous struct {
	store.Store
	applies, blind bool
}

func (a ambiguous) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if a.applies {
		if r, err := a.Store.Txn(ctx, conds, then); err != nil || !r.OK {
			return r, err
		}
	}
	return store.Result{}, store.ErrAmbiguous
}

func (a ambiguous) Get(ctx context.Context, key string) (store.KV, error) {
	if a.blind {
		return store.KV{}, store.ErrUnavailable
	}
	return a.Store.Get(ctx, key)
}

// TestCommitReadsBack: if a transaction has no answer, its first operation shows whether it was applied. The error is ambiguous only if it was
// not, or if that cannot be read.
func TestCommitReadsBack(t *testing.T) {
	for _, op := range []store.Op{store.Put("k", []byte("new")), store.Del("k")} {
		for _, s := range []ambiguous{{applies: true}, {applies: false}, {applies: true, blind: true}, {applies: false, blind: true}} {
			memory := store.NewMemory()
			if _, err := memory.Txn(t.Context(), nil, []store.Op{store.Put("k", []byte("old"))}); err != nil {
				t.Fatal(err)
			}
			s.Store = memory
			r, err := pool.Ledger{Store: s}.Commit(t.Context(), nil, op)
			if known := s.applies && !s.blind; known != (err == nil && r.OK) || !known && !errors.Is(err, store.ErrAmbiguous) {
				t.Errorf("%s, applied %v, reads fail %v: %+v, %v", op.Value, s.applies, s.blind, r, err)
			}
		}
	}
}

// TestChangedByAnotherNode: a write with an outdated cache fails and drops the cache, so that the next attempt succeeds.
func TestChangedByAnotherNode(t *testing.T) {
	withPool(t, "10.99.0.0/24", "", nil, func(f *fixture) {
		f.gives(pool.Any, "", "", "10.99.0.2/24")
		other := pool.New(f.h.ID, pool.Ledger{Store: f.store}, nil)
		f.must(other.Load(f.Context()))
		f.gives(pool.Any, "", "", "10.99.0.3/24")
		lease := pool.Lease{V: pool.RecordVersion, Kind: pool.Any}
		if got, err := other.Allocate(f.Context(), lease, pool.AnyAddress, pool.Probe{}); !errors.Is(err, pool.ErrChanged) {
			t.Errorf("with an outdated cache: %s, %v", got, err)
		}
		f.must(other.Load(f.Context()))
		if got, err := other.Allocate(f.Context(), lease, pool.AnyAddress, pool.Probe{}); err != nil || got.String() != "10.99.0.4" {
			t.Errorf("after it was loaded again: %s, %v", got, err)
		}
		f.p.Invalidate()
	})
}

// TestUncertainWriteDropsCache: after a write whose outcome is not known the pool is loaded again, and has what was written.
func TestUncertainWriteDropsCache(t *testing.T) {
	withPool(t, "10.99.0.0/24", "", nil, func(f *fixture) {
		for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
			crash := storetest.NewCrash(f.store, 1, fate)
			p := pool.New(f.h.ID, pool.Ledger{Store: crash}, nil)
			f.must(p.Load(f.Context()))
			if got, err := p.Allocate(f.Context(), pool.Lease{V: pool.RecordVersion, Kind: pool.Any}, pool.AnyAddress, pool.Probe{}); err == nil {
				t.Errorf("%v: got %s", fate, got)
			}
			f.store = f.store.Reopen()
			f.restart()
		}
		if got := f.leases(); len(got) != 1 {
			t.Errorf("leases are %v, want that whose answer was lost", got)
		}
		f.gives(pool.Any, "", "", "10.99.0.3/24")
	})
}
