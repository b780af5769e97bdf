package cluster_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/storetest"
)

// id returns a member's ID.
func id(t *testing.T, m *cluster.Member) string {
	t.Helper()
	id, err := m.ID(t.Context())
	if err != nil || len(id) < 20 {
		t.Fatalf("%q, %v", id, err)
	}
	return id
}

// write makes a write under the member's condition, and returns whether it was applied.
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

// TestIdentityStays: a node keeps its ID over a restart, and another node has another one.
func TestIdentityStays(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	first := cluster.New(own, shared, "n1")
	if !write(t, first, shared) {
		t.Error("a member's write was not applied")
	}
	again := cluster.New(own.Reopen(), shared, "n1")
	if id(t, again) != id(t, first) || !write(t, again, shared) {
		t.Errorf("after a restart the ID is %s, was %s, or its write was not applied", id(t, again), id(t, first))
	}
	other := cluster.New(store.NewMemory(), shared, "n2")
	if id(t, other) == id(t, first) || !write(t, other, shared) {
		t.Error("another node has the same ID, or its write was not applied")
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

// counted counts the requests to a store.
type counted struct {
	store.Store
	gets, txns int
}

// Get implements [store.Store].
func (c *counted) Get(ctx context.Context, key string) (store.KV, error) {
	c.gets++
	return c.Store.Get(ctx, key)
}

// Txn implements [store.Store].
func (c *counted) Txn(ctx context.Context, conds []store.Cond, ops []store.Op) (store.Result, error) {
	c.txns++
	return c.Store.Txn(ctx, conds, ops)
}

// TestJoinRequests: what a node needs to become a member, before its first write, is few requests, one after the other: many nodes may do it at
// once, after a power failure.
func TestJoinRequests(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	for _, c := range []struct {
		when       string
		gets, txns int
	}{{"a new node", 2, 2}, {"after a restart", 2, 1}} {
		far := &counted{Store: shared}
		if _, err := cluster.New(own, far, "n").Cond(t.Context()); err != nil {
			t.Fatal(err)
		}
		if far.gets != c.gets || far.txns != c.txns {
			t.Errorf("%s: %d reads and %d transactions, want %d and %d", c.when, far.gets, far.txns, c.gets, c.txns)
		}
		own = own.Reopen()
	}
}

// TestRemoveNode: no write of a removed node is applied, neither one in flight nor one after a restart, until the node has a new ID.
func TestRemoveNode(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	m := cluster.New(own, shared, "")
	if !write(t, m, shared) {
		t.Fatal("a member's write was not applied")
	}
	was := id(t, m)
	if err := cluster.RemoveNode(t.Context(), shared, was); err != nil {
		t.Fatal(err)
	}
	if write(t, m, shared) {
		t.Error("a write of a removed node was applied")
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
		t.Error("after Renew the node has the old ID, or its write was not applied")
	}
	if err := cluster.RemoveNode(t.Context(), shared, was); err != nil {
		t.Errorf("removed twice: %v", err)
	}
	if err := cluster.RemoveNode(t.Context(), shared, "unknown"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removal of an unknown node: %v", err)
	}
	if nodes, err := cluster.Nodes(t.Context(), shared); err != nil || len(nodes) != 2 || nodes[0].Lost == nodes[1].Lost {
		t.Errorf("nodes: %v, %v", nodes, err)
	}
	// In another shared store the node was not removed.
	elsewhere := store.NewMemory()
	if !write(t, cluster.New(own.Reopen(), elsewhere, ""), elsewhere) {
		t.Error("it does not join another shared store")
	}
}

// TestJoinThroughFaults: a node joins once, and knows that it did, whatever answers are lost.
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
			t.Errorf("seed %d: the node's write was not applied", seed)
		}
	}
}

// keysUnder lists the keys of a store.
func keysUnder(t *testing.T, s store.Store, prefix string) (keys []string) {
	t.Helper()
	err := s.Range(t.Context(), prefix, func(kv store.KV) error {
		keys = append(keys, kv.Key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestSee: a node writes once a minute that it runs, with its clock, until it is removed. It is no member's business but that of operators.
func TestSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := store.NewMemory()
		m := cluster.New(store.NewMemory(), shared, "n1")
		if err := m.See(t.Context()); err != nil || len(keysUnder(t, shared, "")) > 0 {
			t.Errorf("before it is a member: %v, %v", err, keysUnder(t, shared, ""))
		}
		if !write(t, m, shared) {
			t.Fatal("a member's write was not applied")
		}
		writes := 0
		for range 60 {
			time.Sleep(10 * time.Second)
			was, _ := shared.Get(t.Context(), "cluster/seen/"+id(t, m))
			if err := m.See(t.Context()); err != nil {
				t.Fatal(err)
			}
			if now, _ := shared.Get(t.Context(), "cluster/seen/"+id(t, m)); now.Rev != was.Rev {
				writes++
			}
		}
		if writes != 10 {
			t.Errorf("%d writes in ten minutes", writes)
		}
		nodes, err := cluster.Nodes(t.Context(), shared)
		if err != nil || len(nodes) != 1 || time.Since(nodes[0].Seen) > cluster.SeenEvery {
			t.Errorf("%+v, %v", nodes, err)
		}
		time.Sleep(time.Hour)
		if nodes, err = cluster.Nodes(t.Context(), shared); err != nil || time.Since(nodes[0].Seen) < time.Hour {
			t.Errorf("an hour later: %+v, %v", nodes, err)
		}
		if err := cluster.RemoveNode(t.Context(), shared, id(t, m)); err != nil {
			t.Fatal(err)
		}
		if err := m.See(t.Context()); err != nil {
			t.Errorf("a removed node: %v", err)
		}
		if nodes, err = cluster.Nodes(t.Context(), shared); err != nil || !nodes[0].Seen.IsZero() {
			t.Errorf("removed: %+v, %v", nodes, err)
		}
	})
}

// detector is a store with a watermark.
type detector struct {
	*store.Memory
	watermark []byte
}

func (d *detector) Watermark() []byte                   { return d.watermark }
func (d *detector) SetWatermark(watermark []byte) error { d.watermark = watermark; return nil }

// TestWatermark: a node's watermark outlives its process, until an operator accepts an older state.
func TestWatermark(t *testing.T) {
	own := store.NewMemory()
	shared := &detector{store.NewMemory(), nil}
	if err := errors.Join(cluster.LoadWatermark(t.Context(), own, shared), cluster.SaveWatermark(t.Context(), own, shared)); err != nil {
		t.Fatal(err)
	}
	for _, watermark := range []string{"5", "7", "7"} {
		shared.watermark = []byte(watermark)
		if err := cluster.SaveWatermark(t.Context(), own, shared); err != nil {
			t.Fatal(err)
		}
	}
	next := &detector{store.NewMemory(), nil}
	if err := cluster.LoadWatermark(t.Context(), own, next); err != nil || string(next.watermark) != "7" {
		t.Errorf("loaded watermark %q, %v", next.watermark, err)
	}
	if err := cluster.ClearWatermark(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	last := &detector{store.NewMemory(), nil}
	if err := cluster.LoadWatermark(t.Context(), own, last); err != nil || last.watermark != nil {
		t.Errorf("loaded watermark %q, %v", last.watermark, err)
	}
}
