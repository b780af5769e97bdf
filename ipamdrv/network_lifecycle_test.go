package ipamdrv_test

import (
	"slices"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
)

// TestNetworkLifecycle: one network from its creation to its removal, with a restart after every step.
func TestNetworkLifecycle(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.pool("10.99.0.0/24", "")
		steps := []func(){
			func() { b.gives(n, "10.99.0.1", asGateway, "10.99.0.1/24") },
			func() { b.gives(n, "10.99.0.5", nil, "10.99.0.5/24") },
			func() { b.gives(n, "", nil, "10.99.0.2/24") },
			func() { b.gives(n, "", named, "10.99.0.3/24") },
			func() { b.gives(n, "10.99.0.77", named, "10.99.0.77/24") },
			func() { b.gives(n, "", nil, "10.99.0.4/24") },
			func() { b.gives(n, "", nil, "10.99.0.6/24") },
			func() { b.release(n, "10.99.0.3") },
			func() { b.gives(n, "", nil, "10.99.0.7/24") }, // .3 was released last
			func() { b.gives(n, "10.99.0.3", nil, "10.99.0.3/24") },
			func() { b.release(n, "10.99.0.1") },
			func() { b.release(n, "10.99.0.5") },
			func() { b.releasePool(n) },
			func() {
				b.refuses(n, "", nil, ipamdrv.ErrUnknownPool,
					`pool "`+n+`": request address: no such pool; create the network again`)
			},
		}
		for _, step := range steps {
			step()
			b.restart()
		}
		if left := keys(t, b.store, ""); len(left) > 0 {
			t.Errorf("the ledger still has %q", left)
		}
	})
}

// TestSameSubnetTwice: pools of equal or overlapping subnets are independent.
func TestSameSubnetTwice(t *testing.T) {
	withFixture(t, func(b *fixture) {
		red, blue := b.pool("194.168.1.0/24", ""), b.pool("194.168.1.0/24", "")
		wide := b.pool("194.168.0.0/16", "")
		if red == blue || red == wide {
			t.Fatal("two pools have one handle")
		}
		for _, n := range []string{red, blue} {
			b.gives(n, "194.168.1.1", asGateway, "194.168.1.1/24")
			b.gives(n, "", nil, "194.168.1.2/24")
			b.gives(n, "194.168.1.9", nil, "194.168.1.9/24")
		}
		b.gives(wide, "194.168.1.2", nil, "194.168.1.2/16")
		b.release(red, "194.168.1.2")
		b.releasePool(red)
		b.gives(blue, "", nil, "194.168.1.3/24")
		b.refuses(blue, "194.168.1.2", nil, ipamdrv.ErrInUse,
			"pool 194.168.1.0/24: request address 194.168.1.2: in use since 2000-01-01 00:00:00 UTC by a container")
	})
}

// TestReleases: releasing what does not exist succeeds and changes nothing. A malformed release is an error.
func TestReleases(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.pool("10.99.0.0/24", "")
		before := keys(t, b.store, "")
		for _, addr := range []string{"10.99.0.7", "10.99.0.0", "10.98.0.1", "fd00::1", "::ffff:10.99.0.7"} {
			b.release(n, addr)
			b.release("v1:00112233445566778899aabbccddeeff", addr)
			b.release("pool-10.99.0.0/24", addr)
		}
		for _, pool := range []string{"v1:00112233445566778899aabbccddeeff", "v1:", "LocalDefault/10.0.0.0/8"} {
			b.releasePool(pool)
		}
		_, err := b.d.ReleaseAddress(b.Context(), &ipam.ReleaseAddressRequest{PoolID: n})
		wantError(t, err, ipamdrv.ErrInvalid, `release address: address "": must be an IPv4 or IPv6 address`)
		_, err = b.d.ReleaseAddress(b.Context(), &ipam.ReleaseAddressRequest{Address: "10.99.0.1"})
		wantError(t, err, ipamdrv.ErrInvalid, "release address: the request names no pool")
		_, err = b.d.ReleasePool(b.Context(), &ipam.ReleasePoolRequest{})
		wantError(t, err, ipamdrv.ErrInvalid, "release pool: the request names no pool")
		if after := keys(t, b.store, ""); !slices.Equal(before, after) {
			t.Errorf("the ledger went from %q to %q", before, after)
		}
		b.gives(n, "", nil, "10.99.0.2/24")
		b.release(n, "::ffff:10.99.0.2")
		b.gives(n, "10.99.0.2", nil, "10.99.0.2/24")
	})
}

// TestAddressesOutsideTheIndex: in a pool of more than 2^64 addresses, those without an index are leased like others.
func TestAddressesOutsideTheIndex(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.pool("fd00:1::/48", "fd00:1:0:8000::/64")
		const below, above = "fd00:1::5", "fd00:1:0:9000::5"
		for _, addr := range []string{below, above} {
			b.gives(n, addr, nil, addr+"/48")
			b.restart()
			b.refuses(n, addr, nil, ipamdrv.ErrInUse, "pool fd00:1::/48: request address "+addr+
				": in use since 2000-01-01 00:00:00 UTC by an --aux-address or a container with this --ip6")
			b.release(n, addr)
			b.gives(n, addr, named, addr+"/48")
		}
		b.gives(n, "", asGateway, "fd00:1::1/48")
		b.gives(n, "", nil, "fd00:1:0:8000::/48")
		b.gives(n, "", nil, "fd00:1:0:8000::1/48")
	})
}

func TestCapabilities(t *testing.T) {
	withFixture(t, func(b *fixture) {
		caps, err := b.d.GetCapabilities(b.Context(), &ipamdrv.Empty{})
		if err != nil || *caps != (ipamdrv.CapabilitiesResponse{}) {
			t.Errorf("GetCapabilities = %+v, %v", caps, err)
		}
		d, err := ipamdrv.New(ipamdrv.Config{Store: b.store, Capabilities: ipamdrv.Capabilities{RequireMAC: true}})
		if err != nil {
			t.Fatal(err)
		}
		caps, err = d.GetCapabilities(b.Context(), &ipamdrv.Empty{})
		if err != nil || *caps != (ipamdrv.CapabilitiesResponse{RequiresMACAddress: true}) {
			t.Errorf("GetCapabilities with RequireMAC = %+v, %v", caps, err)
		}
		spaces, err := b.d.GetDefaultAddressSpaces(b.Context(), &ipamdrv.Empty{})
		want := ipam.AddressSpacesResponse{LocalDefaultAddressSpace: "passthrough-local",
			GlobalDefaultAddressSpace: "passthrough-global"}
		if err != nil || *spaces != want {
			t.Errorf("GetDefaultAddressSpaces = %+v, %v", spaces, err)
		}
	})
}

func TestNewWithoutStore(t *testing.T) {
	if _, err := ipamdrv.New(ipamdrv.Config{}); err == nil || err.Error() != "ipam driver: no store" {
		t.Errorf("New: %v", err)
	}
}
