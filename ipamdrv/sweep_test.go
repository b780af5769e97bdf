package ipamdrv_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// swept runs a story with a driver that ends leases which no endpoint has; uses is what the network driver says.
func swept(t *testing.T, run func(b *bench, uses *[]ipamdrv.Use, fail *error)) {
	t.Helper()
	story(t, func(b *bench) {
		var uses []ipamdrv.Use
		var fail error
		d, err := ipamdrv.New(ipamdrv.Config{Store: b.store,
			Uses: func(context.Context) ([]ipamdrv.Use, error) { return uses, fail }})
		if err != nil {
			b.Fatal(err)
		}
		b.d = d
		ctx, end := context.WithCancel(b.Context())
		defer end()
		go func() { _ = d.Maintain(ctx) }()
		run(b, &uses, &fail)
	})
}

// use is a network with one subnet.
func use(subnet string, addrs ...string) ipamdrv.Use {
	u := ipamdrv.Use{Subnets: []netip.Prefix{netip.MustParsePrefix(subnet)}}
	for _, a := range addrs {
		u.Addrs = append(u.Addrs, netip.MustParseAddr(a))
	}
	return u
}

// chosen asks for an address, without a word on who wants it.
func (b *bench) chosen(pool string) string {
	b.Helper()
	got, err := b.request(pool, "", nil)
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParsePrefix(got).Addr().String()
}

// A lease that no endpoint has is ended after two looks; one that has an endpoint, the gateway and what somebody named by
// address stay.
func TestSweep(t *testing.T) {
	swept(t, func(b *bench, uses *[]ipamdrv.Use, _ *error) {
		pool := b.pool("10.0.0.0/24", "")
		b.gives(pool, "10.0.0.1", asGateway, "10.0.0.1/24")
		b.gives(pool, "10.0.0.200", nil, "10.0.0.200/24")
		live, lost := b.chosen(pool), b.chosen(pool)
		*uses = []ipamdrv.Use{use("10.0.0.0/24", live)}
		wait(19 * time.Minute)
		wantHeld(b.T, b.store, "before the second look", "10.0.0.1", "10.0.0.200", live, lost)
		wait(3 * time.Minute)
		wantHeld(b.T, b.store, "after it", "10.0.0.1", "10.0.0.200", live)
	})
}

// An endpoint that comes late, or an address that is given again meanwhile, is not a lease that nobody has.
func TestSweepSecondLook(t *testing.T) {
	swept(t, func(b *bench, uses *[]ipamdrv.Use, _ *error) {
		pool := b.pool("10.0.0.0/30", "")
		late, again := b.chosen(pool), b.chosen(pool)
		*uses = []ipamdrv.Use{use("10.0.0.0/30")}
		wait(15 * time.Minute)
		*uses = []ipamdrv.Use{use("10.0.0.0/30", late)}
		b.release(pool, again)
		if got := b.chosen(pool); got != again {
			b.Fatalf("got %s", got)
		}
		wait(8 * time.Minute)
		wantHeld(b.T, b.store, "both", late, again)
		wait(20 * time.Minute)
		wantHeld(b.T, b.store, "the one that nobody has again", late)
	})
}

// Nothing is ended on evidence that is not certain: the network driver cannot be asked, or it does not know of each network
// that has such a subnet.
func TestSweepUncertain(t *testing.T) {
	swept(t, func(b *bench, uses *[]ipamdrv.Use, fail *error) {
		ours, others := b.pool("10.0.0.0/24", ""), b.pool("10.0.0.0/24", "")
		one, two := b.chosen(ours), b.chosen(others)
		*fail = errors.New("no")
		wait(time.Hour)
		wantHeld(b.T, b.store, "not asked", one, two)
		*fail = nil
		wait(time.Hour)
		wantHeld(b.T, b.store, "of no network of ours", one, two)
		*uses = []ipamdrv.Use{use("10.0.0.0/24")}
		wait(time.Hour)
		wantHeld(b.T, b.store, "one of the two is somebody else's", one, two)
		*uses = []ipamdrv.Use{use("10.0.0.0/24"), use("10.0.0.0/24")}
		wait(time.Hour)
		wantHeld(b.T, b.store, "both are ours")
	})
}

// A name makes a container of what asks by address.
func TestSweepNamed(t *testing.T) {
	swept(t, func(b *bench, uses *[]ipamdrv.Use, _ *error) {
		pool := b.pool("10.0.0.0/24", "")
		b.gives(pool, "10.0.0.7", named, "10.0.0.7/24")
		*uses = []ipamdrv.Use{use("10.0.0.0/24")}
		wait(time.Hour)
		wantHeld(b.T, b.store, "in the end")
	})
}

// In a ledger that nodes share only this node's leases are looked at.
func TestSweepOfOneNode(t *testing.T) {
	swept(t, func(b *bench, uses *[]ipamdrv.Use, _ *error) {
		a, c := newNode(b.T, b.store), newNode(b.T, b.store)
		pa, pc := a.pool("10.0.0.0/24", "pool=lan"), c.pool("10.0.0.0/24", "pool=lan")
		mine, theirs := a.get(pa), c.get(pc)
		d, err := ipamdrv.New(ipamdrv.Config{Store: b.store, Own: a.own,
			Journal: store.NewJournal(a.journal),
			Uses:    func(context.Context) ([]ipamdrv.Use, error) { return []ipamdrv.Use{use("10.0.0.0/24")}, nil }})
		if err != nil {
			b.Fatal(err)
		}
		ctx, end := context.WithCancel(b.Context())
		defer end()
		a.end()
		go func() { _ = d.Maintain(ctx) }()
		wait(time.Hour)
		wantHeld(b.T, b.store, "without "+mine, theirs)
		if _, err := d.ReleasePool(b.Context(), &ipam.ReleasePoolRequest{PoolID: pa}); err != nil {
			b.Error(err)
		}
	})
}
