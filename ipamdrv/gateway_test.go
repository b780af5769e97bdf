package ipamdrv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/ipamdrv"
)

// invented checks whether a gateway was invented.
func (b *fixture) invented(pool, gateway string, want bool) {
	b.Helper()
	if got := b.d.InventedGateway(b.Context(), pool, gateway); got != want {
		b.Errorf("InventedGateway(%q, %q) = %v, want %v", pool, gateway, got, want)
	}
}

func TestGateways(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.pool("10.99.0.0/24", "10.99.0.128/25")
		b.invented("10.99.0.0/24", "10.99.0.1", false)
		for range 2 {
			b.gives(n, "", asGateway, "10.99.0.1/24")
			b.restart()
		}
		b.invented("10.99.0.0/24", "10.99.0.1", true)
		b.invented("10.99.0.0/24", "10.99.0.1/24", true)
		b.invented("10.99.0.0/24", "10.99.0.2", false)
		b.invented("10.99.0.0/25", "10.99.0.1", false)
		b.invented("10.99.0.0/24", "nonsense", false)

		for range 2 { // the user names the same address
			b.gives(n, "10.99.0.1", asGateway, "10.99.0.1/24")
			b.invented("10.99.0.0/24", "10.99.0.1", false)
			b.gives(n, "", asGateway, "10.99.0.1/24")
			b.invented("10.99.0.0/24", "10.99.0.1", false)
		}
		b.release(n, "10.99.0.1")
		b.gives(n, "10.99.0.9", asGateway, "10.99.0.9/24")
		b.gives(n, "10.99.0.1", nil, "10.99.0.1/24")

		n6 := b.pool("fd00:1::/64", "")
		b.gives(n6, "", asGateway, "fd00:1::1/64")
		b.invented("fd00:1::/64", "fd00:1::1", true)
	})
}

// TestInventedGatewayOfTheNewestPool: of several pools of one subnet the newest decides.
func TestInventedGatewayOfTheNewestPool(t *testing.T) {
	withFixture(t, func(b *fixture) {
		b.gives(b.pool("10.99.0.0/24", ""), "", asGateway, "10.99.0.1/24")
		wait(time.Second)
		second := b.pool("10.99.0.0/24", "")
		b.invented("10.99.0.0/24", "10.99.0.1", true) // the second has no gateway yet
		b.gives(second, "10.99.0.1", asGateway, "10.99.0.1/24")
		b.invented("10.99.0.0/24", "10.99.0.1", false)
		b.releasePool(second)
		b.invented("10.99.0.0/24", "10.99.0.1", true)
	})
}

// TestUnusedGateway: when a network of the network driver is created that does not use the gateway which its engine has requested, the gateway
// is released, in small subnets for containers. A gateway that a user named stays, and that of a network that is not known.
func TestUnusedGateway(t *testing.T) {
	withFixture(t, func(b *fixture) {
		for subnet, containers := range map[string][]string{"10.1.0.0/31": {"10.1.0.0/31", "10.1.0.1/31"}, "10.1.0.7/32": {"10.1.0.7/32"},
			"10.1.0.0/30": {"10.1.0.1/30", "10.1.0.2/30"}, "10.1.0.0/24": {"10.1.0.2/24", "10.1.0.3/24"}, "fd00::/127": {"fd00::/127", "fd00::1/127"}} {
			n := b.pool(subnet, "")
			gw, err := b.request(n, "", asGateway)
			if err != nil {
				t.Fatal(err)
			}
			b.d.BindPool(b.Context(), "n "+subnet, "passthrough-local", subnet, gw, nil, true)
			for _, want := range containers {
				b.gives(n, "", nil, want)
				b.restart()
			}
			addr, _, _ := strings.Cut(gw, "/")
			b.release(n, addr) // when the network is removed the engine releases it
			b.releasePool(n)
		}
		b.empty()

		named := b.pool("10.1.0.0/31", "")
		b.gives(named, "10.1.0.0", asGateway, "10.1.0.0/31")
		b.d.BindPool(b.Context(), "n1", "passthrough-local", "10.1.0.0/31", "10.1.0.0/31", nil, true)
		b.gives(named, "", nil, "10.1.0.1/31")
		used := b.pool("10.2.0.0/31", "")
		b.gives(used, "", asGateway, "10.2.0.0/31")
		b.d.BindPool(b.Context(), "n2", "passthrough-local", "10.2.0.0/31", "10.2.0.0/31", nil, false)
		b.gives(used, "", nil, "10.2.0.1/31")

		red, blue := b.poolWith("10.3.0.0/29", "pool=lan"), b.poolWith("10.3.0.0/29", "pool=lan")
		b.gives(red, "", asGateway, "10.3.0.1/29")
		b.gives(blue, "", asGateway, "10.3.0.1/29") // a macvlan network of the engine's, which uses it
		b.chosen(red)                               // both could be meant before
		b.chosen(blue)
		green := b.poolWith("10.3.0.0/29", "pool=lan")
		b.gives(green, "", asGateway, "10.3.0.1/29")
		b.d.BindPool(b.Context(), "n3", "passthrough-local", "10.3.0.0/29", "10.3.0.1/29", nil, true)
		b.refuses(green, "10.3.0.1", nil, ipamdrv.ErrInUse, "pool 10.3.0.0/29: request address 10.3.0.1: in use since "+
			"2000-01-01 00:00:00 UTC by the gateway")
	})
}
