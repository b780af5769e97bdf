package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
)

// Opener opens a store. If it is called again after Close, it opens the same one, as a restart does.
type Opener func(t *testing.T) store.Store

// Run is the conformance suite: it checks that an implementation does what [store.Store] says. fresh makes an empty store, which the Opener
// that it returns opens; it is called once for each test.
func Run(t *testing.T, fresh func(t *testing.T) Opener) {
	parts := []struct {
		name string
		test func(t *testing.T, open Opener)
	}{
		{"empty", testEmpty},
		{"put, get, delete", testPutGetDelete},
		{"conditions", testConditions},
		{"a failed condition changes nothing", testFailedCondition},
		{"a condition on a prefix", testNotNewer},
		{"a record that was deleted and written again has another revision", testABA},
		{"the last write to a key counts", testLastWrite},
		{"without writes a transaction only checks", testCheckOnly},
		{"values are copies", testCopies},
		{"large values", testLargeValues},
		{"keys", testKeys},
		{"range order and bounds", testRange},
		{"range stops at the first error", testRangeStops},
		{"a context that has ended", testContext},
		{"reopen", testReopen},
		{"close", testClose},
		{"concurrent compare-and-swap", testConcurrentSwap},
		{"range shows one revision", testRangeConsistent},
	}
	for _, p := range parts {
		t.Run(p.name, func(t *testing.T) { p.test(t, fresh(t)) })
	}
}

// opened opens the store for one test.
func opened(t *testing.T, open Opener) store.Store {
	t.Helper()
	s := open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

// commit runs a transaction that must be applied.
func commit(t *testing.T, s store.Store, conds []store.Cond, then ...store.Op) store.Result {
	t.Helper()
	r, err := s.Txn(t.Context(), conds, then)
	if err != nil || !r.OK || r.Failed != (store.Cond{}) {
		t.Fatalf("Txn(%v) = %+v, %v; must be applied", conds, r, err)
	}
	return r
}

// get reads a record that must exist.
func get(t *testing.T, s store.Store, key string) store.KV {
	t.Helper()
	kv, err := s.Get(t.Context(), key)
	if err != nil {
		t.Fatalf("Get(%q): %v", key, err)
	}
	return kv
}

// all lists the records under prefix as "key=value".
func all(t *testing.T, s store.Store, prefix string) []string {
	t.Helper()
	got := []string{}
	err := s.Range(t.Context(), prefix, func(kv store.KV) error {
		got = append(got, kv.Key+"="+string(kv.Value))
		return nil
	})
	if err != nil {
		t.Fatalf("Range(%q): %v", prefix, err)
	}
	return got
}

// wantAll compares the records under prefix.
func wantAll(t *testing.T, s store.Store, prefix string, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, all(t, s, prefix)); diff != "" {
		t.Errorf("records under %q (-want +got):\n%s", prefix, diff)
	}
}

func testEmpty(t *testing.T, open Opener) {
	s := opened(t, open)
	if kv, err := s.Get(t.Context(), "net/a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Get = %+v, %v, want ErrNotFound", kv, err)
	}
	wantAll(t, s, "")
}

func testPutGetDelete(t *testing.T, open Opener) {
	s := opened(t, open)
	first := commit(t, s, nil, store.Put("net/a", []byte("1")), store.Put("net/b", nil))
	if first.Rev <= 0 {
		t.Errorf("revision %d, want more than 0", first.Rev)
	}
	want := store.KV{Key: "net/a", Value: []byte("1"), Rev: first.Rev}
	if diff := cmp.Diff(want, get(t, s, "net/a")); diff != "" {
		t.Errorf("net/a (-want +got):\n%s", diff)
	}
	if kv := get(t, s, "net/b"); len(kv.Value) != 0 || kv.Rev != first.Rev {
		t.Errorf("net/b = %+v, want an empty value of revision %d", kv, first.Rev)
	}
	second := commit(t, s, nil, store.Del("net/b"), store.Del("net/never"), store.Put("net/a", []byte("2")))
	if second.Rev <= first.Rev {
		t.Errorf("revision went from %d to %d", first.Rev, second.Rev)
	}
	wantAll(t, s, "", "net/a=2")
}

func testConditions(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, []store.Cond{store.Absent("a"), store.Absent("b")}, store.Put("a", []byte("1")))
	a := get(t, s, "a")
	commit(t, s, []store.Cond{store.Unchanged(a), store.Absent("b")}, store.Put("b", []byte("1")))
	if again := get(t, s, "a"); again.Rev != a.Rev {
		t.Errorf("writing b changed the revision of a from %d to %d", a.Rev, again.Rev)
	}
	commit(t, s, []store.Cond{store.Unchanged(a)}, store.Del("a"))
	commit(t, s, []store.Cond{store.Absent("a")}, store.Put("a", []byte("2")))
}

func testFailedCondition(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, nil, store.Put("a", []byte("1")))
	old := get(t, s, "a")
	commit(t, s, nil, store.Put("a", []byte("2")))
	now := get(t, s, "a")

	tests := []struct {
		name  string
		conds []store.Cond
		want  store.Cond
	}{
		{"exists", []store.Cond{store.Absent("a")}, store.Absent("a")},
		{"is absent", []store.Cond{{Key: "z", Rev: now.Rev}}, store.Cond{Key: "z", Rev: now.Rev}},
		{"is newer", []store.Cond{store.Unchanged(old)}, store.Unchanged(old)},
		{"is older", []store.Cond{{Key: "a", Rev: now.Rev + 1}}, store.Cond{Key: "a", Rev: now.Rev + 1}},
		{"the first of two", []store.Cond{store.Unchanged(now), store.Unchanged(old), store.Absent("a")},
			store.Unchanged(old)},
	}
	for _, test := range tests {
		then := []store.Op{store.Put("a", []byte("3")), store.Put("b", []byte("3")), store.Del("a")}
		r, err := s.Txn(t.Context(), test.conds, then)
		if diff := cmp.Diff(store.Result{Failed: test.want}, r); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", test.name, err, diff)
		}
	}
	wantAll(t, s, "", "a=2")
	if kv := get(t, s, "a"); kv.Rev != now.Rev {
		t.Errorf("failed transactions moved the revision from %d to %d", now.Rev, kv.Rev)
	}
}

func testNotNewer(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, []store.Cond{store.NotNewer("net/", 0)}, store.Put("net/a", nil), store.Put("net", nil), store.Put("nett", nil))
	rev := commit(t, s, nil, store.Put("net/b", nil)).Rev
	commit(t, s, []store.Cond{store.NotNewer("net/", rev)}, store.Put("other", nil))
	for _, change := range []store.Op{store.Put("net/a", []byte("1")), store.Put("net/c", nil)} {
		newer := commit(t, s, nil, change).Rev
		cond := store.NotNewer("net/", rev)
		r, err := s.Txn(t.Context(), []store.Cond{store.Absent("free"), cond}, []store.Op{store.Put("free", nil)})
		if err != nil || r.OK || r.Failed != cond {
			t.Errorf("after a change under the prefix: %+v, %v; want it refused because of %v", r, err, cond)
		}
		rev = newer
	}
	commit(t, s, []store.Cond{store.NotNewer("net/", rev)}, store.Del("net/a"))
	commit(t, s, []store.Cond{store.NotNewer("net/", rev)}, store.Put("other", nil)) // a deletion does not count
}

func testABA(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, nil, store.Put("a", []byte("1")))
	old := get(t, s, "a")
	commit(t, s, nil, store.Del("a"))
	commit(t, s, nil, store.Put("a", []byte("1")))
	r, err := s.Txn(t.Context(), []store.Cond{store.Unchanged(old)}, []store.Op{store.Del("a")})
	if err != nil || r.OK {
		t.Errorf("Txn = %+v, %v; the record is not the one that was read", r, err)
	}
}

func testLastWrite(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, nil, store.Put("a", []byte("1")), store.Put("a", []byte("2")), store.Put("b", []byte("1")),
		store.Del("b"), store.Del("c"), store.Put("c", []byte("3")))
	wantAll(t, s, "", "a=2", "c=3")
}

func testCheckOnly(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, nil)
	put := commit(t, s, nil, store.Put("a", []byte("1")))
	if r := commit(t, s, []store.Cond{store.Unchanged(get(t, s, "a"))}); r.Rev != put.Rev {
		t.Errorf("a check moved the revision from %d to %d", put.Rev, r.Rev)
	}
	if r, err := s.Txn(t.Context(), []store.Cond{store.Absent("a")}, nil); err != nil || r.OK {
		t.Errorf("Txn = %+v, %v, want a failed condition", r, err)
	}
}

func testCopies(t *testing.T, open Opener) {
	s := opened(t, open)
	value := []byte("good")
	commit(t, s, nil, store.Put("a", value))
	copy(value, "evil")
	kv := get(t, s, "a")
	copy(kv.Value, "evil")
	err := s.Range(t.Context(), "", func(kv store.KV) error {
		copy(kv.Value, "evil")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	wantAll(t, s, "", "a=good")
}

func testLargeValues(t *testing.T, open Opener) {
	s := opened(t, open)
	var ops []store.Op
	for i := range 300 {
		ops = append(ops, store.Put(fmt.Sprintf("k/%03d", i), bytes.Repeat([]byte{byte(i)}, 20*i)))
	}
	commit(t, s, nil, ops...)
	for i := range 300 {
		if kv := get(t, s, fmt.Sprintf("k/%03d", i)); !bytes.Equal(kv.Value, bytes.Repeat([]byte{byte(i)}, 20*i)) {
			t.Errorf("%s: wrong value of %d bytes", kv.Key, len(kv.Value))
		}
	}
}

func testKeys(t *testing.T, open Opener) {
	s := opened(t, open)
	for _, key := range []string{"a", "net/0123", "ipam/lease/v1:ab/fd00::1", strings.Repeat("k", 1024), "~!"} {
		commit(t, s, []store.Cond{store.Absent(key)}, store.Put(key, []byte(key)))
		if kv := get(t, s, key); kv.Key != key || string(kv.Value) != key {
			t.Errorf("Get(%.20q) = %.20q", key, kv.Key)
		}
	}
	before := all(t, s, "")
	for _, key := range []string{"", "with space", "tab\t", "nul\x00", "ü", "\x7f", strings.Repeat("k", 1025)} {
		if _, err := s.Get(t.Context(), key); err == nil || errors.Is(err, store.ErrNotFound) {
			t.Errorf("Get(%.20q): %v, want the key refused", key, err)
		}
		ops := []store.Op{store.Put("fine", nil), store.Put(key, nil)}
		if _, err := s.Txn(t.Context(), nil, ops); err == nil {
			t.Errorf("put of key %.20q was accepted", key)
		}
		if _, err := s.Txn(t.Context(), []store.Cond{store.Absent(key)}, ops[:1]); err == nil {
			t.Errorf("condition on key %.20q was accepted", key)
		}
	}
	wantAll(t, s, "", before...)
}

func testRange(t *testing.T, open Opener) {
	s := opened(t, open)
	wantAll(t, s, "net/")
	for _, key := range []string{"net/b", "neu", "net/a/2", "net", "net0", "ep/x", "net/a", "net/a/10"} {
		commit(t, s, nil, store.Put(key, nil))
	}
	wantAll(t, s, "net/", "net/a=", "net/a/10=", "net/a/2=", "net/b=")
	wantAll(t, s, "net/a/", "net/a/10=", "net/a/2=")
	wantAll(t, s, "net/a/10", "net/a/10=")
	wantAll(t, s, "zzz")
	wantAll(t, s, "", "ep/x=", "net=", "net/a=", "net/a/10=", "net/a/2=", "net/b=", "net0=", "neu=")
}

func testRangeStops(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, nil, store.Put("a", nil), store.Put("b", nil), store.Put("c", nil))
	stop, seen := errors.New("enough"), 0
	err := s.Range(t.Context(), "", func(store.KV) error {
		seen++
		if seen == 2 {
			return stop
		}
		return nil
	})
	if !errors.Is(err, stop) || seen != 2 {
		t.Errorf("Range = %v after %d records, want %v after 2", err, seen, stop)
	}
}

func testContext(t *testing.T, open Opener) {
	s := opened(t, open)
	commit(t, s, nil, store.Put("a", []byte("1")))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Txn(ctx, nil, []store.Op{store.Put("a", []byte("2"))})
	if !errors.Is(err, context.Canceled) || !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous) {
		t.Errorf("Txn: %v, want it canceled and not applied", err)
	}
	if _, err := s.Get(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v, want it canceled", err)
	}
	if err := s.Range(ctx, "", func(store.KV) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Range: %v, want it canceled", err)
	}
	wantAll(t, s, "", "a=1")
}

func testReopen(t *testing.T, open Opener) {
	s := open(t)
	var last int64
	for i := range 3 {
		conds := []store.Cond{store.Absent("new")}
		last = commit(t, s, conds, store.Put(fmt.Sprintf("a/%d", i), fmt.Append(nil, i)), store.Put("gone", nil)).Rev
		last = max(last, commit(t, s, nil, store.Del("gone")).Rev)
		before := get(t, s, "a/0")
		if err := s.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		s = open(t)
		if diff := cmp.Diff(before, get(t, s, "a/0")); diff != "" {
			t.Errorf("after reopening (-want +got):\n%s", diff)
		}
	}
	wantAll(t, s, "", "a/0=0", "a/1=1", "a/2=2")
	if rev := commit(t, s, nil, store.Put("b", nil)).Rev; rev <= last {
		t.Errorf("after reopening the revision went from %d to %d", last, rev)
	}
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

func testClose(t *testing.T, open Opener) {
	s := open(t)
	commit(t, s, nil, store.Put("a", nil))
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}
	if _, err := s.Txn(t.Context(), nil, []store.Op{store.Del("a")}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Txn after Close: %v, want ErrUnavailable", err)
	}
	if _, err := s.Get(t.Context(), "a"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Get after Close: %v, want ErrUnavailable", err)
	}
	if err := s.Range(t.Context(), "", func(store.KV) error { return nil }); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Range after Close: %v, want ErrUnavailable", err)
	}
}

// Put writes one record.
func Put(t *testing.T, s store.Store, key, value string) {
	t.Helper()
	if r, err := s.Txn(t.Context(), nil, []store.Op{store.Put(key, []byte(value))}); err != nil || !r.OK {
		t.Fatalf("put %s: %+v, %v", key, r, err)
	}
}
