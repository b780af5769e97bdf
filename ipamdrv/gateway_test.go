package ipamdrv_test

import (
	"testing"
	"time"
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
