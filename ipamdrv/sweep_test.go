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

// networkDriver is what the network driver says.
type networkDriver struct {
	mu   sync.Mutex // guards the fields below
	uses []ipamdrv.Use
	err  error
}

// says changes it.
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

// swept runs a story with a driver that ends leases which no endpoint has.
func swept(t *testing.T, run func(b *bench, net *networkDriver)) {
	t.Helper()
	story(t, func(b *bench) {
		var net networkDriver
		defer b.sweeping(&net)()
		run(b, &net)
	})
}

// sweeping puts a driver that ends leases which no endpoint has in the place of the bench's; end ends its work.
func (b *bench) sweeping(net *networkDriver) (end func()) {
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

// use is a network with these addresses.
func use(network string, addrs ...string) ipamdrv.Use {
	u := ipamdrv.Use{Network: network}
	for _, a := range addrs {
		u.Addrs = append(u.Addrs, netip.MustParseAddr(a))
	}
	return u
}

// network makes a pool and a network of the network driver's with it.
func (b *bench) network(name, subnet string) (pool string) {
	b.Helper()
	pool = b.pool(subnet, "")
	b.d.BindPool(b.Context(), name, "passthrough-local", subnet)
	return pool
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

// A lease that no endpoint has is ended after two looks; one that has an endpoint, the gateway and what was named by address
// before the network was made stay.
func TestSweep(t *testing.T) {
	swept(t, func(b *bench, net *networkDriver) {
		pool := b.pool("10.0.0.0/24", "")
		b.gives(pool, "10.0.0.1", asGateway, "10.0.0.1/24")
		b.gives(pool, "10.0.0.200", nil, "10.0.0.200/24")
		b.d.BindPool(b.Context(), "n", "passthrough-local", "10.0.0.0/24")
		live, lost := b.chosen(pool), b.chosen(pool)
		net.says(nil, use("n", live))
		wait(19 * time.Minute)
		wantHeld(b.T, b.store, "before the second look", "10.0.0.1", "10.0.0.200", live, lost)
		wait(3 * time.Minute)
		wantHeld(b.T, b.store, "after it", "10.0.0.1", "10.0.0.200", live)
	})
}

// An endpoint that comes late, or an address that is given again meanwhile, is not a lease that nobody has.
func TestSweepSecondLook(t *testing.T) {
	swept(t, func(b *bench, net *networkDriver) {
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
		wantHeld(b.T, b.store, "the one that nobody has again", late)
	})
}

// Nothing is ended on evidence that is not certain: the network driver cannot be asked, or the pool may be another one's.
func TestSweepUncertain(t *testing.T) {
	swept(t, func(b *bench, net *networkDriver) {
		others := b.pool("10.0.0.0/24", "")
		b.d.BindPool(b.Context(), "n", "LocalDefault", "10.0.0.0/24") // which has the engine's own IPAM
		ours := b.pool("10.0.0.0/24", "")
		b.d.BindPool(b.Context(), "m", "passthrough-local", "10.0.0.0/24") // either could be meant
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
		wantHeld(b.T, b.store, "the one that is known to be nobody's", one, two)
	})
}

// What is asked for by address after the network was made is a container's, also on engines that tell no name, and goes as
// others do. While it is not known which network has the pool it may be an --aux-address.
func TestSweepAsked(t *testing.T) {
	swept(t, func(b *bench, net *networkDriver) {
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

// An engine or a plugin that was started may have lost a release. What was leased before is free sooner then, and who asks for it
// meanwhile hears when.
func TestSweepAfterStart(t *testing.T) {
	for name, c := range map[string]struct {
		plugin bool
		freeBy string
	}{"engine": {false, "00:07:05"}, "plugin": {true, "00:07:06"}} {
		t.Run(name, func(t *testing.T) {
			story(t, func(b *bench) {
				var net networkDriver
				end := b.sweeping(&net)
				defer func() { end() }()
				pool := b.network("n", "10.0.0.0/24")
				live, lost := b.chosen(pool), b.chosen(pool)
				b.gives(pool, "10.0.0.200", nil, "10.0.0.200/24")
				net.says(nil, use("n", live))
				wait(time.Second)
				if c.plugin {
					end()
					end = b.sweeping(&net)
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

// So it is in a pool that networks share, of each of them by itself.
func TestSweepAskedOfShared(t *testing.T) {
	swept(t, func(b *bench, net *networkDriver) {
		one := b.poolWith("10.0.0.0/24", "pool=lan")
		b.gives(one, "10.0.0.200", nil, "10.0.0.200/24")
		b.d.BindPool(b.Context(), "n", "passthrough-local", "10.0.0.0/24")
		b.gives(one, "10.0.0.7", nil, "10.0.0.7/24")
		two := b.poolWith("10.0.0.0/24", "pool=lan")
		b.gives(two, "10.0.0.201", nil, "10.0.0.201/24")
		b.d.BindPool(b.Context(), "m", "passthrough-local", "10.0.0.0/24")
		b.gives(two, "10.0.0.8", nil, "10.0.0.8/24")
		b.gives(two, "10.0.0.9", nil, "10.0.0.9/24")
		net.says(nil, use("n"), use("m", "10.0.0.9"))
		wait(time.Hour)
		wantHeld(b.T, b.store, "in the end", "10.0.0.200", "10.0.0.201", "10.0.0.9")
	})
}

// A name makes a container of what asks by address.
func TestSweepNamed(t *testing.T) {
	swept(t, func(b *bench, net *networkDriver) {
		pool := b.network("n", "10.0.0.0/24")
		b.gives(pool, "10.0.0.7", named, "10.0.0.7/24")
		net.says(nil, use("n"))
		wait(time.Hour)
		wantHeld(b.T, b.store, "in the end")
	})
}

// A pool whose network is gone, or has taken another since, goes; while containers have addresses of it, it stays.
func TestSweepPools(t *testing.T) {
	swept(t, func(b *bench, net *networkDriver) {
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

// In a ledger that nodes share only this node's leases are looked at.
func TestSweepOfOneNode(t *testing.T) {
	clustered(t, func(t *testing.T, under *store.Memory, _ *storetest.Faults) {
		a, c := newNode(t, under), newNode(t, under)
		pa, pc := a.pool("10.0.0.0/24", "pool=lan"), c.pool("10.0.0.0/24", "pool=lan")
		a.d.BindPool(t.Context(), "n", "passthrough-local", "10.0.0.0/24")
		c.d.BindPool(t.Context(), "n", "passthrough-local", "10.0.0.0/24")
		mine, theirs := a.get(pa), c.get(pc)
		d, err := ipamdrv.New(ipamdrv.Config{Store: under, Own: a.own, Journal: journal.New(a.journal),
			Uses: func(context.Context) ([]ipamdrv.Use, error) { return []ipamdrv.Use{use("n")}, nil }})
		if err != nil {
			t.Fatal(err)
		}
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
