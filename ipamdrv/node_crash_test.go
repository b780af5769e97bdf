package ipamdrv_test

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/store/storetest"
)

// TestNodeCrashAtStepK kills a node at each of its transactions, in the shared ledger and in its own. After a restart it releases what
// was not answered, and has what was.
func TestNodeCrashAtStepK(t *testing.T) {
	for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
		for name, options := range map[string]map[string]string{
			"private": nil, "shared": {"pool": "lan"}, "sticky": {"sticky": "1h"}, "gateway": {"gateway": "10.99.0.1"},
		} {
			t.Run(fate.String()+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { crashNodeAtEveryStep(t, fate, options) })
			})
		}
	}
}

// crashNodeAtEveryStep runs the scenario and kills the node at each transaction.
func crashNodeAtEveryStep(t *testing.T, fate storetest.Fate, options map[string]string) {
	for k := 1; ; k++ {
		if k > 200 {
			t.Fatal("the scenario does not end")
		}
		own, shared := store.NewMemory(), store.NewMemory()
		crash := storetest.NewCrash(shared, k, fate)
		path := filepath.Join(t.TempDir(), "journal")
		journal := &crashingJournal{journal.New(path), crash.Beside(store.NewMemory())}
		p := &engineState{options: options, d: driverOf(t, crash.Beside(own), crash, journal), has: map[string]bool{},
			unsure: map[string]bool{}, names: map[string]string{}}
		p.life()
		// A node starts allocation at a random address, and may have allocated one that the scenario requests.
		p.errs = slices.DeleteFunc(p.errs, func(err error) bool { return errors.Is(err, ipamdrv.ErrInUse) })
		if !crash.Dead() {
			if len(p.errs) > 0 || k < 20 {
				t.Fatalf("the scenario without a crash, of %d transactions: %v", k-1, p.errs)
			}
			return
		}
		p.afterNodeCrash(t, k, own.Reopen(), shared.Reopen(), path)
	}
}

// crashingJournal is a journal whose writes are crash points, too.
type crashingJournal struct {
	*journal.Journal
	crash *storetest.Crash
}

func (m *crashingJournal) Add(key string, value []byte) error {
	_, err := m.crash.Txn(context.Background(), nil, nil)
	if err == nil || errors.Is(err, store.ErrAmbiguous) {
		err = errors.Join(err, m.Journal.Add(key, value))
	}
	return err
}

func (m *crashingJournal) Remove(key string) error {
	_, err := m.crash.Txn(context.Background(), nil, nil)
	if err == nil || errors.Is(err, store.ErrAmbiguous) {
		err = errors.Join(err, m.Journal.Remove(key))
	}
	return err
}

// driverOf creates the driver of a node.
func driverOf(t *testing.T, own, shared store.Store, journal ipamdrv.Journal) *ipamdrv.Driver {
	t.Helper()
	d, err := ipamdrv.New(ipamdrv.Config{Own: own, Store: shared, Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// afterNodeCrash checks a new driver on the ledgers.
func (p *engineState) afterNodeCrash(t *testing.T, k int, own, shared store.Store, journalPath string) {
	t.Helper()
	p.d = driverOf(t, own, shared, journal.New(journalPath))
	ctx, end := context.WithCancel(t.Context())
	defer end()
	go func() { _ = p.d.Maintain(ctx) }()
	wait(10 * time.Second)
	if owed, err := p.d.PoolsWithOps(ctx); err != nil || owed > 0 {
		t.Errorf("crash at %d: the outbox still has %d ops, %v", k, owed, err)
	}
	checkMine(t, k, own, shared)
	left := keys(t, shared, "ipam/")
	switch {
	case p.pool == "" && len(left) > 0 && len(keys(t, own, "node/mine/")) == 0:
		t.Errorf("crash at %d: no pool was answered, and the ledger has %q", k, left)
	case p.pool == "", p.dropped:
		return
	}
	p.checkHeld(t, k, shared)
	if len(pools(t, shared)) > 0 {
		p.finish(t, k, shared)
	}
}

// checkMine checks that the handles in the node's own ledger are those in the shared one.
func checkMine(t *testing.T, k int, own, shared store.Store) {
	t.Helper()
	there := keys(t, shared, "ipam/share/")
	if len(there) == 0 {
		there = keys(t, shared, "ipam/pool/")
	}
	for i, key := range there {
		there[i] = "v1:" + strings.Replace(key, "/", ".", 1)
	}
	if mine := keys(t, own, "node/mine/"); !slices.Equal(mine, there) {
		t.Errorf("crash at %d: the node takes %q for its engine's, and there are %q", k, mine, there)
	}
}

// TestTakePrefetchedCrashAtStepK kills a node at each write of a request that takes a prefetched address. After a restart the address is
// released, unless the answer may have been sent.
func TestTakePrefetchedCrashAtStepK(t *testing.T) {
	for fate, kept := range map[storetest.Fate]int{storetest.Lost: 0, storetest.Unanswered: 1} {
		t.Run(fate.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				unanswered := 0
				for k := 1; ; k++ {
					died, given := takePrefetchedAndCrash(t, k, fate)
					if unanswered += given; !died {
						break
					}
				}
				if unanswered != kept {
					t.Errorf("%d answers were lost for good, want %d", unanswered, kept)
				}
			})
		})
	}
}

// takePrefetchedAndCrash kills the node at its k-th write. given counts the addresses that are leased to a container after the restart.
func takePrefetchedAndCrash(t *testing.T, k int, fate storetest.Fate) (died bool, given int) {
	t.Helper()
	own, shared, path := store.NewMemory(), store.NewMemory(), filepath.Join(t.TempDir(), "journal")
	first := &fixture{T: t, d: driverOf(t, own, shared, journal.New(path))}
	pool, err := first.d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.99.0.0/30",
		Options: map[string]string{"prefetch": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	first.gives(pool.PoolID, "10.99.0.1", asGateway, "10.99.0.1/30")
	maintain(t, first.d)

	crash := storetest.NewCrash(shared, k, fate)
	dying := &crashingJournal{journal.New(path), crash.Beside(store.NewMemory())}
	second := driverOf(t, crash.Beside(own), crash, dying)
	got, err := second.RequestAddress(t.Context(), &ipam.RequestAddressRequest{PoolID: pool.PoolID})
	if died = crash.Dead(); died == (err == nil) || !died && (got.Address != "10.99.0.2/30" || k < 4) {
		t.Fatalf("write %d: %v, %v", k, got, err)
	}
	shared = shared.Reopen()
	maintain(t, driverOf(t, own.Reopen(), shared, journal.New(path)))
	if died && strings.Contains(value(t, shared, "ipam/lease/"+strings.TrimPrefix(pool.PoolID, "v1:")+"/10.99.0.2"), "chosen") {
		given++
	}
	return died, given
}

// maintain runs the background work of a driver for 10 seconds.
func maintain(t *testing.T, d *ipamdrv.Driver) {
	t.Helper()
	ctx, end := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- d.Maintain(ctx) }()
	wait(10 * time.Second)
	end()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
