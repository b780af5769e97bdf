package store_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/store"
)

// TestLate: a ledger that another process has for a moment is opened when that is over, and nobody has to start anything again.
func TestLate(t *testing.T) {
	path := ledger(t, 1)
	other := mustOpen(t, path)
	told := make(chan error, 10)
	s := store.Late(func() (store.Store, error) { return store.OpenBolt(path, store.LockTimeout(time.Millisecond)) },
		func(err error) { told <- err })
	defer s.Close()
	const why = "ledger ledger.db: lock: still locked after 1ms; another instance of the plugin has it open; stop that one first"
	wantError(t, <-told, store.ErrUnavailable, why)
	_, err := s.Get(t.Context(), "key")
	wantError(t, err, store.ErrUnavailable, why)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-told; err != nil {
		t.Fatalf("told of %v", err)
	}
	put(t, s, "late", "but there")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	again := mustOpen(t, path)
	defer again.Close()
}

// TestLateGivesUp: what nobody can ever open is not tried again, nor what was closed.
func TestLateGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		closed bool
		want   int
	}{
		"damaged":       {store.ErrCorrupt, false, 1},
		"newer":         {store.ErrNewer, false, 1},
		"away":          {errors.New("disk full"), false, 61},
		"away, to stop": {errors.New("disk full"), true, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries, told := 0, 0
			s := store.Late(func() (store.Store, error) { tries++; return nil, c.err }, func(error) { told++ })
			if c.closed {
				_ = s.Close() // there is nothing in it
			}
			time.Sleep(time.Minute + 500*time.Millisecond) // of the bubble's
			_ = s.Close()
			synctest.Wait()
			if tries != c.want || told != 1 {
				t.Errorf("%s: %d tries, told %d times; want %d and 1", name, tries, told, c.want)
			}
			if _, err := s.Get(t.Context(), "key"); !errors.Is(err, c.err) {
				t.Errorf("%s: error is %v", name, err)
			}
		})
	}
}
