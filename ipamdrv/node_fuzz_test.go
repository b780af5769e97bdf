package ipamdrv_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/journal"
)

// FuzzNodeLedger: whatever a node's own ledger and journal say that it owes the others, or has of a pool, it goes on, and takes
// no address away from another node.
func FuzzNodeLedger(f *testing.F) {
	f.Fuzz(func(t *testing.T, kind uint8, value []byte) {
		synctest.Test(t, func(t *testing.T) {
			shared := store.NewMemory()
			a, b := newNode(t, shared), newNode(t, shared)
			pa, pb := a.pool("10.0.0.0/29", "pool=lan"), b.pool("10.0.0.0/29", "pool=lan")
			theirs, ours := b.get(pb), a.get(pa)
			id := strings.TrimPrefix(strings.Split(pa, ".")[0], "v1:")
			a.end()
			free := "10.0.0.5" // a reserve is believed: what is in it is this node's
			if free == theirs {
				free = "10.0.0.4"
			}
			key := []string{"node/owed/" + id + "/0000000000000005", "node/mine/" + pa, "node/reserve/" + pa + "/" + free,
				"node/owed/" + id + "/000000000000000a"}[kind%4]
			if kind%4 == 3 {
				j := journal.New(a.journal)
				if err := j.Add(key, value); err != nil {
					t.Fatal(err)
				}
			} else if _, err := a.own.Txn(t.Context(), nil, []store.Op{store.Put(key, value)}); err != nil {
				t.Fatal(err)
			}
			a.restart()
			for range 8 {
				if got, err := a.ask(pa); err == nil && got == theirs {
					t.Errorf("with %q in %s the address of another node was given: %s", value, key, got)
				}
				time.Sleep(time.Minute)
			}
			if got, err := b.ask(pb); err == nil && (got == theirs || got == ours && strings.Contains(string(value), "release") == false) {
				t.Errorf("with %q in %s node b was given %s", value, key, got)
			}
			a.end()
			b.end()
		})
	})
}
