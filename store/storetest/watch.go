package storetest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
)

// RunWatcher is the conformance suite of [store.Watcher]. The stores of fresh must be watchers.
func RunWatcher(t *testing.T, fresh func(t *testing.T) Opener) {
	parts := []struct {
		name string
		test func(t *testing.T, s store.Store, w store.Watcher)
	}{
		{"changes in order", testWatchChanges},
		{"changes since a revision", testWatchSince},
		{"the caller's error ends it", testWatchError},
		{"its context ends it", testWatchContext},
		{"pages", testPages},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) {
			s := opened(t, fresh(t))
			p.test(t, s, s.(store.Watcher))
		})
	}
}

// errEnough ends a watch.
var errEnough = errors.New("enough")

// watchBound bounds a watch in tests.
const watchBound = 30 * time.Second

// watch lists n changes under prefix since rev, as "REV key=value" or "REV key deleted", and the revision from which on they were told. begun
// is called when the watch has begun.
func watch(t *testing.T, w store.Watcher, prefix string, rev int64, n int, begun func()) (from int64, told []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), watchBound)
	defer cancel()
	err := w.Watch(ctx, prefix, rev, func(c store.Changes) error {
		if from == 0 && len(c.Events) == 0 {
			from = c.Rev
			begun()
		}
		for _, e := range c.Events {
			if e.Rev != c.Rev {
				t.Errorf("an event of revision %d in changes of %d", e.Rev, c.Rev)
			}
			what := "=" + string(e.Value)
			if e.Deleted {
				what = " deleted"
			}
			told = append(told, fmt.Sprintf("%d %s%s", e.Rev, e.Key, what))
		}
		if len(told) < n {
			return nil
		}
		return errEnough
	})
	if !errors.Is(err, errEnough) {
		t.Fatalf("after %q: %v", told, err)
	}
	return from, told
}

func testWatchChanges(t *testing.T, s store.Store, w store.Watcher) {
	before := commit(t, s, nil, store.Put("a/0", []byte("old"))).Rev
	var revs []int64
	from, told := watch(t, w, "a/", 0, 4, func() {
		revs = append(revs, commit(t, s, nil, store.Put("a/1", []byte("x")), store.Put("b/1", []byte("other")), store.Put("a/2", nil)).Rev)
		revs = append(revs, commit(t, s, nil, store.Del("a/0")).Rev)
		commit(t, s, nil, store.Put("b/2", []byte("other")))
		revs = append(revs, commit(t, s, nil, store.Put("a/1", []byte("y"))).Rev)
	})
	if from < before || from >= revs[0] {
		t.Errorf("told from revision %d on, want %d", from, before)
	}
	want := []string{fmt.Sprintf("%d a/1=x", revs[0]), fmt.Sprintf("%d a/2=", revs[0]), fmt.Sprintf("%d a/0 deleted", revs[1]),
		fmt.Sprintf("%d a/1=y", revs[2])}
	if diff := cmp.Diff(want, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func testWatchSince(t *testing.T, s store.Store, w store.Watcher) {
	first := commit(t, s, nil, store.Put("a/1", []byte("x"))).Rev
	second := commit(t, s, nil, store.Put("a/1", []byte("y"))).Rev
	_, told := watch(t, w, "a/", first, 1, func() {})
	if want := fmt.Sprintf("%d a/1=y", second); told[0] != want {
		t.Errorf("told %q, want %q", told, want)
	}
}

func testWatchError(t *testing.T, s store.Store, w store.Watcher) {
	commit(t, s, nil, store.Put("a/1", nil))
	if err := w.Watch(t.Context(), "a/", 0, func(store.Changes) error { return errEnough }); !errors.Is(err, errEnough) {
		t.Errorf("Watch returns %v", err)
	}
}

func testWatchContext(t *testing.T, s store.Store, w store.Watcher) {
	ctx, cancel := context.WithCancel(t.Context())
	err := w.Watch(ctx, "a/", 0, func(store.Changes) error { cancel(); return nil })
	if !errors.Is(err, context.Canceled) || !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Watch returns %v", err)
	}
}

func testPages(t *testing.T, s store.Store, w store.Watcher) {
	const records = 2500 // several pages of every store
	var want []string
	var ops []store.Op
	for i := range records {
		want = append(want, fmt.Sprintf("a/10.0.%03d.%03d", i/100, i%100))
		ops = append(ops, store.Put(want[i], []byte("v")))
	}
	rev := commit(t, s, nil, ops...).Rev
	commit(t, s, nil, store.Put("a", nil), store.Put("b/1", nil))
	var got []string
	pages := 0
	err := w.Pages(t.Context(), "a/", func(now int64, page []store.KV) error {
		pages++
		if now < rev {
			t.Errorf("a page shows revision %d, want at least %d", now, rev)
		}
		rev = now
		for _, kv := range page {
			got = append(got, kv.Key)
		}
		return nil
	})
	if diff := cmp.Diff(want, got); err != nil || diff != "" || pages < 2 {
		t.Errorf("%d pages, %v (-want +got):\n%s", pages, err, diff)
	}
	if err := w.Pages(t.Context(), "a/", func(int64, []store.KV) error { return errEnough }); !errors.Is(err, errEnough) {
		t.Errorf("Pages returns %v", err)
	}
}
