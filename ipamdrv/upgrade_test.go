package ipamdrv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/store/storetest"
)

// oldLedger is a folder that processes of 96a386d wrote: etcd.txt has every key of the etcd that three nodes shared and its
// value, names.json the pools and addresses that were answered, a and d are the state directories of two nodes. Node a was
// killed while etcd was away: it has prefetched addresses, and releases that etcd does not know yet. Node d was killed after it
// wrote a lease and before it answered. The files are never changed.
const oldLedger = "testdata/ledger/96a386d"

// oldTime is some time after the old ledger was written.
var oldTime = time.Date(2026, 11, 28, 22, 40, 0, 0, time.UTC)

// oldAnswers returns the answers that the old processes gave.
func oldAnswers(t *testing.T) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(oldLedger, "names.json"))
	answers := map[string]string{}
	if err = errors.Join(err, json.Unmarshal(raw, &answers)); err != nil {
		t.Fatal(err)
	}
	return answers
}

// oldShared returns a store with the records of the old etcd.
func oldShared(t *testing.T) *store.Memory {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(oldLedger, "etcd.txt"))
	if err != nil {
		t.Fatal(err)
	}
	s := store.NewMemory()
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		key, isRecord := strings.CutPrefix(key, "/passthrough/r/")
		if !isRecord { // the schema's version, and tokens of transactions
			continue
		}
		if _, err := s.Txn(t.Context(), nil, []store.Op{store.Put(key, []byte(value))}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// startOldNode starts a driver on a copy of the state directory of an old node. The returned store is its own ledger.
func startOldNode(t *testing.T, name string, shared store.Store) (*clusterNode, store.Store) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(oldLedger, name))); err != nil {
		t.Fatal(err)
	}
	own, err := boltstore.Open(filepath.Join(dir, "ledger.db"))
	if err != nil {
		t.Fatal(err)
	}
	defaults, err := ipamdrv.ParseDefaultPools("10.200.0.0/16:24")
	if err != nil {
		t.Fatal(err)
	}
	j := journal.New(filepath.Join(dir, "journal"))
	d, err := ipamdrv.New(ipamdrv.Config{Store: shared, Own: own, Journal: j, NodeName: "vm", Defaults: defaults})
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(context.Background())
	go func() { _ = d.Maintain(ctx) }()
	t.Cleanup(func() {
		end()
		d.Close()
		synctest.Wait()
		if err := errors.Join(own.Close(), j.Close()); err != nil {
			t.Error(err)
		}
	})
	return &clusterNode{T: t, d: d}, own
}

// recordsOf returns the values of all records by key.
func recordsOf(t *testing.T, s store.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := s.Range(t.Context(), "", func(kv store.KV) error {
		all[kv.Key] = string(bytes.Clone(kv.Value))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// isPrefetched returns true for the lease of a prefetched address.
func isPrefetched(record string) bool { return strings.Contains(record, `"kind":"reserve"`) }

// wantChanges compares the keys of the records that differ: a new one begins with "+", a removed one with "-". A newly prefetched address
// is "(prefetched)", because it can be any.
func wantChanges(t *testing.T, what string, before, after map[string]string, want ...string) {
	t.Helper()
	var got []string
	for key, value := range before {
		now, ok := after[key]
		switch {
		case !ok || now != value && isPrefetched(now): // any free address can be prefetched
			got = append(got, "-"+key)
		case now != value:
			got = append(got, key)
		}
	}
	for key, value := range after {
		switch old, ok := before[key]; {
		case isPrefetched(value) && value != old:
			got = append(got, "+"+key[:strings.LastIndex(key, "/")+1]+"(prefetched)")
		case !ok:
			got = append(got, "+"+key)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("changes of %s (-want +got):\n%s", what, diff)
	}
}

// nodeID returns the ID of the node with this own ledger.
func nodeID(t *testing.T, own store.Store) string {
	t.Helper()
	_, id, _ := strings.Cut(recordsOf(t, own)["cluster/identity"], " ")
	return id
}

// handleKeys lists the keys of the handles in a node's own ledger. To the records of 96a386d is added what the shared ledger says of their
// pools, with the first use.
func handleKeys(own map[string]string) []string {
	return slices.DeleteFunc(slices.Collect(maps.Keys(own)), func(key string) bool { return !strings.HasPrefix(key, "node/mine/") })
}

// TestNodeOf96a386d: a node goes on from its old ledger. While the shared ledger is away it changes nothing and gives the
// addresses that it prefetched. Then it makes the writes that are pending and no others, and answers for what it has.
func TestNodeOf96a386d(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(oldTime))
		was, under := oldAnswers(t), oldShared(t)
		far := storetest.NewFaults(under, 1, 0)
		far.Away(true)
		a, own := startOldNode(t, "a", far)
		ownBefore, before := recordsOf(t, own), recordsOf(t, under)
		wait(10 * time.Second)
		wantChanges(t, "without a call, its own ledger", ownBefore, recordsOf(t, own))
		given := a.get(was["a.lan"])
		if ownBefore["node/reserve/"+was["a.lan"]+"/"+given] == "" {
			t.Errorf("while the shared ledger is away it gives %s, which is not prefetched", given)
		}
		a.release(was["a.lan"], given)

		far.Away(false)
		wait(time.Minute)
		pool := func(name string) string {
			id, _, _ := strings.Cut(strings.TrimPrefix(was[name], "v1:"), ".")
			return id
		}
		lan := "ipam/lease/" + pool("a.lan") + "/"
		wantChanges(t, "the shared ledger", before, recordsOf(t, under), "+cluster/process/"+nodeID(t, own), "+cluster/seen/"+nodeID(t, own),
			"+"+lan+"(prefetched)", "+"+lan+"(prefetched)", lan+was["a.lan.c3"], "-"+lan+given, lan+was["a.lan.c12"],
			"-ipam/pool/"+pool("a.gone"), "ipam/lease/"+pool("a.private")+"/"+was["a.c1"])
		prefetched := "node/reserve/" + was["a.lan"] + "/"
		wantChanges(t, "its own ledger", ownBefore, recordsOf(t, own), append(handleKeys(ownBefore),
			"+"+prefetched+"(prefetched)", "+"+prefetched+"(prefetched)", "-"+prefetched+given,
			"-node/owed/"+pool("a.lan")+"/0000000000000018",
			"-node/owed/"+pool("a.lan")+"/000000000000001a", "-node/owed/"+pool("a.private")+"/0000000000000019",
			"-node/owed/"+pool("a.gone")+"/000000000000001c")...)

		answersOfOldNode(t, a, was)
	})
}

// answersOfOldNode asks node a for what its pools have.
func answersOfOldNode(t *testing.T, a *clusterNode, was map[string]string) {
	t.Helper()
	for _, c := range []string{"c1", "c2"} { // both were released less than 24h ago, which is the pool's option sticky
		if got, err := a.askBy(was["a.private"], c); got != was["a."+c] {
			t.Errorf("container %s gets %s, %v, want %s again", c, got, err, was["a."+c])
		}
	}
	for pool, addr := range map[string]string{was["a.private"]: was["a.asked"], was["a.six"]: was["a.six.c1"],
		was["a.carved"]: was["a.carved.c1"], was["a.lan"]: was["b.lan.c8"], was["a.large"]: was["a.via"]} {
		_, err := a.d.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: pool, Address: addr})
		if !errors.Is(err, ipamdrv.ErrInUse) {
			t.Errorf("address %s of pool %s: %v, want in use", addr, pool, err)
		}
	}
	if _, err := a.ask(was["a.gone"]); !errors.Is(err, ipamdrv.ErrUnknownPool) {
		t.Errorf("the pool whose release was pending: %v, want unknown", err)
	}
	if got, err := a.ask(was["a.small"]); !strings.HasPrefix(got, "10.4.0.") {
		t.Errorf("a pool that is full gives %s, %v, want an address of the other pool of its group", got, err)
	}
	r, err := a.d.RequestPool(t.Context(), &ipam.RequestPoolRequest{})
	if err != nil || r.Pool != "10.200.1.0/24" {
		t.Errorf("the next default subnet: %v, %v, want 10.200.1.0/24", r, err)
	}
	_, err = a.d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.2.0.0/26", Options: map[string]string{"pool": "lan"}})
	if !errors.Is(err, ipamdrv.ErrInvalid) {
		t.Errorf("the shared pool with other options: %v, want invalid", err)
	}
}

// TestInterruptedRequestOf96a386d: the old process wrote a lease and was killed before it answered. The node releases that lease, and
// keeps the other one.
func TestInterruptedRequestOf96a386d(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(oldTime))
		was, shared := oldAnswers(t), oldShared(t)
		before := recordsOf(t, shared)
		d, own := startOldNode(t, "d", shared)
		ownBefore := recordsOf(t, own)
		wait(time.Minute)
		leases := "ipam/lease/" + strings.TrimPrefix(was["d.private"], "v1:") + "/"
		if before[leases+was["d.c10"]] == "" {
			t.Fatalf("the old ledger has no lease of %s", was["d.c10"])
		}
		wantChanges(t, "the shared ledger", before, recordsOf(t, shared), "-"+leases+"10.6.0.66",
			"+cluster/process/"+nodeID(t, own), "+cluster/seen/"+nodeID(t, own))
		wantChanges(t, "its own ledger", ownBefore, recordsOf(t, own), handleKeys(ownBefore)...)
		d.release(was["d.private"], was["d.c10"])
		d.releasePool(was["d.private"])
		for key := range recordsOf(t, shared) {
			if strings.Contains(key, strings.TrimPrefix(was["d.private"], "v1:")) {
				t.Errorf("its pool has ended, and %s is left", key)
			}
		}
	})
}
