package ipamdrv_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/journal"
)

// fullDisk is a ledger, and a journal, on a disk that is full while full is true.
type fullDisk struct {
	store.Store
	*journal.Journal
	full, journalFull atomic.Bool
}

func (f *fullDisk) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if f.full.Load() {
		return store.Result{}, fmt.Errorf("%w: %w", store.ErrUnavailable, syscall.ENOSPC)
	}
	return f.Store.Txn(ctx, conds, then)
}

func (f *fullDisk) Add(key string, value []byte) error {
	if f.journalFull.Load() {
		return syscall.ENOSPC
	}
	return f.Journal.Add(key, value)
}

func (f *fullDisk) Close() error { return errors.Join(f.Store.Close(), f.Journal.Close()) }

// TestReleaseOnAFullDisk: with the node's own ledger, what a full disk keeps from being released is released when there is space again, also
// after a restart if the journal could be written, without another request of the engine. The pool's network is another driver's.
func TestReleaseOnAFullDisk(t *testing.T) {
	for _, how := range []string{"journal", "journal and a restart", "memory"} {
		synctest.Test(t, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "releases")
			disk := &fullDisk{Store: store.NewMemory(), Journal: journal.New(path)}
			start := func() (*ipamdrv.Driver, func()) {
				d, err := ipamdrv.New(ipamdrv.Config{Store: disk, Journal: disk})
				if err != nil {
					t.Fatal(err)
				}
				ctx, end := context.WithCancel(t.Context())
				go func() { _ = d.Maintain(ctx) }()
				return d, end
			}
			d, end := start()
			b := &fixture{T: t, d: d}
			kept, gone := b.pool("10.0.0.0/24", ""), b.pool("10.0.1.0/24", "")
			b.gives(kept, "10.0.0.9", nil, "10.0.0.9/24")
			b.gives(kept, "10.0.0.10", nil, "10.0.0.10/24")
			b.gives(gone, "10.0.1.9", nil, "10.0.1.9/24")

			disk.full.Store(true)
			disk.journalFull.Store(how == "memory")
			b.release(kept, "10.0.0.9")
			b.releasePool(gone)
			if _, err := b.request(kept, "10.0.0.9", nil); !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("%s: a request while the disk is full: %v", how, err)
			}
			wait(time.Minute)
			if how == "journal and a restart" {
				end()
				synctest.Wait()
				if err := disk.Journal.Close(); err != nil {
					t.Fatal(err)
				}
				disk.Journal = journal.New(path)
				_, end = start()
				wait(time.Minute)
			}
			disk.full.Store(false)
			wait(10 * time.Second)
			if left := leases(t, disk); len(left) != 1 || len(left[kept]) != 1 || left[kept][0] != "10.0.0.10" {
				t.Errorf("%s: leases %v, want one of %s", how, left, netip.MustParseAddr("10.0.0.10"))
			}
			if all := pools(t, disk); len(all) != 1 || all[0] != kept {
				t.Errorf("%s: pools %v, want %s", how, all, kept)
			}
			if entries, err := disk.Entries(); err != nil || len(entries) > 0 {
				t.Errorf("%s: the journal has %d entries, %v", how, len(entries), err)
			}
			end()
			synctest.Wait()
			_ = disk.Close()
		})
	}
}

// TestReleaseBeforeTheNextRequest: a release that is queued is done before anything else is done with its pool.
func TestReleaseBeforeTheNextRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &fullDisk{Store: store.NewMemory(), Journal: journal.New(filepath.Join(t.TempDir(), "releases"))}
		d, err := ipamdrv.New(ipamdrv.Config{Store: disk, Journal: disk})
		if err != nil {
			t.Fatal(err)
		}
		b := &fixture{T: t, d: d}
		p := b.pool("10.0.0.0/24", "")
		b.gives(p, "10.0.0.9", nil, "10.0.0.9/24")
		disk.full.Store(true)
		b.release(p, "10.0.0.9")
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.ReleaseAddress(gone, &ipam.ReleaseAddressRequest{PoolID: p, Address: "10.0.0.9"}); err != nil {
			t.Errorf("a release whose client has gone: %v", err)
		}
		disk.full.Store(false)
		b.gives(p, "10.0.0.9", nil, "10.0.0.9/24")
		wait(time.Minute)
		if left := leases(t, disk); len(left[p]) != 1 {
			t.Errorf("leases %v: the new one was released with the old", left)
		}
		_ = disk.Close()
	})
}
