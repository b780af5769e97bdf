package store_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opener {
		m := store.NewMemory()
		return func(*testing.T) store.Store {
			m = m.Reopen()
			return m
		}
	})
}

func TestMemoryWatch(t *testing.T) {
	storetest.RunWatcher(t, func(*testing.T) storetest.Opener {
		return func(*testing.T) store.Store { return store.NewMemory() }
	})
}

// TestMemoryCompacted: a watch that is too far behind is told so, and one that is not gets all changes.
func TestMemoryCompacted(t *testing.T) {
	m := store.NewMemory()
	const writes = 5000
	var at [writes + 1]int64
	for i := range at {
		r, err := m.Txn(t.Context(), nil, []store.Op{store.Put("k", fmt.Append(nil, i))})
		if err != nil {
			t.Fatal(err)
		}
		at[i] = r.Rev
	}
	watch := func(behind int) (told int, err error) {
		enough := errors.New("enough")
		err = m.Watch(t.Context(), "k", at[writes-behind], func(store.Changes) error {
			if told++; told == behind {
				return enough
			}
			return nil
		})
		if errors.Is(err, enough) {
			err = nil
		}
		return told, err
	}
	if told, err := watch(1000); told != 1000 || err != nil {
		t.Errorf("1,000 changes behind: told %d, %v", told, err)
	}
	if told, err := watch(writes); told != 0 || !errors.Is(err, store.ErrCompacted) {
		t.Errorf("%d changes behind: told %d, %v", writes, told, err)
	}
}

// A Crash that never crashes behaves like any store.
func TestCrashNever(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opener {
		m := store.NewMemory()
		return func(*testing.T) store.Store {
			m = m.Reopen()
			return closing{storetest.NewCrash(m, 0, storetest.Lost), m}
		}
	})
}

// Faults with probability 0 behave like any store.
func TestFaultsNever(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opener {
		m := store.NewMemory()
		return func(*testing.T) store.Store {
			m = m.Reopen()
			return storetest.NewFaults(m, 1, 0)
		}
	})
}

// A delayed transaction is applied later, unless it is fenced before.
func TestFaultsLate(t *testing.T) {
	applied := map[bool]int{}
	for seed := range uint64(400) {
		m := store.NewMemory()
		f := storetest.NewFaults(m, seed, 0.9)
		_, err := f.Txn(store.WithToken(t.Context(), "token"), nil, []store.Op{store.Put("a", nil)})
		if !errors.Is(err, store.ErrAmbiguous) {
			continue
		}
		fence := seed%2 == 0
		for fence && store.Fence(t.Context(), f, "token") != nil {
		}
		_, before := m.Get(t.Context(), "a")
		if err := f.Calm(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, after := m.Get(t.Context(), "a")
		if fence && errors.Is(before, store.ErrNotFound) != errors.Is(after, store.ErrNotFound) {
			t.Errorf("seed %d: it was applied after the fence", seed)
		}
		if before != nil && after == nil {
			applied[fence]++
		}
	}
	if applied[false] == 0 {
		t.Error("nothing was ever applied late")
	}
}

// closing closes what a Crash leaves open.
type closing struct {
	*storetest.Crash
	under store.Store
}

func (c closing) Close() error { return c.under.Close() }

func TestCrash(t *testing.T) {
	for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
		t.Run(fate.String(), func(t *testing.T) {
			m := store.NewMemory()
			c := storetest.NewCrash(m, 2, fate)
			storetest.Put(t, c, "a", "1")
			_, err := c.Txn(t.Context(), nil, []store.Op{store.Put("a", []byte("2"))})
			if errors.Is(err, store.ErrAmbiguous) != (fate == storetest.Unanswered) || err == nil || !c.Dead() {
				t.Errorf("Txn: %v, dead %v", err, c.Dead())
			}
			calls := map[string]error{}
			_, calls["Txn"] = c.Txn(t.Context(), nil, nil)
			_, calls["Get"] = c.Get(t.Context(), "a")
			calls["Range"] = c.Range(t.Context(), "", func(store.KV) error { return nil })
			for name, err := range calls {
				if !errors.Is(err, store.ErrUnavailable) {
					t.Errorf("%s after the crash: %v, want ErrUnavailable", name, err)
				}
			}
			want := map[storetest.Fate]string{storetest.Lost: "1", storetest.Unanswered: "2"}[fate]
			if kv, err := m.Get(t.Context(), "a"); err != nil || string(kv.Value) != want {
				t.Errorf("a = %q, %v, want %q", kv.Value, err, want)
			}
		})
	}
}

func TestUnavailable(t *testing.T) {
	cause := errors.New("ledger /data/ledger.db: open: no such disk")
	s := store.Unavailable(cause)
	calls := map[string]error{}
	_, calls["Txn"] = s.Txn(t.Context(), nil, nil)
	_, calls["Get"] = s.Get(t.Context(), "a")
	calls["Range"] = s.Range(t.Context(), "", nil)
	for name, err := range calls {
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, cause) || errors.Is(err, store.ErrNotFound) {
			t.Errorf("%s: %v, want ErrUnavailable and the cause", name, err)
		}
		if err.Error() != cause.Error() {
			t.Errorf("%s: %q, want %q", name, err, cause)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := store.Unavailable(nil).Get(context.Background(), "a"); err == nil || err.Error() != "ledger unavailable" {
		t.Errorf("without a cause: %v", err)
	}
}
