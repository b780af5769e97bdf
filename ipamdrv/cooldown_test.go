package ipamdrv_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/store"
)

// poolWith makes a pool with options, given as "NAME=VALUE", and returns its handle.
func (b *fixture) poolWith(subnet string, options ...string) string {
	b.Helper()
	r, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{Pool: subnet, Options: pairs(options)})
	if err != nil {
		b.Fatalf("RequestPool(%q, %q): %v", subnet, options, err)
	}
	return r.PoolID
}

// pairs makes a map of "NAME=VALUE".
func pairs(options []string) map[string]string {
	m := map[string]string{}
	for _, o := range options {
		name, value, _ := strings.Cut(o, "=")
		m[name] = value
	}
	return m
}

// by returns the options of a request that an engine from 29 on makes for a container.
func by(name string) map[string]string {
	return map[string]string{"com.docker.network.endpoint.name": name}
}

// byMAC returns the options of a request by an engine that sends MACs.
func byMAC(mac string) map[string]string {
	return map[string]string{"com.docker.network.endpoint.macaddress": mac}
}

func TestReuseImmediately(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/24", "reuse=immediate")
		for range 3 {
			b.gives(n, "", nil, "10.99.0.2/24")
			b.gives(n, "", nil, "10.99.0.3/24")
			b.release(n, "10.99.0.2")
			b.gives(n, "", nil, "10.99.0.2/24")
			b.release(n, "10.99.0.3")
			b.release(n, "10.99.0.2")
			b.restart()
		}
	})
}

// TestQuarantine: a released address is not allocated before its cooldown is over, also after a restart. A container can request it.
func TestQuarantine(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/30", "quarantine=30s")
		b.gives(n, "", nil, "10.99.0.1/30")
		b.gives(n, "", nil, "10.99.0.2/30")
		b.release(n, "10.99.0.1")
		b.release(n, "10.99.0.1")
		full := "pool 10.99.0.0/30: request address: all 2 addresses are taken, 1 of them in quarantine; " +
			"remove a container, or create the network with a larger --subnet"
		b.refuses(n, "", nil, ipamdrv.ErrFull, full)
		b.gives(n, "10.99.0.1", nil, "10.99.0.1/30")
		b.release(n, "10.99.0.1")
		wait(30*time.Second - time.Nanosecond)
		b.restart()
		b.refuses(n, "", nil, ipamdrv.ErrFull, full)
		wait(time.Nanosecond)
		b.gives(n, "", nil, "10.99.0.1/30")
		b.releasePool(n)
		if left := keys(t, b.store, ""); len(left) > 0 {
			t.Errorf("the ledger still has %q", left)
		}
	})
}

// TestExpiredCooldownsRemoved: allocations remove the records of expired cooldowns, however many there are.
func TestExpiredCooldownsRemoved(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/24", "quarantine=1s")
		for i := range 200 {
			b.gives(n, "", nil, fmt.Sprintf("10.99.0.%d/24", i+2))
		}
		for i := range 200 {
			b.release(n, fmt.Sprintf("10.99.0.%d", i+2))
		}
		wait(time.Second)
		for range 15 { // each removes up to 16 records
			if _, err := b.request(n, "", nil); err != nil {
				t.Fatal(err)
			}
		}
		if left := keys(t, b.store, "ipam/lease/"); len(left) != 15 {
			t.Errorf("15 are leased, and there are %d records", len(left))
		}
	})
}

// TestSticky: a container that returns gets the address that it had, until the time of the option sticky is over.
func TestSticky(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/24", "sticky=1h")
		b.gives(n, "", by("web"), "10.99.0.2/24")
		b.gives(n, "", byMAC("02:00:00:00:00:01"), "10.99.0.3/24")
		b.gives(n, "", nil, "10.99.0.4/24")
		b.gives(n, "", by("app.1.unhitbzs526445gskxdpjfkzs"), "10.99.0.5/24")
		for range 2 {
			for _, a := range []string{"10.99.0.2", "10.99.0.3", "10.99.0.4", "10.99.0.5"} {
				b.release(n, a)
			}
			b.restart()
			b.gives(n, "", by("app.1.layvr0zb3jsknyir3mmeor8sy"), "10.99.0.5/24") // the same slot of the service
			b.gives(n, "", by("web"), "10.99.0.2/24")
			b.gives(n, "", byMAC("02:00:00:00:00:01"), "10.99.0.3/24")
			b.gives(n, "10.99.0.4", nil, "10.99.0.4/24")
		}
		b.gives(n, "", by("web"), "10.99.0.6/24") // a second container of this name while the first one runs
		b.release(n, "10.99.0.2")
		b.gives(n, "10.99.0.2", by("db"), "10.99.0.2/24") // a requested address is given, although it is kept for another container
		b.release(n, "10.99.0.2")
		wait(time.Hour)
		b.gives(n, "", by("db"), "10.99.0.7/24")
	})
}

// TestStickyGivenWhenFull: an address that is kept for a container is given to another one if no other is left, the one that was released
// first. One in quarantine is not.
func TestStickyGivenWhenFull(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/29", "sticky=1h", "quarantine=10s")
		for i, name := range []string{"c0", "c1", "c2", "c3", "c4"} {
			b.gives(n, "", by(name), fmt.Sprintf("10.99.0.%d/29", i+2))
		}
		for _, a := range []string{"10.99.0.5", "10.99.0.3", "10.99.0.6"} {
			b.release(n, a)
			wait(4 * time.Second)
		}
		b.refuses(n, "10.99.0.2", nil, ipamdrv.ErrInUse, "pool 10.99.0.0/29: request address 10.99.0.2: in use since "+
			`2000-01-01 00:00:00 UTC by container "c0"`)
		b.gives(n, "", by("new"), "10.99.0.5/29")
		b.refuses(n, "", by("newer"), ipamdrv.ErrFull, "pool 10.99.0.0/29: request address: all 5 addresses are taken, "+
			"2 of them in quarantine; remove a container, or create the network with a larger --subnet; "+
			"10.99.0.1 is kept for a router, a container can have it with --ip")
		b.gives(n, "", by("c4"), "10.99.0.6/29") // the one that is kept for c4
		wait(10 * time.Second)
		b.gives(n, "", by("newer"), "10.99.0.3/29")
	})
}

// TestCooldownHasNoContainer: after its release an address has no container name.
func TestCooldownHasNoContainer(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/24", "sticky=1h")
		b.gives(n, "", by("web"), "10.99.0.2/24")
		if got := b.d.ContainerName("10.99.0.2/24"); got != "web" {
			t.Errorf("container %q, want web", got)
		}
		b.release(n, "10.99.0.2")
		if got := b.d.ContainerName("10.99.0.2/24"); got != "" {
			t.Errorf("container %q, want none", got)
		}
	})
}

// TestCooldownFromTheFuture: a cooldown that was written while the clock was wrong ends.
func TestCooldownFromTheFuture(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/30", "quarantine=1h")
		id := strings.TrimPrefix(n, "v1:")
		for addr, since := range map[string]string{"10.99.0.1": "2000-01-01T00:30:00Z", "10.99.0.2": "2001-01-01T00:00:00Z"} {
			op := store.Put("ipam/lease/"+id+"/"+addr, []byte(`{"v":1,"kind":"resting","since":"`+since+`"}`))
			if _, err := b.store.Txn(b.Context(), nil, []store.Op{op}); err != nil {
				t.Fatal(err)
			}
		}
		wait(90*time.Minute - time.Second)
		b.refuses(n, "", nil, ipamdrv.ErrFull, "pool 10.99.0.0/30: request address: all 2 addresses are taken, 2 of them in "+
			"quarantine; remove a container, or create the network with a larger --subnet")
		wait(time.Second)
		b.gives(n, "", nil, "10.99.0.1/30")
		b.gives(n, "", nil, "10.99.0.2/30")
	})
}
