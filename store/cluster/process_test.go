package cluster_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/storetest"
)

// process returns the member of a new process on a machine.
func process(own, shared store.Store, machine cluster.Machine) *cluster.Member {
	m := cluster.New(own, shared, "host-"+machine.ID)
	m.OnMachine(machine)
	return m
}

// copied returns a store with the records of another one.
func copied(t *testing.T, from store.Store) *store.Memory {
	t.Helper()
	to := store.NewMemory()
	err := from.Range(t.Context(), "", func(kv store.KV) error {
		_, err := to.Txn(t.Context(), nil, []store.Op{store.Put(kv.Key, kv.Value)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return to
}

// wantElsewhere checks that a process may not write.
func wantElsewhere(t *testing.T, m *cluster.Member) error {
	t.Helper()
	_, err := m.Cond(t.Context())
	if !errors.Is(err, cluster.ErrElsewhere) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("error %v, want one that says that the node is elsewhere", err)
	}
	return err
}

// TestProcessTakesOver: a later process of the same machine, or of one that cannot be told from it, is the node at once. No write of the
// former one is applied any more, and it does not take the place back.
func TestProcessTakesOver(t *testing.T) {
	for name, c := range map[string]struct{ first, second cluster.Machine }{
		"same hardware":    {cluster.Machine{ID: "a", Boot: "1"}, cluster.Machine{ID: "a", Boot: "2"}},
		"same boot":        {cluster.Machine{ID: "a", Boot: "1"}, cluster.Machine{ID: "b", Boot: "1"}},
		"unknown hardware": {cluster.Machine{Boot: "1"}, cluster.Machine{Boot: "2"}},
		"known since":      {cluster.Machine{}, cluster.Machine{ID: "a", Boot: "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			own, shared := store.NewMemory(), store.NewMemory()
			first := process(own, shared, c.first)
			stale, err := first.Cond(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			second := process(own.Reopen(), shared, c.second)
			if !write(t, second, shared) {
				t.Error("a write of the second process was not applied")
			}
			if write(t, first, shared) {
				t.Error("a write of the first process was applied")
			}
			if _, err := first.Refresh(t.Context(), stale); !errors.Is(err, cluster.ErrElsewhere) {
				t.Errorf("the first process: %v", err)
			}
			wantElsewhere(t, first)
			if !write(t, second, shared) {
				t.Error("the first process took the place back")
			}
		})
	}
}

// TestCopiedDisk: a process on another machine is refused with the reason, until an operator says that the disk was moved, or that it is a copy.
// The record of the member stays as older versions have it.
func TestCopiedDisk(t *testing.T) { storyOfCopiedDisk(t, store.NewMemory()) }

// storyOfCopiedDisk is TestCopiedDisk on a shared store.
func storyOfCopiedDisk(t *testing.T, shared store.Store) {
	own := store.NewMemory()
	original := process(own, shared, cluster.Machine{ID: "a", Boot: "1"})
	if !write(t, original, shared) {
		t.Fatal("a member's write was not applied")
	}
	image := copied(t, own)
	clone := process(image, shared, cluster.Machine{ID: "b", Boot: "2"})
	err := wantElsewhere(t, clone)
	for _, text := range []string{id(t, original), `host "host-a"`, "driver accept", "driver renew"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("error %v, want it to have %q", err, text)
		}
	}
	if err := clone.CheckMachine(t.Context()); !errors.Is(err, cluster.ErrElsewhere) {
		t.Errorf("without the shared store: %v", err)
	}
	if err := original.CheckMachine(t.Context()); err != nil {
		t.Error(err)
	}
	if !write(t, original, shared) {
		t.Error("a write of the original was not applied")
	}
	kv, err := shared.Get(t.Context(), "cluster/member/"+id(t, original))
	if err != nil || string(kv.Value) != "1 up host-a" {
		t.Errorf("the member's record is %q, %v", kv.Value, err)
	}

	// the copy becomes a node of its own
	renewed := copied(t, image)
	if err := cluster.ForgetIdentity(t.Context(), renewed); err != nil {
		t.Fatal(err)
	}
	other := process(renewed, shared, cluster.Machine{ID: "b", Boot: "2"})
	if !write(t, other, shared) || !write(t, original, shared) || id(t, other) == id(t, original) {
		t.Error("after renew the two machines are not two nodes")
	}

	// the disk was moved
	if err := cluster.AcceptMachine(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	moved := process(image, shared, cluster.Machine{ID: "b", Boot: "2"})
	if !write(t, moved, shared) {
		t.Error("a write of the machine that was accepted was not applied")
	}
	if write(t, original, shared) {
		t.Error("a write of the original was applied")
	}
	wantElsewhere(t, process(own, shared, cluster.Machine{ID: "a", Boot: "1"}))
	if !write(t, process(image, shared, cluster.Machine{ID: "b", Boot: "3"}), shared) {
		t.Error("after its next boot it is refused")
	}
}

// TestTakeOverThroughFaults: a process becomes the node once, and knows that it did, whatever answers are lost.
func TestTakeOverThroughFaults(t *testing.T) {
	for seed := range uint64(300) {
		own, under := store.NewMemory(), store.NewMemory()
		if !write(t, process(own, under, cluster.Machine{ID: "a"}), under) {
			t.Fatal("a member's write was not applied")
		}
		far := storetest.NewFaults(under, seed, 0.5)
		m := process(own, far, cluster.Machine{ID: "a"})
		for range 4 {
			_, _ = m.Cond(t.Context()) // it may not get through
		}
		if err := far.Calm(t.Context()); err != nil {
			t.Fatal(err)
		}
		cond, err := m.Cond(t.Context())
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if _, err := m.Refresh(t.Context(), cond); err != nil || !write(t, m, far) {
			t.Errorf("seed %d: %v, or its write was not applied", seed, err)
		}
	}
}

// TestThisMachine: the machine is known by its hardware, which other nodes cannot read from it.
func TestThisMachine(t *testing.T) {
	root := t.TempDir()
	if got := cluster.ThisMachine(root); got != (cluster.Machine{}) {
		t.Errorf("an unknown machine is %+v", got)
	}
	for file, text := range map[string]string{"proc/sys/kernel/random/boot_id": "boot\n", "sys/class/dmi/id/product_uuid": "uuid\n"} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if got := cluster.ThisMachine(root); got.Boot != "boot" || len(got.ID) != 32 || strings.Contains(got.ID, "uuid") {
		t.Errorf("the machine is %+v", got)
	}
}
