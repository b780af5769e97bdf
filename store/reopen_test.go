package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// TestReopen: a store that cannot be opened at first is opened later, and calls fail with the last reason until then.
func TestReopen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reason := errors.New("ledger /data/ledger.db: lock: still locked")
		tries := 0
		var reports []error
		s := store.Reopen(func() (store.Store, error) {
			if tries++; tries < 4 {
				return nil, reason
			}
			return store.NewMemory(), nil
		}, func(err error) { reports = append(reports, err) })
		synctest.Wait()
		_, err := s.Get(t.Context(), "key")
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, reason) || err.Error() != reason.Error() {
			t.Errorf("before it can be opened Get returns %v, want %v", err, reason)
		}
		time.Sleep(5 * time.Second) // of the bubble
		storetest.Put(t, s, "key", "value")
		synctest.Wait()
		if len(reports) != 2 || reports[0] != reason || reports[1] != nil || tries != 4 {
			t.Errorf("%d tries, reported %v; want 4, the reason once and nil", tries, reports)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := s.Get(t.Context(), "key"); !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("after Close Get returns %v", err)
		}
	})
}

// TestReopenGivesUp: an error that does not go away by itself is not retried, nor is a closed store.
func TestReopenGivesUp(t *testing.T) {
	for name, c := range map[string]struct {
		err    error
		closed bool
		want   int
	}{
		"damaged":           {store.ErrCorrupt, false, 1},
		"newer":             {store.ErrNewer, false, 1},
		"disk full":         {errors.New("disk full"), false, 61},
		"disk full, closed": {errors.New("disk full"), true, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			tries, reports := 0, 0
			s := store.Reopen(func() (store.Store, error) { tries++; return nil, c.err }, func(error) { reports++ })
			synctest.Wait()
			if c.closed {
				_ = s.Close() // there is no store to close
			}
			time.Sleep(time.Minute + 500*time.Millisecond) // of the bubble
			_ = s.Close()
			synctest.Wait()
			if tries != c.want || reports != 1 {
				t.Errorf("%s: %d tries and %d reports; want %d and 1", name, tries, reports, c.want)
			}
			if _, err := s.Get(t.Context(), "key"); !errors.Is(err, c.err) {
				t.Errorf("%s: Get returns %v", name, err)
			}
		})
	}
}

// TestReopenWaits: calls wait for the first attempt as long as their contexts last. Close ends the wait, waits for the attempt, and closes
// what it has opened.
func TestReopenWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		memory := store.NewMemory()
		s := store.Reopen(func() (store.Store, error) { <-open; return memory, nil }, func(error) {})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := s.Get(ctx, "key")
		const want = "the plugin is still opening its ledger: context deadline exceeded; try again"
		if !errors.Is(err, store.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) || err.Error() != want {
			t.Errorf("Get returns %v, want %s", err, want)
		}
		answer, closed := make(chan error, 1), make(chan error, 1)
		go func() { _, err := s.Get(t.Context(), "key"); answer <- err }()
		synctest.Wait()
		go func() { closed <- s.Close() }()
		if err := <-answer; !errors.Is(err, store.ErrClosed) {
			t.Errorf("a call that waits when the store is closed returns %v", err)
		}
		synctest.Wait()
		select {
		case <-closed:
			t.Error("Close did not wait for the attempt")
		default:
		}
		close(open)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if _, err := memory.Get(t.Context(), "key"); !errors.Is(err, store.ErrClosed) {
			t.Errorf("what was opened during Close is not closed: %v", err)
		}
	})
}

// TestReopenSuccess: calls that come before the store is open are answered by it.
func TestReopenSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		s := store.Reopen(func() (store.Store, error) { <-open; return store.NewMemory(), nil }, func(err error) {
			t.Errorf("reported %v", err)
		})
		answer := make(chan error, 1)
		go func() { _, err := s.Get(t.Context(), "key"); answer <- err }()
		synctest.Wait()
		close(open)
		if err := <-answer; !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get returns %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestTimed: each request is told with its error; an absent key and an error of the caller's own function are none.
func TestTimed(t *testing.T) {
	var told []string
	s := store.Reopen(func() (store.Store, error) { return store.NewMemory(), nil }, func(error) {})
	s.Timed(func(op string, _ time.Duration, err error) { told = append(told, fmt.Sprint(op, " ", err)) })
	ctx := context.Background()
	if _, err := s.Txn(ctx, nil, []store.Op{store.Put("a", nil)}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "b"); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
	stop := errors.New("enough")
	if err := s.Range(ctx, "", func(store.KV) error { return stop }); !errors.Is(err, stop) {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(ctx, "a"); err == nil {
		t.Error("a closed store answers")
	}
	want := "txn <nil>, get <nil>, range <nil>, get ledger unavailable: the ledger is closed"
	if got := strings.Join(told, ", "); got != want {
		t.Errorf("%s; want %s", got, want)
	}
}
