package ipamdrv_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// fixture is a driver with a store in memory. The invariants are checked when its test ends.
type fixture struct {
	*testing.T
	store *store.Memory
	d     *ipamdrv.Driver
}

// withFixture runs a test with a fixture in a bubble of testing/synctest, whose clock starts at 2000-01-01 00:00:00 UTC.
func withFixture(t *testing.T, run func(b *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &fixture{T: t, store: store.NewMemory()}
		b.d = newDriver(t, b.store)
		run(b)
		checkInvariants(t, b.d, b.store)
	})
}

// wait advances the clock of the bubble.
func wait(d time.Duration) { time.Sleep(d) }

// newDriver creates a driver with the store s.
func newDriver(t testing.TB, s store.Store) *ipamdrv.Driver {
	t.Helper()
	d, err := ipamdrv.New(ipamdrv.Config{Store: s})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// failer is what checks need of a test. A rapid.T has it, too.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
	Errorf(format string, args ...any)
}

// checkInvariants checks that the caches are equal to the ledger, and that every lease belongs to a pool.
func checkInvariants(t failer, d *ipamdrv.Driver, s store.Store) {
	t.Helper()
	if err := ipamdrv.CheckCaches(context.Background(), d); err != nil {
		t.Errorf("index: %v", err)
	}
	for id := range leases(t, s) {
		if !slices.Contains(pools(t, s), id) {
			t.Errorf("the ledger has leases in pool %s, which does not exist", id)
		}
	}
}

// keys lists the ledger's keys under prefix, without prefix.
func keys(t failer, s store.Store, prefix string) []string {
	t.Helper()
	var got []string
	err := s.Range(context.Background(), prefix, func(kv store.KV) error {
		got = append(got, strings.TrimPrefix(kv.Key, prefix))
		return nil
	})
	if err != nil {
		t.Fatalf("read the ledger: %v", err)
	}
	return got
}

// pools lists the handles of the pools in the ledger.
func pools(t failer, s store.Store) []string {
	t.Helper()
	var handles []string
	for _, id := range keys(t, s, "ipam/pool/") {
		handles = append(handles, "v1:"+id)
	}
	return handles
}

// leases lists the leased addresses of every pool in the ledger, by handle.
func leases(t failer, s store.Store) map[string][]string {
	t.Helper()
	got := map[string][]string{}
	err := s.Range(context.Background(), "ipam/lease/", func(kv store.KV) error {
		id, addr, _ := strings.Cut(strings.TrimPrefix(kv.Key, "ipam/lease/"), "/")
		if !strings.Contains(string(kv.Value), `"kind":"resting"`) {
			got["v1:"+id] = append(got["v1:"+id], addr)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read the ledger: %v", err)
	}
	return got
}

// restart replaces the driver by a new one with the same ledger.
func (b *fixture) restart() {
	b.Helper()
	checkInvariants(b.T, b.d, b.store)
	b.store = b.store.Reopen()
	b.d = newDriver(b.T, b.store)
}

// pool creates a pool and returns its handle.
func (b *fixture) pool(subnet, within string) string {
	b.Helper()
	r, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{
		AddressSpace: "passthrough-local", Pool: subnet, SubPool: within, Options: map[string]string{}})
	if err != nil {
		b.Fatalf("RequestPool(%q, %q): %v", subnet, within, err)
	}
	return r.PoolID
}

// The options of a request for a gateway, and of a container's request by an engine from 29 on.
var (
	asGateway = map[string]string{"RequestAddressType": "com.docker.network.gateway"}
	named     = map[string]string{"com.docker.network.endpoint.name": "c1"}
)

// request requests an address.
func (b *fixture) request(pool, addr string, options map[string]string) (string, error) {
	r, err := b.d.RequestAddress(b.Context(), &ipam.RequestAddressRequest{PoolID: pool, Address: addr, Options: options})
	if err != nil {
		return "", err
	}
	return r.Address, nil
}

// gives requests an address and compares the answer.
func (b *fixture) gives(pool, addr string, options map[string]string, want string) {
	b.Helper()
	if got, err := b.request(pool, addr, options); err != nil || got != want {
		b.Errorf("RequestAddress(%q, %v) = %q, %v, want %q", addr, options, got, err, want)
	}
}

// refuses requests an address, which must fail with this text and kind.
func (b *fixture) refuses(pool, addr string, options map[string]string, kind error, want string) {
	b.Helper()
	got, err := b.request(pool, addr, options)
	if err == nil {
		b.Errorf("RequestAddress(%q, %v) = %q, want it refused: %s", addr, options, got, want)
		return
	}
	wantError(b.T, err, kind, want)
}

// release releases an address, which must succeed.
func (b *fixture) release(pool, addr string) {
	b.Helper()
	if _, err := b.d.ReleaseAddress(b.Context(), &ipam.ReleaseAddressRequest{PoolID: pool, Address: addr}); err != nil {
		b.Errorf("ReleaseAddress(%q): %v", addr, err)
	}
}

// releasePool releases a pool, which must succeed.
func (b *fixture) releasePool(pool string) {
	b.Helper()
	if _, err := b.d.ReleasePool(b.Context(), &ipam.ReleasePoolRequest{PoolID: pool}); err != nil {
		b.Errorf("ReleasePool: %v", err)
	}
}

// wantError compares an error word for word.
func wantError(t *testing.T, err, kind error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("error\n got: %v\nwant: %s", err, want)
	}
	if kind != nil && !errors.Is(err, kind) {
		t.Errorf("error %v does not match %v", err, kind)
	}
}

// addressRequest is a request for an address.
func addressRequest(pool, addr string, options map[string]string) *ipam.RequestAddressRequest {
	return &ipam.RequestAddressRequest{PoolID: pool, Address: addr, Options: options}
}
