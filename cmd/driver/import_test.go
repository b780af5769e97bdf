package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/store"
)

// exportOf is an export of a node that has a shared pool with this name, and a pool of its own.
func exportOf(node, name, subnet string) []store.KV {
	id := strings.Repeat(node, 32)
	shared := fmt.Sprintf(`{"v":1,"subnet":%q,"options":{"pool":%q}}`, subnet, name)
	var records []store.KV
	for key, value := range map[string]string{
		"ipam/pool/" + id: shared, "ipam/name/4/" + name: id, "ipam/share/" + id + "/s": `{"v":1}`, "ipam/lease/" + id + "/10.0.0.2": `{"v":1}`,
		"ipam/pool/own" + id: `{"v":1,"subnet":"10.9.0.0/24"}`, "ipam/lease/own" + id + "/10.9.0.2": `{"v":1}`,
	} {
		records = append(records, store.KV{Key: key, Value: []byte(value)})
	}
	return records
}

// failing is a store whose transactions fail after some.
type failing struct {
	store.Store
	left int
}

var errFailing = errors.New("disk full")

// Txn implements [store.Store].
func (f *failing) Txn(ctx context.Context, conds []store.Cond, ops []store.Op) (store.Result, error) {
	if f.left == 0 {
		return store.Result{}, errFailing
	}
	f.left--
	return f.Store.Txn(ctx, conds, ops)
}

// imported lists the records of a store.
func imported(t *testing.T, s store.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := s.Range(t.Context(), "ipam/", func(kv store.KV) error {
		all[kv.Key] = string(kv.Value)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestImportPoolsOfOneName: a pool whose name another pool has is refused before anything is written, with what to do.
func TestImportPoolsOfOneName(t *testing.T) {
	for name, c := range map[string]struct {
		records []store.KV
		want    string // part of the error; "" for none
	}{
		"the same export":       {exportOf("a", "lan", "10.0.0.0/24"), ""},
		"another name":          {exportOf("b", "wan", "10.0.0.0/24"), ""},
		"one name":              {exportOf("b", "lan", "10.0.0.0/24"), `another pool with the name "lan", of subnet 10.0.0.0/24, here it is 10.0.0.0/24; remove`},
		"one name, two subnets": {exportOf("b", "lan", "10.1.0.0/24"), "create them again with another name"},
		"two pools": {slices.Concat(exportOf("b", "lan", "10.0.0.0/24"), exportOf("c", "dmz", "10.2.0.0/24")),
			`another pool with the name "dmz", of subnet 10.1.0.0/24 on host-d, host-e, here it is 10.2.0.0/24, and another pool with the name "lan", ` +
				`of subnet 10.0.0.0/24, here it is 10.0.0.0/24; remove the networks with these pools on the node of the export`},
		"a changed record": {append(exportOf("b", "wan", "10.0.0.0/24"), store.KV{Key: "ipam/share/" + strings.Repeat("a", 32) + "/s", Value: []byte("x")}), "exists with another value"},
		"one record twice": {append(exportOf("b", "wan", "10.0.0.0/24"), store.KV{Key: "ipam/name/4/wan", Value: []byte("x")}), "is in it twice"},
	} {
		s := store.NewMemory()
		if err := importTo(t.Context(), s, exportOf("a", "lan", "10.0.0.0/24")); err != nil {
			t.Fatal(err)
		}
		used := exportOf("d", "dmz", "10.1.0.0/24")
		for _, node := range []string{"d", "e"} {
			share := store.KV{Key: "ipam/share/" + strings.Repeat("d", 32) + "/" + node, Value: fmt.Appendf(nil, `{"v":1,"node":%q}`, node)}
			used = append(used, share)
			if _, err := s.Txn(t.Context(), nil, []store.Op{store.Put("cluster/member/"+node, []byte("1 up host-"+node))}); err != nil {
				t.Fatal(err)
			}
		}
		if err := importTo(t.Context(), s, used); err != nil {
			t.Fatal(err)
		}
		before := len(imported(t, s))
		err := importTo(t.Context(), s, c.records)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if after := len(imported(t, s)); err != nil && after != before {
			t.Errorf("%s: was refused, and wrote %d records", name, after-before)
		}
	}
}

// TestImportInterrupted: an import that failed at any transaction can be repeated. Before the last one no pool is there whose addresses are not.
func TestImportInterrupted(t *testing.T) {
	records := exportOf("a", "lan", "10.0.0.0/24")
	for n := range 4 {
		s := &failing{store.NewMemory(), n}
		err := importTo(t.Context(), s, records)
		if n < 3 != errors.Is(err, errFailing) {
			t.Errorf("after %d transactions: %v", n, err)
		}
		for key := range imported(t, s) {
			if err != nil && poolOf(key) == "" {
				t.Errorf("after %d transactions there is %s", n, key)
			}
		}
		s.left = 10
		if err := importTo(t.Context(), s, records); err != nil {
			t.Errorf("again: %v", err)
		}
		if got := imported(t, s); len(got) != len(records) {
			t.Errorf("records %v", got)
		}
		if _, err := s.Txn(t.Context(), nil, []store.Op{store.Del("ipam/lease/own" + strings.Repeat("a", 32) + "/10.9.0.2")}); err != nil {
			t.Fatal(err)
		}
		if err := importTo(t.Context(), s, records); err != nil || len(imported(t, s)) != len(records)-1 {
			t.Errorf("a released lease came back, or %v", err)
		}
	}
}
