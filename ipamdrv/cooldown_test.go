package ipamdrv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
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

// TestStickyByDefault: without an option an address is kept for an hour for a container whose name or MAC the engine sends, through a restart
// of the plugin. The address of another one is free at once.
func TestStickyByDefault(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/29")
		b.gives(n, "", by("web"), "10.99.0.2/29")
		b.gives(n, "", byMAC("02:00:00:00:00:01"), "10.99.0.3/29")
		b.gives(n, "", nil, "10.99.0.4/29")
		for range 2 {
			b.release(n, "10.99.0.2")
			b.release(n, "10.99.0.3")
			b.restart()
			b.gives(n, "", byMAC("02:00:00:00:00:01"), "10.99.0.3/29")
			b.gives(n, "", by("web"), "10.99.0.2/29")
			wait(59 * time.Minute)
		}
		b.release(n, "10.99.0.3")
		b.release(n, "10.99.0.4")
		wait(time.Minute)
		b.release(n, "10.99.0.2")
		for _, want := range []string{"10.99.0.5/29", "10.99.0.6/29", "10.99.0.4/29"} { // first what is kept for no container
			b.gives(n, "", by("new"), want)
		}
		b.gives(n, "", by("newer"), "10.99.0.3/29") // then what was released first
		b.gives(n, "", by("web"), "10.99.0.2/29")
		b.release(n, "10.99.0.2")
		wait(time.Hour)
		b.gives(n, "", by("newest"), "10.99.0.2/29")
	})
}

// TestStickyOff: no address is kept if the user says so, or wants a released address to be given again at once; none stays in the ledger.
func TestStickyOff(t *testing.T) {
	for _, option := range []string{"sticky=off", "reuse=immediate"} {
		withFixture(t, func(b *fixture) {
			n := b.poolWith("10.99.0.0/29", option)
			b.gives(n, "", by("web"), "10.99.0.2/29")
			b.release(n, "10.99.0.2")
			if left := keys(t, b.store, "ipam/lease/"); len(left) > 0 {
				t.Errorf("%s: in the ledger is %q", option, left)
			}
		})
	}
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/29", "reuse=immediate", "sticky=1h")
		b.gives(n, "", by("web"), "10.99.0.2/29")
		b.release(n, "10.99.0.2")
		b.gives(n, "", by("db"), "10.99.0.3/29")
		b.gives(n, "", by("web"), "10.99.0.2/29")
	})
}

// TestRequestedUnnamed: it is known of an address for a minute that the engine requested it without a container's name, and of no other.
func TestRequestedUnnamed(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/24")
		b.gives(n, "10.99.0.2", nil, "10.99.0.2/24")
		b.gives(n, "10.99.0.3", by("web"), "10.99.0.3/24")
		unnamed := func() (all string) {
			for _, a := range []string{"10.99.0.2/24", "10.99.0.3/24", "10.99.0.4/24"} {
				if b.d.RequestedUnnamed(a) {
					all += a
				}
			}
			return all
		}
		if got := unnamed(); got != "10.99.0.2/24" {
			t.Errorf("requested without a name: %q", got)
		}
		b.release(n, "10.99.0.2")
		if got := unnamed(); got != "" {
			t.Errorf("after its release: %q", got)
		}
		b.gives(n, "10.99.0.4", nil, "10.99.0.4/24")
		wait(2 * time.Minute)
		if got := unnamed(); got != "" {
			t.Errorf("two minutes later: %q", got)
		}
	})
}
