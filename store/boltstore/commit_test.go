package boltstore_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// A queued transaction is one that was made to wait, and what became of it.
type queued struct {
	result store.Result
	err    error
}

// A line keeps transactions waiting, in the order in which they came.
type line struct {
	t     *testing.T
	store store.Store
	all   []chan queued
}

// add adds a transaction, and returns once it waits.
func (l *line) add(ctx context.Context, cond store.Cond, then ...store.Op) {
	done := make(chan queued, 1)
	l.all = append(l.all, done)
	before := boltstore.Waiting(l.store)
	go func() {
		r, err := l.store.Txn(ctx, []store.Cond{cond}, then)
		done <- queued{r, err}
	}()
	l.wait(before + 1)
}

// wait waits until n transactions wait.
func (l *line) wait(n int) {
	err := retry.Poll(l.t.Context(), time.Millisecond, math.MaxInt64, func() (bool, error) { return boltstore.Waiting(l.store) == n, nil })
	if err != nil {
		l.t.Fatal(err)
	}
}

// TestGroup: transactions that wait are committed at once. Each has a revision of its own and sees what the ones before it have written; a
// condition that fails changes nothing for the others.
func TestGroup(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ledger.db"))
	before, release := boltstore.Commits(s), boltstore.Hold(s)
	l := &line{t: t, store: s}
	l.add(t.Context(), store.Absent("a"), store.Put("a", []byte("1")), store.Put("b", []byte("1")))
	l.add(t.Context(), store.Absent("a"), store.Put("a", []byte("2")), store.Put("c", []byte("2")))
	l.add(t.Context(), store.Cond{Key: "a", Rev: 1}, store.Del("b"))
	l.add(t.Context(), store.NotNewer("a", 0))
	l.add(t.Context(), store.Absent("b"), store.Put("c", []byte("3")))
	l.add(t.Context(), store.NotNewer("c", 3))
	release()
	want := []store.Result{{OK: true, Rev: 1}, {Failed: store.Absent("a")}, {OK: true, Rev: 2}, {Failed: store.NotNewer("a", 0)},
		{OK: true, Rev: 3}, {OK: true, Rev: 3}}
	for i, done := range l.all {
		got := <-done
		if diff := cmp.Diff(want[i], got.result); diff != "" || got.err != nil {
			t.Errorf("transaction %d: %v (-want +got):\n%s", i, got.err, diff)
		}
	}
	if got, want := contents(t, s), "a=1@1\nc=3@3\n"; got != want {
		t.Errorf("the ledger shows\n%s, want\n%s", got, want)
	}
	if n := boltstore.Commits(s) - before; n != 1 {
		t.Errorf("%d commits, want 1", n)
	}
}

// TestGroupOfOne: a transaction that is alone is committed at once.
func TestGroupOfOne(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ledger.db"))
	before := boltstore.Commits(s)
	for i := range 3 {
		if r, err := s.Txn(t.Context(), nil, []store.Op{store.Put("a", fmt.Append(nil, i))}); err != nil || r.Rev != int64(i+1) {
			t.Errorf("%+v, %v", r, err)
		}
	}
	if n := boltstore.Commits(s) - before; n != 3 {
		t.Errorf("%d commits, want 3", n)
	}
}

// TestGroupTooLarge: a transaction that does not fit fails alone.
func TestGroupTooLarge(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "ledger.db"), boltstore.MaxSize(1<<16))
	release := boltstore.Hold(s)
	l := &line{t: t, store: s}
	l.add(t.Context(), store.Absent("a"), store.Put("a", []byte("1")))
	l.add(t.Context(), store.Absent("huge"), store.Put("huge", make([]byte, 1<<20)))
	l.add(t.Context(), store.Absent("huge"), store.Put("b", []byte("1")))
	release()
	for i, done := range l.all {
		got := <-done
		if i != 1 && (got.err != nil || !got.result.OK) {
			t.Errorf("transaction %d: %+v, %v", i, got.result, got.err)
		}
		if i == 1 {
			wantError(t, got.err, store.ErrUnavailable, "ledger ledger.db: write: database reached maximum size")
		}
	}
	if got, want := contents(t, s), "a=1@1\nb=1@2\n"; got != want {
		t.Errorf("the ledger shows\n%s, want\n%s", got, want)
	}
}

// TestGroupLeft: a transaction whose context ends while it waits is not applied, and one that waits for a store that is closed is not either.
func TestGroupLeft(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := mustOpen(t, path)
	release := boltstore.Hold(s)
	l := &line{t: t, store: s}
	ctx, cancel := context.WithCancel(t.Context())
	l.add(ctx, store.Absent("a"), store.Put("a", nil))
	l.add(t.Context(), store.Absent("b"), store.Put("b", nil))
	cancel()
	if left := <-l.all[0]; !errors.Is(left.err, context.Canceled) || !errors.Is(left.err, store.ErrUnavailable) {
		t.Errorf("a transaction whose context has ended: %+v, %v", left.result, left.err)
	}
	l.wait(1)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	release()
	if left := <-l.all[1]; !errors.Is(left.err, store.ErrClosed) || !errors.Is(left.err, store.ErrUnavailable) {
		t.Errorf("a transaction whose store was closed: %+v, %v", left.result, left.err)
	}
	if got := contents(t, mustOpen(t, path)); got != "" {
		t.Errorf("the ledger shows\n%s, want nothing", got)
	}
}
