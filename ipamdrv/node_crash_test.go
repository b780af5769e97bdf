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

// TestNodeCrashAtStepK kills a node at each of its transactions, those in the ledger that it shares and those in its own. When
// it comes back it takes back what its engine never heard of; what was answered is there.
func TestNodeCrashAtStepK(t *testing.T) {
	for _, fate := range []storetest.Fate{storetest.Lost, storetest.Unanswered} {
		for name, options := range map[string]map[string]string{
			"private": nil, "shared": {"pool": "lan"}, "sticky": {"sticky": "1h"}, "gateway": {"gateway": "10.99.0.1"},
		} {
			t.Run(fate.String()+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { nodeCrashEverywhere(t, fate, options) })
			})
		}
	}
}

// nodeCrashEverywhere kills one story at each step.
func nodeCrashEverywhere(t *testing.T, fate storetest.Fate, options map[string]string) {
	for k := 1; ; k++ {
		if k > 200 {
			t.Fatal("the story does not end")
		}
		own, shared := store.NewMemory(), store.NewMemory()
		crash := storetest.NewCrash(shared, k, fate)
		path := filepath.Join(t.TempDir(), "journal")
		journal := &mortal{journal.New(path), crash.Beside(store.NewMemory())}
		p := &promises{options: options, d: driverOf(t, crash.Beside(own), crash, journal), has: map[string]bool{},
			unsure: map[string]bool{}, names: map[string]string{}}
		p.life()
		// A node begins anywhere, and may have chosen what the story asks for by address.
		p.errs = slices.DeleteFunc(p.errs, func(err error) bool { return errors.Is(err, ipamdrv.ErrInUse) })
		if !crash.Dead() {
			if len(p.errs) > 0 || k < 20 {
				t.Fatalf("the story without a crash, of %d transactions: %v", k-1, p.errs)
			}
			return
		}
		p.afterNodeCrash(t, k, own.Reopen(), shared.Reopen(), path)
	}
}

// mortal is a journal whose writes count as transactions of the process that crashes.
type mortal struct {
	*journal.Journal
	crash *storetest.Crash
}

func (m *mortal) Add(key string, value []byte) error {
	_, err := m.crash.Txn(context.Background(), nil, nil)
	if err == nil || errors.Is(err, store.ErrAmbiguous) {
		err = errors.Join(err, m.Journal.Add(key, value))
	}
	return err
}

func (m *mortal) Remove(key string) error {
	_, err := m.crash.Txn(context.Background(), nil, nil)
	if err == nil || errors.Is(err, store.ErrAmbiguous) {
		err = errors.Join(err, m.Journal.Remove(key))
	}
	return err
}

// driverOf makes a driver of a node.
func driverOf(t *testing.T, own, shared store.Store, journal ipamdrv.Journal) *ipamdrv.Driver {
	t.Helper()
	d, err := ipamdrv.New(ipamdrv.Config{Own: own, Store: shared, Journal: journal})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// afterNodeCrash looks at what a new driver makes of the ledgers.
func (p *promises) afterNodeCrash(t *testing.T, k int, own, shared store.Store, journalPath string) {
	t.Helper()
	p.d = driverOf(t, own, shared, journal.New(journalPath))
	ctx, end := context.WithCancel(t.Context())
	defer end()
	go func() { _ = p.d.Maintain(ctx) }()
	wait(10 * time.Second)
	if owed, err := p.d.PoolsWithOps(ctx); err != nil || owed > 0 {
		t.Errorf("crash at %d: the node still owes %d, %v", k, owed, err)
	}
	checkMine(t, k, own, shared)
	left := keys(t, shared, "ipam/")
	switch {
	case p.pool == "" && len(left) > 0 && len(keys(t, own, "node/mine/")) == 0:
		t.Errorf("crash at %d: nobody was told of a pool, and the ledger has %q", k, left)
	case p.pool == "", p.dropped:
		return
	}
	p.checkHeld(t, k, shared)
	if len(pools(t, shared)) > 0 {
		p.finish(t, k, shared)
	}
}

// checkMine: the handles that the node knows as its engine's are those that there are.
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

// TestDrawCrashAtStepK kills a node at each write with which it gives an address that it has ahead. One of which the engine never
// heard is taken back, unless the answer was on its way.
func TestDrawCrashAtStepK(t *testing.T) {
	for fate, kept := range map[storetest.Fate]int{storetest.Lost: 0, storetest.Unanswered: 1} {
		t.Run(fate.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				unheard := 0
				for k := 1; ; k++ {
					died, given := drawAndDie(t, k, fate)
					if unheard += given; !died {
						break
					}
				}
				if unheard != kept {
					t.Errorf("%d answers were lost for good, want %d", unheard, kept)
				}
			})
		})
	}
}

// drawAndDie kills the node at its k-th write, and counts what is somebody's after it has come back.
func drawAndDie(t *testing.T, k int, fate storetest.Fate) (died bool, given int) {
	t.Helper()
	own, shared, path := store.NewMemory(), store.NewMemory(), filepath.Join(t.TempDir(), "journal")
	first := &bench{T: t, d: driverOf(t, own, shared, journal.New(path))}
	pool, err := first.d.RequestPool(t.Context(), &ipam.RequestPoolRequest{Pool: "10.99.0.0/30",
		Options: map[string]string{"prefetch": "1"}})
	if err != nil {
		t.Fatal(err)
	}
	first.gives(pool.PoolID, "10.99.0.1", asGateway, "10.99.0.1/30")
	maintain(t, first.d)

	crash := storetest.NewCrash(shared, k, fate)
	dying := &mortal{journal.New(path), crash.Beside(store.NewMemory())}
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

// maintain lets a driver do what is left to do.
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
