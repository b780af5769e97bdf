package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/storetest"
)

// heldBy is how these tests write the holder into a value: "NODE/what else".
func heldBy(node string, value []byte) bool { return bytes.HasPrefix(value, []byte(node+"/")) }

// lease is the key of address i.
func lease(i uint64) string { return fmt.Sprintf("lease/%04d", i) }

// from lists n addresses, beginning at a node's own place.
func from(node string, n uint64) iter.Seq[string] {
	start := cluster.Start(node, "pool", n)
	return func(yield func(string) bool) {
		for i := range n {
			if !yield(lease((start + i) % n)) {
				return
			}
		}
	}
}

// join makes a member.
func join(t *testing.T, own, shared store.Store) *cluster.Node {
	t.Helper()
	n, err := cluster.Join(t.Context(), own, shared, heldBy)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// claim claims an address that must be free.
func claim(t *testing.T, n *cluster.Node, size uint64) string {
	t.Helper()
	kv, err := n.Claim(t.Context(), from(n.ID, size), []byte(n.ID+"/x"))
	if err != nil {
		t.Fatal(err)
	}
	return kv.Key
}

func TestIdentityStays(t *testing.T) {
	own := store.NewMemory()
	first, err := cluster.Identity(t.Context(), own)
	if err != nil || len(first) < 20 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := cluster.Identity(t.Context(), own); err != nil || again != first {
		t.Errorf("%q, %v, want %q", again, err, first)
	}
	if other, err := cluster.Identity(t.Context(), store.NewMemory()); err != nil || other == first {
		t.Errorf("another node has the same identity, %v", err)
	}
}

func TestClaimAndRelease(t *testing.T) {
	shared := store.NewMemory()
	a, b := join(t, store.NewMemory(), shared), join(t, store.NewMemory(), shared)
	one, two := claim(t, a, 2), claim(t, b, 2)
	if one == two {
		t.Errorf("both have %s", one)
	}
	if _, err := b.Claim(t.Context(), from(b.ID, 2), []byte(b.ID+"/x")); !errors.Is(err, cluster.ErrTaken) {
		t.Errorf("a third claim of two: %v", err)
	}
	if err := b.Release(t.Context(), one); !errors.Is(err, cluster.ErrNotHeld) {
		t.Errorf("release of what another holds: %v", err)
	}
	if err := a.Release(t.Context(), one); err != nil {
		t.Error(err)
	}
	if err := a.Release(t.Context(), one); !errors.Is(err, cluster.ErrNotHeld) {
		t.Errorf("release of what nobody holds: %v", err)
	}
	if got := claim(t, b, 2); got != one {
		t.Errorf("got %s, want the one that was released, %s", got, one)
	}
}

// Nothing is claimed of a pool that has changed, whether the address is free or not.
func TestClaimUnderACondition(t *testing.T) {
	shared := store.NewMemory()
	a := join(t, store.NewMemory(), shared)
	r, err := shared.Txn(t.Context(), nil, []store.Op{store.Put("pool", nil)})
	if err != nil {
		t.Fatal(err)
	}
	pool := store.Cond{Key: "pool", Rev: r.Rev}
	if _, err := a.Claim(t.Context(), from(a.ID, 2), []byte(a.ID+"/1"), pool); err != nil {
		t.Error(err)
	}
	if _, err := shared.Txn(t.Context(), nil, []store.Op{store.Del("pool")}); err != nil {
		t.Fatal(err)
	}
	_, err = a.Claim(t.Context(), from(a.ID, 2), []byte(a.ID+"/2"), pool)
	if !errors.Is(err, cluster.ErrChanged) || err.Error() != "record pool: changed meanwhile" {
		t.Errorf("claim of a pool that is gone: %v", err)
	}
	if err := a.Fill(t.Context(), from(a.ID, 2), 1, every, fresh(a), pool); !errors.Is(err, cluster.ErrChanged) {
		t.Errorf("reserve of a pool that is gone: %v", err)
	}
}

// A release while the shared store is away counts, outlives the process, and frees nothing before it is delivered.
func TestReleaseIsQueued(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	far := storetest.NewFaults(shared, 1, 0)
	a, b := join(t, own, far), join(t, store.NewMemory(), shared)
	key := claim(t, a, 1)
	far.Away(true)
	if err := a.Release(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := a.Deliver(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("delivered to nobody: %v", err)
	}
	if _, err := b.Claim(t.Context(), from(b.ID, 1), nil); !errors.Is(err, cluster.ErrTaken) {
		t.Errorf("claim of what is not released yet: %v", err)
	}
	own = own.Reopen()
	a = join(t, own, far) // it is still away
	if diff := cmp.Diff([]string{key}, a.Queued()); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	far.Away(false)
	if err := a.Deliver(t.Context()); err != nil || len(a.Queued()) != 0 {
		t.Errorf("deliver: %v, left %q", err, a.Queued())
	}
	claim(t, b, 1)
	// Delivered again, as after a crash in between, it does not take away what another has got meanwhile.
	put := []store.Op{store.Put("cluster/errand/"+key+"/x", nil)}
	if _, err := own.Txn(t.Context(), nil, put); err != nil {
		t.Fatal(err)
	}
	if err := join(t, own, shared).Deliver(t.Context()); err != nil {
		t.Error(err)
	}
	if kv, err := shared.Get(t.Context(), key); err != nil || !heldBy(b.ID, kv.Value) {
		t.Errorf("%s: %q, %v", key, kv.Value, err)
	}
}

// Claiming what is queued for release delivers it first, so that it cannot end the new claim.
func TestClaimOfWhatIsQueued(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	far := storetest.NewFaults(shared, 1, 0)
	a := join(t, own, far)
	key := claim(t, a, 1)
	far.Away(true)
	if err := a.Release(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	far.Away(false)
	claim(t, a, 1)
	if err := a.Deliver(t.Context()); err != nil {
		t.Error(err)
	}
	if kv, err := shared.Get(t.Context(), key); err != nil || !heldBy(a.ID, kv.Value) {
		t.Errorf("%s: %q, %v", key, kv.Value, err)
	}
}

// A node that was declared lost can write nothing more, not after a restart either.
func TestForget(t *testing.T) {
	own, shared := store.NewMemory(), store.NewMemory()
	a := join(t, own, shared)
	key := claim(t, a, 2)
	if err := cluster.Forget(t.Context(), shared, a.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Claim(t.Context(), from(a.ID, 2), nil); !errors.Is(err, cluster.ErrForgotten) {
		t.Errorf("claim: %v", err)
	}
	if err := a.Release(t.Context(), key); !errors.Is(err, cluster.ErrForgotten) {
		t.Errorf("release: %v", err)
	}
	if _, err := join(t, own, shared).Claim(t.Context(), from(a.ID, 2), nil); !errors.Is(err, cluster.ErrForgotten) {
		t.Errorf("claim after a restart: %v", err)
	}
	if err := cluster.Forget(t.Context(), shared, "nobody"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("forget nobody: %v", err)
	}
}

// Nodes begin at places of their own, all inside of the pool and all at multiples of the same unit.
func TestStart(t *testing.T) {
	places := map[uint64]int{}
	for i := range 64 {
		s := cluster.Start(fmt.Sprintf("node%d", i), "pool", 1<<16)
		if s >= 1<<16 || s%64 != 0 || s != cluster.Start(fmt.Sprintf("node%d", i), "pool", 1<<16) {
			t.Errorf("node%d starts at %d", i, s)
		}
		places[s]++
	}
	if len(places) < 60 {
		t.Errorf("64 nodes start at only %d places", len(places))
	}
	for n := range uint64(200) {
		if s := cluster.Start("a", "b", n); n > 0 && s >= n || n == 0 && s != 0 {
			t.Errorf("of %d it starts at %d", n, s)
		}
	}
}

// site is a node with what its engine knows it has.
type site struct {
	own  *store.Memory
	far  *storetest.Faults
	node *cluster.Node
	has  map[string]bool
}

// TestNoAddressTwiceNoneLost: three nodes claim, release, restart and lose the store in any order, with half of all
// answers lost, and some of them have a reserve. No address is held by two, and in the end each is held by the one who knows
// it or by nobody.
func TestNoAddressTwiceNoneLost(t *testing.T) {
	const size = 16
	for seed := range uint64(400) {
		rng, shared := rand.New(rand.NewPCG(seed, 1)), store.NewMemory()
		var sites []*site
		reserves := 0
		for i := range uint64(3) {
			s := &site{own: store.NewMemory(), far: storetest.NewFaults(shared, seed*3+i, 0.5), has: map[string]bool{}}
			name := []store.Op{store.Put("cluster/node", fmt.Appendf(nil, "node%d", i))} // so that a seed replays
			if _, err := s.own.Txn(t.Context(), nil, name); err != nil {
				t.Fatal(err)
			}
			s.restart(t)
			sites = append(sites, s)
		}
		for step := range 300 {
			s := sites[rng.IntN(len(sites))]
			switch rng.IntN(10) {
			case 0:
				s.restart(t)
			case 1:
				s.far.Away(rng.IntN(2) == 0)
			case 2, 3:
				_ = s.node.Deliver(t.Context()) // it may not get through now
			case 4, 5, 6:
				s.release(t, rng)
			case 7:
				_ = s.node.Fill(t.Context(), from(s.node.ID, size), 2, every, func() []byte {
					reserves++
					return fmt.Appendf(nil, "%s/reserve%d", s.node.ID, reserves)
				}) // it may be full or away now
			case 8:
				key, err := s.node.Draw(t.Context(), every, fmt.Appendf(nil, "%s/%d", s.node.ID, step))
				s.gave(t, seed, sites, key, err)
			default:
				value := fmt.Appendf(nil, "%s/%d", s.node.ID, step)
				kv, err := s.node.Claim(t.Context(), from(s.node.ID, size), value)
				s.gave(t, seed, sites, kv.Key, err)
			}
		}
		settled(t, seed, shared, sites)
	}
}

// gave notes what was given, which nobody may have.
func (s *site) gave(t *testing.T, seed uint64, sites []*site, key string, err error) {
	t.Helper()
	if err != nil {
		return
	}
	for _, other := range sites {
		if other.has[key] {
			t.Fatalf("seed %d: %s was given twice", seed, key)
		}
	}
	s.has[key] = true
}

// restart opens the node again on its ledger.
func (s *site) restart(t *testing.T) {
	t.Helper()
	s.own = s.own.Reopen()
	s.node = join(t, s.own, s.far)
}

// release ends one of the holds.
func (s *site) release(t *testing.T, rng *rand.Rand) {
	t.Helper()
	keys := make([]string, 0, len(s.has))
	for key := range s.has {
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return
	}
	slices.Sort(keys)
	key := keys[rng.IntN(len(keys))]
	if err := s.node.Release(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	delete(s.has, key)
}

// settled ends the trouble and compares what is held with what is known.
func settled(t *testing.T, seed uint64, shared store.Store, sites []*site) {
	t.Helper()
	want, got := map[string]string{}, map[string]string{}
	for _, s := range sites {
		if err := s.far.Calm(context.Background()); err != nil {
			t.Fatal(err)
		}
		if err := s.node.Deliver(t.Context()); err != nil || len(s.node.Queued()) > 0 {
			t.Fatalf("seed %d: deliver: %v, left %q", seed, err, s.node.Queued())
		}
		for _, key := range s.node.Reserved(every) {
			want[key] = s.node.ID
		}
		for key := range s.has {
			want[key] = s.node.ID
		}
	}
	err := shared.Range(t.Context(), "lease/", func(kv store.KV) error {
		node, _, _ := bytes.Cut(kv.Value, []byte("/"))
		got[kv.Key] = string(node)
		return nil
	})
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("seed %d: %v: held (-known +held):\n%s", seed, err, diff)
	}
}
