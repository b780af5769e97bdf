package ipamdrv_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/journal"
	"github.com/mellanox/passthrough/store/storetest"
)

// networkDriver answers which endpoints there are.
type networkDriver struct {
	mu   sync.Mutex // guards the fields below
	uses []ipamdrv.Use
	err  error
}

// says sets the answer.
func (n *networkDriver) says(err error, uses ...ipamdrv.Use) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.uses, n.err = uses, err
}

func (n *networkDriver) answer(context.Context) ([]ipamdrv.Use, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.uses, n.err
}

// withGC runs a test with a driver whose garbage collection runs.
func withGC(t *testing.T, run func(b *fixture, net *networkDriver)) {
	t.Helper()
	withFixture(t, func(b *fixture) {
		var net networkDriver
		defer b.startGC(&net)()
		run(b, &net)
	})
}

// startGC replaces the driver by one whose garbage collection runs; end stops it.
func (b *fixture) startGC(net *networkDriver) (end func()) {
	b.Helper()
	d, err := ipamdrv.New(ipamdrv.Config{Store: b.store, Uses: net.answer})
	if err != nil {
		b.Fatal(err)
	}
	b.d = d
	ctx, end := context.WithCancel(b.Context())
	go func() { _ = d.Maintain(ctx) }()
	return end
}

// use is the use of a network whose endpoints have these addresses.
func use(network string, addrs ...string) ipamdrv.Use {
	u := ipamdrv.Use{Network: network}
	for _, a := range addrs {
		u.Addrs = append(u.Addrs, netip.MustParseAddr(a))
	}
	return u
}

// network creates a pool, and a network of the network driver that has it.
func (b *fixture) network(name, subnet string) (pool string) {
	b.Helper()
	pool = b.pool(subnet, "")
	b.d.BindPool(b.Context(), name, "passthrough-local", subnet, "", nil, false)
	return pool
}

// chosen requests any address, without a container name.
func (b *fixture) chosen(pool string) string {
	b.Helper()
	got, err := b.request(pool, "", nil)
	if err != nil {
		b.Fatal(err)
	}
	return netip.MustParsePrefix(got).Addr().String()
}

// TestGC: a lease without an endpoint is released in the second round that finds it so. A lease with an endpoint stays, and so do the
// gateway and addresses that were requested before the network was created (--aux-address).
func TestGC(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		pool := b.pool("10.0.0.0/24", "")
		b.gives(pool, "10.0.0.1", asGateway, "10.0.0.1/24")
		b.gives(pool, "10.0.0.200", nil, "10.0.0.200/24")
		b.d.BindPool(b.Context(), "n", "passthrough-local", "10.0.0.0/24", "10.0.0.1/24", []string{"10.0.0.200/24"}, false)
		live, lost := b.chosen(pool), b.chosen(pool)
		net.says(nil, use("n", live))
		wait(19 * time.Minute)
		wantHeld(b.T, b.store, "before the second look", "10.0.0.1", "10.0.0.200", live, lost)
		wait(3 * time.Minute)
		wantHeld(b.T, b.store, "after it", "10.0.0.1", "10.0.0.200", live)
	})
}

// TestGCSecondRound: a lease stays if its endpoint appears between the rounds, or if it was released and given again.
func TestGCSecondRound(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		pool := b.network("n", "10.0.0.0/30")
		late, again := b.chosen(pool), b.chosen(pool)
		net.says(nil, use("n"))
		wait(15 * time.Minute)
		net.says(nil, use("n", late))
		b.release(pool, again)
		if got := b.chosen(pool); got != again {
			b.Fatalf("got %s", got)
		}
		wait(8 * time.Minute)
		wantHeld(b.T, b.store, "both", late, again)
		wait(20 * time.Minute)
		wantHeld(b.T, b.store, "without the one that has no endpoint", late)
	})
}

// TestGCUncertain: without certain evidence no lease is released: the network driver does not answer, or it is not known which network
// has the pool.
func TestGCUncertain(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		others := b.pool("10.0.0.0/24", "")
		b.d.BindPool(b.Context(), "n", "LocalDefault", "10.0.0.0/24", "", nil, false) // which has the engine's own IPAM
		ours := b.pool("10.0.0.0/24", "")
		b.d.BindPool(b.Context(), "m", "passthrough-local", "10.0.0.0/24", "", nil, false) // its subnet is that of both pools
		one, two := b.chosen(others), b.chosen(ours)
		net.says(nil, use("n"), use("m"))
		wait(time.Hour)
		wantHeld(b.T, b.store, "not known whose", one, two)
		known := b.network("k", "10.0.0.0/24")
		three := b.chosen(known)
		net.says(errors.New("no"))
		wait(time.Hour)
		wantHeld(b.T, b.store, "not asked", one, two, three)
		net.says(nil, use("n"), use("m"), use("k"))
		wait(time.Hour)
		wantHeld(b.T, b.store, "without the one whose network is known", one, two)
	})
}

// TestGCExactAddress: an exact address that is requested after the network was created is a container's, also on engines that send no
// name. While it is not known which network has the pool, it may be an --aux-address.
func TestGCExactAddress(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		pool, unknown := b.network("n", "10.0.0.0/24"), b.pool("10.1.0.0/24", "")
		for _, a := range []string{"10.0.0.7", "10.0.0.8"} {
			b.gives(pool, a, nil, a+"/24")
		}
		b.refuses(pool, "10.0.0.7", nil, ipamdrv.ErrInUse, "pool 10.0.0.0/24: request address 10.0.0.7: in use since "+
			"2000-01-01 00:00:00 UTC by a container")
		b.gives(unknown, "10.1.0.7", nil, "10.1.0.7/24")
		net.says(nil, use("n", "10.0.0.8"))
		wait(19 * time.Minute)
		wantHeld(b.T, b.store, "before the second look", "10.0.0.7", "10.0.0.8", "10.1.0.7")
		wait(3 * time.Minute)
		wantHeld(b.T, b.store, "after it", "10.0.0.8", "10.1.0.7")
	})
}

// TestGCAfterStart: when the engine or the plugin starts, a release may have been lost. Older leases without an endpoint are released
// sooner then, and the error for a taken address says when.
func TestGCAfterStart(t *testing.T) {
	for name, c := range map[string]struct {
		plugin bool
		freeBy string
	}{"engine": {false, "00:07:05"}, "plugin": {true, "00:07:06"}} {
		t.Run(name, func(t *testing.T) {
			withFixture(t, func(b *fixture) {
				var net networkDriver
				end := b.startGC(&net)
				defer func() { end() }()
				pool := b.network("n", "10.0.0.0/24")
				live, lost := b.chosen(pool), b.chosen(pool)
				b.gives(pool, "10.0.0.200", nil, "10.0.0.200/24")
				net.says(nil, use("n", live))
				wait(time.Second)
				if c.plugin {
					end()
					end = b.startGC(&net)
				} else if _, err := b.d.GetCapabilities(b.Context(), nil); err != nil {
					b.Error(err)
				}
				wait(time.Second)
				later := b.chosen(pool)
				const inUse = "pool 10.0.0.0/24: request address 10.0.0.200: in use since 2000-01-01 00:00:00 UTC by a container"
				b.refuses(pool, "10.0.0.200", nil, ipamdrv.ErrInUse, inUse)
				wait(5 * time.Minute)
				b.refuses(pool, "10.0.0.200", nil, ipamdrv.ErrInUse, inUse+
					"; no endpoint has it: if that stays so, it is free by 2000-01-01 "+c.freeBy+" UTC")
				b.release(pool, lost)
				b.gives(pool, lost, nil, lost+"/24")
				b.refuses(pool, lost, nil, ipamdrv.ErrInUse, "pool 10.0.0.0/24: request address "+lost+
					": in use since 2000-01-01 00:05:02 UTC by a container")
				wantHeld(b.T, b.store, "before the second look", live, lost, later, "10.0.0.200")
				wait(3 * time.Minute)
				wantHeld(b.T, b.store, "after it", live, lost, later)
				wait(20 * time.Minute)
				wantHeld(b.T, b.store, "when those from since then have gone, too", live)
			})
		})
	}
}

// TestGCForgotten: a lease whose endpoint the network driver removed, because the engine forgot it, is released at once. Until then the error of a
// request says when. A younger lease of the address stays.
func TestGCForgotten(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		pool := b.network("n", "10.0.0.0/24")
		for _, a := range []string{"10.0.0.7", "10.0.0.8"} {
			b.gives(pool, a, nil, a+"/24")
		}
		ends := use("n", "10.0.0.7", "10.0.0.8")
		net.says(nil, ends)
		wait(time.Hour)
		ends.EndsBy = map[netip.Addr]time.Time{netip.MustParseAddr("10.0.0.7"): time.Now().Add(5 * time.Minute)}
		net.says(nil, ends)
		wait(2 * time.Minute)
		b.refuses(pool, "10.0.0.7", nil, ipamdrv.ErrInUse, "pool 10.0.0.0/24: request address 10.0.0.7: in use since 2000-01-01 00:00:00 UTC by a "+
			"container; the engine seems to have forgotten its endpoint: if that stays so, it is free by 2000-01-01 01:06:05 UTC")
		wait(time.Hour)
		wantHeld(b.T, b.store, "as long as there are endpoints", "10.0.0.7", "10.0.0.8")
		net.says(nil, use("n", "10.0.0.8"))
		b.d.AddressesForgotten("n", []string{"10.0.0.7/24", "10.0.0.8/24", "fd00::7/64"}) // another endpoint has the second
		b.d.AddressesForgotten("m", []string{"10.0.0.8/24"})
		wait(6 * time.Second)
		wantHeld(b.T, b.store, "after it was forgotten", "10.0.0.8")

		b.release(pool, "10.0.0.8")
		b.gives(pool, "10.0.0.8", nil, "10.0.0.8/24")
		net.says(nil, use("n"))
		b.d.AddressesForgotten("n", []string{"10.0.0.8/24"})
		wait(9 * time.Minute)
		wantHeld(b.T, b.store, "a younger lease", "10.0.0.8")
	})
}

// TestGCExactAddressOfSharedPool: the same for each of the networks that share a pool.
func TestGCExactAddressOfSharedPool(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		one := b.poolWith("10.0.0.0/24", "pool=lan")
		b.gives(one, "10.0.0.200", nil, "10.0.0.200/24")
		b.d.BindPool(b.Context(), "n", "passthrough-local", "10.0.0.0/24", "", []string{"10.0.0.200/24"}, false)
		b.gives(one, "10.0.0.7", nil, "10.0.0.7/24")
		two := b.poolWith("10.0.0.0/24", "pool=lan")
		b.gives(two, "10.0.0.201", nil, "10.0.0.201/24")
		b.d.BindPool(b.Context(), "m", "passthrough-local", "10.0.0.0/24", "", []string{"10.0.0.201/24"}, false)
		b.gives(two, "10.0.0.8", nil, "10.0.0.8/24")
		b.gives(two, "10.0.0.9", nil, "10.0.0.9/24")
		net.says(nil, use("n"), use("m", "10.0.0.9"))
		wait(time.Hour)
		wantHeld(b.T, b.store, "in the end", "10.0.0.200", "10.0.0.201", "10.0.0.9")
	})
}

// TestGCNamedContainer: an exact address that was requested with a name is a container's.
func TestGCNamedContainer(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		pool := b.network("n", "10.0.0.0/24")
		b.gives(pool, "10.0.0.7", named, "10.0.0.7/24")
		net.says(nil, use("n"))
		wait(time.Hour)
		wantHeld(b.T, b.store, "in the end")
	})
}

// TestGCPools: a pool is released if its network is gone or has got another pool since; not while containers have addresses of it.
func TestGCPools(t *testing.T) {
	withGC(t, func(b *fixture, net *networkDriver) {
		b.network("gone", "10.1.0.0/24")
		before := b.network("n", "10.0.0.0/24")
		live := b.chosen(before)
		wait(2 * time.Minute)
		b.network("n", "10.0.0.0/24")
		net.says(nil, use("n", live))
		wait(time.Hour)
		if got := pools(b.T, b.store); len(got) != 2 {
			b.Errorf("there are %v, want both of the network that is there", got)
		}
		net.says(nil, use("n"))
		wait(time.Hour)
		if got := pools(b.T, b.store); len(got) != 1 || got[0] == before {
			b.Errorf("there are %v, want the later one", got)
		}
	})
}

// TestGCOfOneNode: in a shared ledger a node collects only its own leases.
func TestGCOfOneNode(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		a, c := newNode(t, under), newNode(t, under)
		pa, pc := a.pool("10.0.0.0/24", "pool=lan"), c.pool("10.0.0.0/24", "pool=lan")
		a.d.BindPool(t.Context(), "n", "passthrough-local", "10.0.0.0/24", "", nil, false)
		c.d.BindPool(t.Context(), "n", "passthrough-local", "10.0.0.0/24", "", nil, false)
		mine, theirs := a.get(pa), c.get(pc)
		d, err := ipamdrv.New(ipamdrv.Config{Store: under, Own: a.own, Journal: journal.New(a.journal),
			Uses: func(context.Context) ([]ipamdrv.Use, error) { return []ipamdrv.Use{use("n")}, nil }})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		a.end()
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go func() { _ = d.Maintain(ctx) }()
		wait(time.Hour)
		wantHeld(t, under, "without "+mine, theirs)
		if _, err := d.ReleasePool(t.Context(), &ipam.ReleasePoolRequest{PoolID: pa}); err != nil {
			t.Error(err)
		}
	})
}
