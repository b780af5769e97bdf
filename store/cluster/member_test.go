package cluster_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/storetest"
)

// id is a member's identity.
func id(t *testing.T, m *cluster.Member) string {
	t.Helper()
	id, err := m.ID(t.Context())
	if err != nil || len(id) < 20 {
		t.Fatalf("%q, %v", id, err)
	}
	return id
}

// write makes a write as a member does, and says whether it was made.
func write(t *testing.T, m *cluster.Member, shared store.Store) bool {
	t.Helper()
	cond, err := m.Cond(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r, err := shared.Txn(t.Context(), []store.Cond{cond}, []store.Op{store.Put("x", nil)})
	if err != nil {
		t.Fatal(err)
	}
	return r.OK
}

// A node is the same one after a restart, and no other is.
func TestIdentityStays(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	first := cluster.New(own, shared, "n1")
	if !write(t, first, shared) {
		t.Error("a member's write was not made")
	}
	again := cluster.New(own.Reopen(), shared, "n1")
	if id(t, again) != id(t, first) || !write(t, again, shared) {
		t.Errorf("it is %s, was %s", id(t, again), id(t, first))
	}
	other := cluster.New(store.NewMemory(), shared, "n2")
	if id(t, other) == id(t, first) || !write(t, other, shared) {
		t.Error("another node has the same identity")
	}
	nodes, err := cluster.Nodes(t.Context(), shared)
	if err != nil || len(nodes) != 2 {
		t.Errorf("nodes: %v, %v", nodes, err)
	}
	for _, n := range nodes {
		want := map[string]string{id(t, first): "n1", id(t, other): "n2"}[n.ID]
		if diff := cmp.Diff(want, n.Name); diff != "" {
			t.Error(diff)
		}
	}
}

// A node that was forgotten writes nothing any more, neither what was under way nor after a restart, until it is another.
func TestForget(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	m := cluster.New(own, shared, "")
	if !write(t, m, shared) {
		t.Fatal("a member's write was not made")
	}
	was := id(t, m)
	if err := cluster.RemoveNode(t.Context(), shared, was); err != nil {
		t.Fatal(err)
	}
	if write(t, m, shared) {
		t.Error("a node that was forgotten writes")
	}
	own = own.Reopen()
	m = cluster.New(own, shared, "")
	if _, err := m.Cond(t.Context()); !errors.Is(err, cluster.ErrRemoved) {
		t.Errorf("after a restart: %v", err)
	}
	if err := m.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if id(t, m) == was || !write(t, m, shared) {
		t.Error("it does not come back as another one")
	}
	if err := cluster.RemoveNode(t.Context(), shared, was); err != nil {
		t.Errorf("forgotten twice: %v", err)
	}
	if err := cluster.RemoveNode(t.Context(), shared, "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("nobody was forgotten: %v", err)
	}
	if nodes, err := cluster.Nodes(t.Context(), shared); err != nil || len(nodes) != 2 || nodes[0].Lost == nodes[1].Lost {
		t.Errorf("nodes: %v, %v", nodes, err)
	}
	// In another ledger nobody has said anything of it.
	elsewhere := store.NewMemory()
	if !write(t, cluster.New(own.Reopen(), elsewhere, ""), elsewhere) {
		t.Error("it does not join another ledger")
	}
}

// Whatever answers are lost, a node joins once and knows that it did.
func TestJoinThroughFaults(t *testing.T) {
	for seed := range uint64(300) {
		own, under := store.NewMemory(), store.NewMemory()
		far := storetest.NewFaults(under, seed, 0.5)
		for range 4 { // processes
			own = own.Reopen()
			m := cluster.New(own, far, "")
			_, _ = m.Cond(t.Context()) // it may not get through
		}
		if err := far.Calm(t.Context()); err != nil {
			t.Fatal(err)
		}
		if m := cluster.New(own, far, ""); !write(t, m, far) {
			t.Errorf("seed %d: the node's writes are not made", seed)
		}
	}
}

// remembering is a ledger that knows its own past.
type remembering struct {
	*store.Memory
	past []byte
}

func (r *remembering) Watermark() []byte              { return r.past }
func (r *remembering) SetWatermark(past []byte) error { r.past = past; return nil }

// What a node has seen outlives its process until an operator accepts less.
func TestPast(t *testing.T) {
	own := store.NewMemory()
	shared := &remembering{store.NewMemory(), nil}
	if err := errors.Join(cluster.LoadWatermark(t.Context(), own, shared), cluster.SaveWatermark(t.Context(), own, shared)); err != nil {
		t.Fatal(err)
	}
	for _, past := range []string{"5", "7", "7"} {
		shared.past = []byte(past)
		if err := cluster.SaveWatermark(t.Context(), own, shared); err != nil {
			t.Fatal(err)
		}
	}
	next := &remembering{store.NewMemory(), nil}
	if err := cluster.LoadWatermark(t.Context(), own, next); err != nil || string(next.past) != "7" {
		t.Errorf("recalled %q, %v", next.past, err)
	}
	if err := cluster.ClearWatermark(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	last := &remembering{store.NewMemory(), nil}
	if err := cluster.LoadWatermark(t.Context(), own, last); err != nil || last.past != nil {
		t.Errorf("recalled %q, %v", last.past, err)
	}
}
