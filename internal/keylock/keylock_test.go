package keylock

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// checkEmpty fails the test if the map remembers a key that is neither held nor waited for.
func checkEmpty(t *testing.T, m *Map) {
	t.Helper()
	if len(m.locks) != 0 {
		t.Errorf("%d keys are left in the map", len(m.locks))
	}
}

// TestLockOrder: waiters get the lock in the order in which they came; one that gives up is skipped.
func TestLockOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Map
		unlockFirst, err := m.Lock(t.Context(), "pf")
		if err != nil {
			t.Fatal(err)
		}
		impatient, giveUp := context.WithCancel(t.Context())
		var order []int
		for i := range 9 {
			ctx := t.Context()
			if i == 4 {
				ctx = impatient
			}
			go func() {
				unlock, err := m.Lock(ctx, "pf")
				if i == 4 {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("the waiter whose context ended got %v", err)
					}
					return
				}
				order = append(order, i)
				unlock()
			}()
			synctest.Wait()
		}
		giveUp()
		synctest.Wait()
		if _, ok := m.TryLock("pf"); ok {
			t.Error("TryLock took a lock that is held")
		}
		unlockFirst()
		synctest.Wait()
		if want := []int{0, 1, 2, 3, 5, 6, 7, 8}; !slices.Equal(order, want) {
			t.Errorf("the waiters had the lock in the order %v, want %v", order, want)
		}
		checkEmpty(t, &m)
	})
}

// TestRLock: readers hold a lock together, but none overtakes a writer that waits. When that writer gives up, the readers behind it go on.
func TestRLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m Map
		var mu sync.Mutex // guards held and unlock: readers take the lock at the same time
		var held []string // in the order in which the locks were taken
		unlock := map[string]func(){}
		start := func(ctx context.Context, name string, lock func(context.Context, string) (func(), error)) {
			go func() {
				u, err := lock(ctx, "pf")
				if err == nil {
					mu.Lock()
					defer mu.Unlock()
					held, unlock[name] = append(held, name), u
				}
			}()
			synctest.Wait()
		}
		want := func(names ...string) {
			t.Helper()
			synctest.Wait()
			// Readers that get the lock together run in any order.
			if got := slices.Sorted(slices.Values(held)); !slices.Equal(got, slices.Sorted(slices.Values(names))) {
				t.Fatalf("%v have taken the lock, want %v", held, names)
			}
		}
		start(t.Context(), "reader 1", m.RLock)
		start(t.Context(), "reader 2", m.RLock)
		want("reader 1", "reader 2")
		if _, ok := m.TryLock("pf"); ok {
			t.Fatal("TryLock took a lock that two readers hold")
		}
		start(t.Context(), "writer", m.Lock)
		start(t.Context(), "reader 3", m.RLock)
		start(t.Context(), "reader 4", m.RLock)
		unlock["reader 1"]()
		want("reader 1", "reader 2")
		unlock["reader 2"]()
		want("reader 1", "reader 2", "writer")
		unlock["writer"]()
		want("reader 1", "reader 2", "writer", "reader 3", "reader 4")
		impatient, giveUp := context.WithCancel(t.Context())
		start(impatient, "writer 2", m.Lock)
		start(t.Context(), "reader 5", m.RLock)
		want("reader 1", "reader 2", "writer", "reader 3", "reader 4")
		giveUp()
		want("reader 1", "reader 2", "writer", "reader 3", "reader 4", "reader 5")
		for _, name := range []string{"reader 3", "reader 4", "reader 5"} {
			unlock[name]()
		}
		checkEmpty(t, &m)
	})
}

// TestLockFreeWithEndedContext: a free lock is taken although the context has ended, a held one is not waited for.
func TestLockFreeWithEndedContext(t *testing.T) {
	var m Map
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	unlock, err := m.Lock(ctx, "pf")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.RLock(ctx, "pf"); !errors.Is(err, context.Canceled) {
		t.Errorf("RLock of a held lock returned %v, want %v", err, context.Canceled)
	}
	unlock()
	unlock, ok := m.TryLock("pf")
	if !ok {
		t.Fatal("TryLock did not take a free lock")
	}
	unlock()
	checkEmpty(t, &m)
}

// TestLockAll: LockAll holds each key once, and none after an error.
func TestLockAll(t *testing.T) {
	var m Map
	unlock, err := LockAll(t.Context(), []string{"b", "a", "b"}, m.Lock)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := LockAll(ctx, []string{"0", "a", "c"}, m.Lock); !errors.Is(err, context.Canceled) {
		t.Errorf("LockAll with a held key returned %v, want %v", err, context.Canceled)
	}
	for _, key := range []string{"0", "c"} {
		u, ok := m.TryLock(key)
		if !ok {
			t.Fatalf("key %q is still locked after LockAll failed", key)
		}
		u()
	}
	unlock()
	checkEmpty(t, &m)
}
