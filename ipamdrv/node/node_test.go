package node_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/store/storetest"
)

const poolID = "00112233445566778899aabbccddeeff"

var (
	handle = pool.Handle{ID: poolID, Share: "ffeeddccbbaa99887766554433221100"}
	local  = pool.LocalHandle{Handle: handle, Subnet: netip.MustParsePrefix("10.0.0.0/24"), Prefetch: 2}
	first  = netip.MustParseAddr("10.0.0.2")
	second = netip.MustParseAddr("10.0.0.3")
)

// fixture is a node with stores in memory.
type fixture struct {
	*testing.T
	own, shared *store.Memory
	journal     string // its path
	n           *node.Node
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{T: t, own: store.NewMemory(), shared: store.NewMemory(), journal: filepath.Join(t.TempDir(), "journal")}
	f.restart()
	return f
}

// restart replaces the node by that of a new process.
func (f *fixture) restart() {
	f.own = f.own.Reopen()
	f.n = node.New(f.own, f.shared, journal.New(f.journal), "name")
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// wantOps compares the outbox of the pool, in this process and in the next.
func (f *fixture) wantOps(when string, want ...string) {
	f.Helper()
	for range 2 {
		entries, err := f.n.Entries(f.Context(), poolID)
		f.must(err)
		var got []string
		for _, e := range entries {
			got = append(got, fmt.Sprint(e.Do, " ", e.Addr))
		}
		if !slices.Equal(got, want) {
			f.Errorf("%s the outbox is %q, want %q", when, got, want)
		}
		f.restart()
	}
}

func (f *fixture) wantHandles(when string, want ...pool.Handle) {
	f.Helper()
	for range 2 {
		if got, err := f.n.Handles(f.Context()); err != nil || !slices.Equal(got, want) {
			f.Errorf("%s the handles are %v, %v, want %v", when, got, err, want)
		}
		f.restart()
	}
}

// TestOutbox: ops stay in order until they are dequeued, through restarts.
func TestOutbox(t *testing.T) {
	f := newFixture(t)
	for _, o := range []pool.Op{{Do: pool.ReleaseAddress, Addr: first}, {Do: pool.AssignLease, Addr: second, Lease: &pool.Lease{}}} {
		f.must(f.n.Enqueue(t.Context(), poolID, o))
		f.restart()
	}
	f.wantOps("at first", "release 10.0.0.2", "give 10.0.0.3")
	entries, err := f.n.Entries(t.Context(), poolID)
	f.must(err)
	f.must(f.n.Dequeue(t.Context(), poolID, entries[0]))
	f.wantOps("after one", "give 10.0.0.3")
	f.must(f.n.Enqueue(t.Context(), poolID, pool.Op{Do: pool.ReleaseHandle}))
	f.wantOps("after another", "give 10.0.0.3", "leave invalid IP")
	if ids, err := f.n.Pools(t.Context()); err != nil || !slices.Equal(ids, []string{poolID}) {
		t.Errorf("pools with ops are %v, %v", ids, err)
	}
}

// TestWithUndo: the undo of a write stays in the outbox if its outcome is unknown, or if the process ends before it is known. What a write has
// created is the node's only if it was made.
func TestWithUndo(t *testing.T) {
	undo := pool.Op{Do: pool.ReleaseHandle}
	for _, test := range []struct {
		name     string
		r        store.Result
		err      error
		certain  bool
		handles  []pool.Handle
		leftOver []string
	}{
		{"made", store.Result{OK: true}, nil, true, []pool.Handle{handle}, nil},
		{"not made", store.Result{}, nil, true, nil, nil},
		{"failed", store.Result{}, store.ErrUnavailable, true, nil, nil},
		{"unknown", store.Result{}, store.ErrAmbiguous, false, nil, []string{"leave invalid IP"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			r, certain, err := f.n.WithUndo(t.Context(), poolID, undo, func(context.Context) (store.Result, error) { return test.r, test.err }, local)
			if r.OK != test.r.OK || certain != test.certain || !errors.Is(err, test.err) {
				t.Errorf("%+v, %v, %v", r, certain, err)
			}
			f.wantHandles("afterwards", test.handles...)
			f.wantOps("afterwards", test.leftOver...)
		})
	}
	t.Run("the process ends", func(t *testing.T) {
		f := newFixture(t)
		_, err := f.n.BeginIntent(t.Context(), poolID, undo)
		f.must(err)
		f.wantOps("afterwards", "leave invalid IP")
	})
}

// TestPrefetched: a prefetched address is given once, with the op that records who has it, also after a restart.
func TestPrefetched(t *testing.T) {
	f := newFixture(t)
	f.must(f.n.Claim(t.Context(), local))
	for i, a := range []netip.Addr{second, first} {
		f.must(f.n.AddPrefetched(t.Context(), handle, a, pool.Lease{Kind: pool.Prefetched, Token: fmt.Sprint("ahead ", i)}))
	}
	f.restart()
	lease := pool.Lease{Kind: pool.Any, Name: "c", Token: "request"}
	a, subnet, err := f.n.TakePrefetched(t.Context(), handle, lease)
	if err != nil || a != first || subnet != local.Subnet {
		t.Errorf("given %s of %s, %v", a, subnet, err)
	}
	f.wantOps("afterwards", "give 10.0.0.2")
	entries, err := f.n.Entries(t.Context(), poolID)
	f.must(err)
	if o := entries[0]; o.Token != "ahead 1" || o.Lease.Name != "c" || o.Lease.Token != "request" || o.Share != handle.Share {
		t.Errorf("the op is %+v of %+v", o.Op, o.Lease)
	}
	if n := f.n.Deficit(handle); n != 1 {
		t.Errorf("%d addresses lack, want 1", n)
	}

	// The shared store has the lease of the first, whose op is pending, and one that was leased just before the process ended.
	third := netip.MustParseAddr("10.0.0.4")
	found := func(context.Context, pool.Handle) (map[netip.Addr]pool.Lease, error) {
		return map[netip.Addr]pool.Lease{first: {Token: "ahead 1"}, second: {Token: "ahead 0"}, third: {Token: "ahead 2"}}, nil
	}
	f.must(f.n.Reconcile(t.Context(), handle, found))
	f.restart()
	for _, want := range []netip.Addr{second, third, {}} {
		if a, _, err := f.n.TakePrefetched(t.Context(), handle, lease); err != nil || a != want {
			t.Errorf("given %s, %v, want %s", a, err, want)
		}
	}
}

// TestDrop: a handle is dropped with its prefetched addresses, and the ops that this needs are enqueued.
func TestDrop(t *testing.T) {
	f := newFixture(t)
	f.must(f.n.Claim(t.Context(), local))
	f.must(f.n.AddPrefetched(t.Context(), handle, first, pool.Lease{}))
	f.must(f.n.Drop(t.Context(), handle, pool.Op{Do: pool.ReleaseHandle, Share: handle.Share}))
	f.wantHandles("afterwards")
	f.wantOps("afterwards", "leave invalid IP")
	if a, _, err := f.n.TakePrefetched(t.Context(), handle, pool.Lease{}); err != nil || a.IsValid() {
		t.Errorf("given %s, %v", a, err)
	}
}

// TestReset: a node that was removed from the cluster drops what it had and gets a new ID; one that was not keeps all.
func TestReset(t *testing.T) {
	f := newFixture(t)
	old, err := f.n.ID(t.Context())
	f.must(err)
	f.must(f.n.Claim(t.Context(), local))
	f.must(f.n.Enqueue(t.Context(), poolID, pool.Op{Do: pool.ReleaseAddress, Addr: first}))
	_, err = f.n.BeginIntent(t.Context(), poolID, pool.Op{Do: pool.ReleaseAddress, Addr: second})
	f.must(err)
	f.must(f.n.Reset(t.Context()))
	f.wantHandles("as a member", handle)
	f.wantOps("as a member", "release 10.0.0.2", "release 10.0.0.3")

	f.must(cluster.RemoveNode(t.Context(), f.shared, old))
	f.restart()
	f.must(f.n.Reset(t.Context()))
	f.wantHandles("after its removal")
	f.wantOps("after its removal")
	if now, err := f.n.ID(t.Context()); err != nil || now == old {
		t.Errorf("the ID is %s, %v", now, err)
	}
}

// TestCircuitBreaker: the first failure of the shared store opens the circuit breaker, and it is closed as soon as the store answers. A refusal
// is no failure, nor a caller that has gone, or had to wait for too long.
func TestCircuitBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		far := storetest.NewFaults(f.shared, 1, 0)
		b := node.NewBreaker(far)
		defer b.Close()
		for _, err := range []error{nil, pool.ErrFull, store.ErrCorrupt, context.Canceled, context.DeadlineExceeded} {
			if b.Report(err); b.Unavailable() != nil {
				t.Errorf("open after %v", err)
			}
		}
		for _, err := range []error{store.ErrUnavailable, store.ErrAmbiguous} {
			far.Away(true)
			b.Report(err)
			time.Sleep(time.Hour)
			if got := b.Unavailable(); !errors.Is(got, err) {
				t.Errorf("an hour later: %v, want %v", got, err)
			}
			far.Away(false)
			time.Sleep(time.Second)
			if got := b.Unavailable(); got != nil {
				t.Errorf("open a second after the store is back: %v", got)
			}
		}
	})
}

// TestDamagedLedger: nothing is done while the own ledger cannot be read: an op in it may be lost.
func TestDamagedLedger(t *testing.T) {
	for key, value := range map[string]string{"node/owed/" + poolID + "/x": `{"v":1}`, "node/owed/" + poolID + "/0000000000000001": `{"v":9}`,
		"node/mine/" + handle.String(): `{`, "node/reserve/" + handle.String() + "/x": `{}`} {
		f := newFixture(t)
		_, err := f.own.Txn(t.Context(), nil, []store.Op{store.Put(key, []byte(value))})
		f.must(err)
		if err := f.n.Enqueue(t.Context(), poolID, pool.Op{Do: pool.ReleaseHandle}); err == nil {
			t.Errorf("%s %s: enqueued", key, value)
		}
	}
}

// TestNotShared: a store that is not shared has no node. All pools are this node's, and nothing is unavailable.
func TestNotShared(t *testing.T) {
	var n *node.Node
	has, err := n.HasPool(t.Context(), poolID)
	id, errID := n.ID(t.Context())
	if err := errors.Join(err, errID, n.Drop(t.Context(), handle), n.SaveWatermark(t.Context(), nil)); err != nil {
		t.Error(err)
	}
	if !has || id != "" {
		t.Errorf("has %v, id %q", has, id)
	}
	var b *node.Breaker
	if b.Report(store.ErrUnavailable); b.Unavailable() != nil {
		t.Error("the circuit breaker of a store that is not shared is open")
	}
	b.Close()
}

// TestUnknownFields: what a newer version has added to a handle's record outlives this version, see also package pool.
func TestUnknownFields(t *testing.T) {
	storetest.KeepsUnknown[node.HandleRecord](t, pool.Versions)
}
