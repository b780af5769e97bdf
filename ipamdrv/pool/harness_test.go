package pool_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// fixture is a pool with a store in memory.
type fixture struct {
	*testing.T
	store *store.Memory
	h     pool.Handle
	p     *pool.Pool
}

// withPool runs a test with a new pool in a bubble of testing/synctest, whose clock starts at 2000-01-01 00:00:00 UTC. Options are "NAME=VALUE".
// In the end the cache must be equal to the store.
func withPool(t *testing.T, subnet, ipRange string, options []string, run func(f *fixture)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &fixture{T: t, store: store.NewMemory(), h: pool.Handle{ID: pool.NewID()}}
		f.restart()
		rec := pool.Record{V: pool.RecordVersion, Created: time.Now().UTC(), Options: map[string]string{}}
		for _, o := range options {
			name, value, _ := strings.Cut(o, "=")
			rec.Options[name] = value
		}
		config, err := option.Parse(rec.Options)
		f.must(err)
		rec.Subnet, err = addr.ParsePrefix("subnet", subnet)
		f.must(err)
		if ipRange != "" {
			rec.Range, err = addr.ParsePrefix("ip-range", ipRange)
			f.must(err)
		}
		f.must(f.p.Create(t.Context(), f.h, rec, config, "", nil))
		run(f)
		f.must(pool.CheckCache(t.Context(), f.p))
	})
}

// after lets time pass in the bubble.
func (f *fixture) after(d time.Duration) { time.Sleep(d) }

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// restart replaces the pool by one that is not loaded, as in a new process.
func (f *fixture) restart() { f.p = pool.New(f.h.ID, pool.Ledger{Store: f.store}, nil) }

// request requests an address of a kind, "" for none in particular, for a container, whose name may be "".
func (f *fixture) request(kind pool.Kind, address, container string) (string, error) {
	f.Helper()
	f.must(f.p.Load(f.Context()))
	lease := pool.Lease{V: pool.RecordVersion, Kind: kind, Name: container, Since: time.Now().UTC(), Token: pool.NewID()}
	var a netip.Addr
	var err error
	if address != "" {
		a, err = addr.Parse(address)
		f.must(err)
	}
	switch kind {
	case pool.Gateway:
		a, _, err = f.p.AllocateGateway(f.Context(), a, lease)
	case pool.Exact:
		err = f.p.AllocateExact(f.Context(), a, lease, pool.Probe{})
	default:
		a, err = f.p.Allocate(f.Context(), lease, pool.AnyAddress, pool.Probe{})
	}
	if err != nil {
		return "", err
	}
	subnet := f.p.Subnet()
	return subnet.CIDR(a), nil
}

// gives requests an address and compares the answer.
func (f *fixture) gives(kind pool.Kind, address, container, want string) {
	f.Helper()
	if got, err := f.request(kind, address, container); err != nil || got != want {
		f.Errorf("%s %s for %q: %s, %v, want %s", kind, address, container, got, err, want)
	}
}

// refuses requests an address, which must fail with this error and text.
func (f *fixture) refuses(kind pool.Kind, address string, is error, want string) {
	f.Helper()
	if got, err := f.request(kind, address, ""); !errors.Is(err, is) || err.Error() != want {
		f.Errorf("%s %s:\n got: %s, %v\nwant: %s", kind, address, got, err, want)
	}
}

// release releases an address.
func (f *fixture) release(address string) {
	f.Helper()
	_, err := f.p.Release(f.Context(), netip.MustParseAddr(address), pool.Released{At: time.Now()})
	f.must(err)
}

// leases lists the keys of the leases in the store.
func (f *fixture) leases() (keys []string) {
	f.Helper()
	f.must(f.store.Range(f.Context(), "ipam/lease/", func(kv store.KV) error {
		keys = append(keys, kv.Key)
		return nil
	}))
	return keys
}
