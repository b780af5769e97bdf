package ipamdrv_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/store"
)

// panickingStore is a store of which one call panics.
type panickingStore struct {
	store.Store
	read, write string // the prefix of the key
}

// at panics if the key matches, once.
func at(where *string, key string) {
	if *where != "" && strings.HasPrefix(key, *where) {
		*where = ""
		panic("a defect")
	}
}

func (d *panickingStore) Get(ctx context.Context, key string) (store.KV, error) {
	at(&d.read, key)
	return d.Store.Get(ctx, key)
}

func (d *panickingStore) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	r, err := d.Store.Txn(ctx, conds, then)
	at(&d.write, then[0].Key)
	return r, err
}

// TestPanicReleasesLocks: a call that panics, which the server survives, leaves no lock behind, and what it wrote counts.
func TestPanicReleasesLocks(t *testing.T) {
	withFixture(t, func(b *fixture) {
		ledger := &panickingStore{Store: b.store}
		b.d = newDriver(b.T, ledger)
		pool := b.poolWith("10.0.0.0/30", "overflow=o")
		next := b.poolWith("10.0.1.0/24", "overflow=o")
		ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
		defer cancel()
		panics := func(where *string, key string, call func()) {
			b.Helper()
			*where = key
			defer func() {
				if recover() == nil {
					b.Errorf("no panic at %s", key)
				}
			}()
			call()
		}
		ask := func() {
			b.Helper()
			if _, err := b.d.RequestAddress(ctx, &ipam.RequestAddressRequest{PoolID: pool}); err != nil {
				b.Error(err)
			}
		}
		release := func() {
			b.Helper()
			if _, err := b.d.ReleaseAddress(ctx, &ipam.ReleaseAddressRequest{PoolID: pool, Address: "10.0.0.1"}); err != nil {
				b.Error(err)
			}
		}
		panics(&ledger.read, "ipam/pool/", ask)
		panics(&ledger.write, "ipam/lease/", ask) // 10.0.0.1
		ask()                                     // 10.0.0.2
		panics(&ledger.write, "ipam/lease/"+strings.TrimPrefix(next, "v1:"), ask)
		ask()
		panics(&ledger.write, "ipam/lease/", release)
		release()
		wantHeld(b.T, b.store, "in the end", "10.0.0.2", "10.0.1.2", "10.0.1.3")
	})
}
