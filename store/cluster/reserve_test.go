package cluster_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/storetest"
)

// every accepts every key.
func every(string) bool { return true }

// fresh makes values of a node that never repeat.
func fresh(n *cluster.Node) func() []byte {
	i := 0
	return func() []byte {
		i++
		return fmt.Appendf(nil, "%s/reserve%d", n.ID, i)
	}
}

// While the shared store is away what was reserved before can be given, outlives the process, and is nobody else's.
func TestReserve(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	far := storetest.NewFaults(shared, 1, 0)
	a, b := join(t, own, far), join(t, store.NewMemory(), shared)
	if err := a.Fill(t.Context(), from(a.ID, 5), 2, every, fresh(a)); err != nil {
		t.Fatal(err)
	}
	reserved := a.Reserved(every)
	if len(reserved) != 2 {
		t.Fatalf("reserved %q, want two", reserved)
	}
	far.Away(true)
	own = own.Reopen()
	a = join(t, own, far)
	if diff := cmp.Diff(reserved, a.Reserved(every)); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	one := func(key string) bool { return key == reserved[1] }
	key, err := a.Draw(t.Context(), one, []byte(a.ID+"/web"))
	if err != nil || key != reserved[1] {
		t.Fatalf("drew %q, %v", key, err)
	}
	if _, err := a.Draw(t.Context(), one, nil); !errors.Is(err, cluster.ErrTaken) {
		t.Errorf("drawn twice: %v", err)
	}
	for range 3 {
		claim(t, b, 5)
	}
	if _, err := b.Claim(t.Context(), from(b.ID, 5), nil); !errors.Is(err, cluster.ErrTaken) {
		t.Errorf("another node got what is reserved: %v", err)
	}
	far.Away(false)
	if err := a.Deliver(t.Context()); err != nil {
		t.Error(err)
	}
	if kv, err := shared.Get(t.Context(), key); err != nil || string(kv.Value) != a.ID+"/web" {
		t.Errorf("%s = %q, %v", key, kv.Value, err)
	}
	if err := a.GiveBack(t.Context(), every); err != nil {
		t.Error(err)
	}
	if got := claim(t, b, 5); got != reserved[0] {
		t.Errorf("given back %s, want %s", got, reserved[0])
	}
	if kv, err := shared.Get(t.Context(), key); err != nil || !heldBy(a.ID, kv.Value) {
		t.Errorf("%s, which is in use, was given back: %q, %v", key, kv.Value, err)
	}
}

// What was drawn and released while the store was away is free in the end, whichever is delivered first.
func TestDrawnAndReleased(t *testing.T) {
	for seed := range uint64(50) {
		own, shared := store.NewMemory(), store.NewMemory()
		far := storetest.NewFaults(shared, seed, 0)
		a := join(t, own, far)
		if err := a.Fill(t.Context(), from(a.ID, 1), 1, every, fresh(a)); err != nil {
			t.Fatal(err)
		}
		far.Away(true)
		key, err := a.Draw(t.Context(), every, []byte(a.ID+"/web"))
		if err == nil {
			err = a.Release(t.Context(), key)
		}
		if err != nil {
			t.Fatal(err)
		}
		far.Away(false)
		if err := a.Deliver(t.Context()); err != nil {
			t.Error(err)
		}
		if kv, err := shared.Get(t.Context(), key); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s = %q, %v, want it free", key, kv.Value, err)
		}
	}
}

// A reserve that is damaged in the ledger is not passed over.
func TestDamagedErrand(t *testing.T) {
	own := store.NewMemory()
	put := []store.Op{store.Put("cluster/errand/lease/0001/x", []byte("token 99\nshort"))}
	if _, err := own.Txn(t.Context(), nil, put); err != nil {
		t.Fatal(err)
	}
	_, err := cluster.Join(t.Context(), own, store.NewMemory(), heldBy)
	if !errors.Is(err, store.ErrCorrupt) || !bytes.Contains([]byte(err.Error()), []byte("record cluster/errand/lease/0001/x")) {
		t.Errorf("join: %v", err)
	}
}
