package store_test

import (
	"fmt"
	"testing"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/storetest"
)

// An overlay behaves like any store.
func TestOverlay(t *testing.T) {
	storetest.Run(t, func(*testing.T) storetest.Opener {
		o := store.NewOverlay(store.NewMemory())
		return func(*testing.T) store.Store {
			return &opened{o}
		}
	})
}

// opened is a store that cannot be used any more after it was closed.
type opened struct{ store.Store }

func (o *opened) Close() error {
	o.Store = store.Unavailable(nil)
	return nil
}

// TestOverlayKeepsApart: an overlay shows the records of the store below, and its writes change none of them.
func TestOverlayKeepsApart(t *testing.T) {
	below := store.NewMemory()
	for _, key := range []string{"a/1", "a/2", "a/3", "b"} {
		storetest.Put(t, below, key, "below")
	}
	o := store.NewOverlay(below)
	was, err := o.Get(t.Context(), "a/1")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cond store.Cond
		op   store.Op
		ok   bool
	}{
		{store.Absent("a/1"), store.Put("a/1", []byte("above")), false},
		{store.Unchanged(was), store.Put("a/1", []byte("above")), true},
		{store.Unchanged(was), store.Put("a/1", []byte("again")), false},
		{store.NotNewer("a/", was.Rev), store.Del("a/2"), false},
		{store.Absent("a/4"), store.Put("a/4", []byte("above")), true},
		{store.Cond{}, store.Del("a/2"), true},
	} {
		var conds []store.Cond
		if c.cond != (store.Cond{}) {
			conds = []store.Cond{c.cond}
		}
		if res, err := o.Txn(t.Context(), conds, []store.Op{c.op}); err != nil || res.OK != c.ok {
			t.Errorf("%+v, %+v: %+v, %v", c.cond, c.op, res, err)
		}
	}
	storetest.Put(t, below, "a/5", "later")
	want := map[store.Store]string{
		o:     "a/1=above a/3=below a/4=above a/5=later ",
		below: "a/1=below a/2=below a/3=below a/5=later ",
	}
	for s, want := range want {
		got := ""
		err := s.Range(t.Context(), "a/", func(kv store.KV) error {
			got += fmt.Sprintf("%s=%s ", kv.Key, kv.Value)
			return nil
		})
		if err != nil || got != want {
			t.Errorf("%T shows %s, %v; want %s", s, got, err, want)
		}
	}
}
