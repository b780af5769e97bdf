package ipamdrv_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
)

func TestRefusedPools(t *testing.T) {
	const form = ": must be an address and a prefix length, such as 10.1.0.0/24 or fd00:1::/64"
	tests := []struct {
		name string
		req  ipam.RequestPoolRequest
		want string
	}{
		{"no subnet", ipam.RequestPoolRequest{},
			"no IPv4 subnet; give the network one with --subnet, or the plugin some to choose from (DEFAULT_POOLS)"},
		{"no IPv6 subnet", ipam.RequestPoolRequest{V6: true},
			"no IPv6 subnet; give the network one with --subnet, or the plugin some to choose from (DEFAULT_POOLS)"},
		{"range without subnet", ipam.RequestPoolRequest{SubPool: "10.1.0.0/24"},
			`ip-range "10.1.0.0/24": needs a --subnet`},
		{"no prefix length", ipam.RequestPoolRequest{Pool: "10.1.0.0"}, `subnet "10.1.0.0"` + form},
		{"too long", ipam.RequestPoolRequest{Pool: "10.1.0.0/33"}, `subnet "10.1.0.0/33"` + form},
		{"zone", ipam.RequestPoolRequest{Pool: "fe80::%eth0/64"}, `subnet "fe80::%eth0/64"` + form},
		{"words", ipam.RequestPoolRequest{Pool: strings.Repeat("x", 1000)},
			`subnet "` + strings.Repeat("x", 64) + `"` + form},
		{"everything", ipam.RequestPoolRequest{Pool: "0.0.0.0/0"}, "subnet 0.0.0.0/0: the prefix length must not be 0"},
		{"everything IPv6", ipam.RequestPoolRequest{Pool: "::/0"}, "subnet ::/0: the prefix length must not be 0"},
		{"IPv4 inside IPv6", ipam.RequestPoolRequest{Pool: "::/64"},
			"subnet ::/64: overlaps ::ffff:0.0.0.0/96, which stands for IPv4; give IPv4 subnets as such"},
		{"multicast", ipam.RequestPoolRequest{Pool: "239.1.0.0/24"},
			"subnet 239.1.0.0/24: multicast addresses cannot be given to a container"},
		{"range with a bad address", ipam.RequestPoolRequest{Pool: "8000::/1", SubPool: "ff02::/64"},
			"ip-range ff02::/64: multicast addresses cannot be given to a container"},
		{"mapped", ipam.RequestPoolRequest{Pool: "::ffff:10.1.0.0/120"}, "subnet ::ffff:10.1.0.0/120: it is an IPv4-mapped IPv6 subnet, " +
			"which stands for the IPv4 subnet 10.1.0.0/24; give it as such"},
		{"all mapped", ipam.RequestPoolRequest{Pool: "::ffff:0:0/96", V6: true},
			"subnet ::ffff:0.0.0.0/96: overlaps ::ffff:0.0.0.0/96, which stands for IPv4; give IPv4 subnets as such"},
		{"mapped range", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", SubPool: "::ffff:10.1.0.0/121"}, "ip-range ::ffff:10.1.0.0/121: it is an " +
			"IPv4-mapped IPv6 subnet, which stands for the IPv4 subnet 10.1.0.0/25; give it as such"},
		{"range malformed", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", SubPool: "10.1.0.9"}, `ip-range "10.1.0.9"` + form},
		{"range outside", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", SubPool: "10.2.0.0/25"},
			"ip-range 10.2.0.0/25: must be inside subnet 10.1.0.0/24"},
		{"range larger", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", SubPool: "10.1.0.0/23"},
			"ip-range 10.1.0.0/23: must be inside subnet 10.1.0.0/24"},
		{"range of the other family", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", SubPool: "fd00::/64"},
			"ip-range fd00::/64: must be inside subnet 10.1.0.0/24"},
		{"range of the network address", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", SubPool: "10.1.0.0/32"},
			"ip-range 10.1.0.0/32: its one address is the subnet's network address of 10.1.0.0/24"},
		{"range of the broadcast address", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", SubPool: "10.1.0.255/32"},
			"ip-range 10.1.0.255/32: its one address is the subnet's broadcast address of 10.1.0.0/24"},
		{"unknown option", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", Options: map[string]string{"foo": "bar"}},
			`ipam option "foo": unknown; known are exclude, gateway, pool, overflow, probe, prefetch, reuse, quarantine, sticky, slaac, dhcp, netdevice, remote`},
		{"reuse", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", Options: map[string]string{"reuse": "never"}},
			`ipam option reuse: "never" is not allowed; allowed: last or immediate`},
		{"quarantine", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", Options: map[string]string{"Quarantine": "30"}},
			`ipam option quarantine: "30" is not allowed; allowed: a duration from 1s to 8760h, such as 30s`},
		{"slaac without subnet", ipam.RequestPoolRequest{V6: true, Options: map[string]string{"slaac": "yes"}},
			"ipam option slaac: needs --subnet fe80::/64"},
		{"slaac elsewhere", ipam.RequestPoolRequest{Pool: "fd00::/64", Options: map[string]string{"slaac": "yes"}},
			"ipam option slaac: the IPv6 subnet must be fe80::/64"},
		{"slaac", ipam.RequestPoolRequest{Pool: "fe80::/64", Options: map[string]string{"slaac": "maybe"}},
			`ipam option slaac: "maybe" is not allowed; allowed: yes or no`},
		{"probe", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", Options: map[string]string{"probe": "arp"}},
			`ipam option probe: "arp" is not allowed; allowed: off, or arp@ and the name of one of the host's devices`},
		{"exclude", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", Options: map[string]string{"exclude": "10.1.0.9-10.1.0.5"}},
			`ipam option exclude: "10.1.0.9-10.1.0.5" is not allowed; allowed: up to 256 addresses, ranges A-B and subnets, ` +
				`separated by commas`},
		{"sticky", ipam.RequestPoolRequest{Pool: "10.1.0.0/24", Options: map[string]string{"sticky": "yes"}},
			`ipam option sticky: "yes" is not allowed; allowed: a duration from 1s to 8760h, such as 24h, or off`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			withFixture(t, func(b *fixture) {
				r, err := b.d.RequestPool(b.Context(), &test.req)
				if r != nil {
					t.Errorf("answer %+v", r)
				}
				wantError(t, err, ipamdrv.ErrInvalid, "request pool: "+test.want)
				if left := keys(t, b.store, ""); len(left) > 0 {
					t.Errorf("the ledger has %q", left)
				}
			})
		})
	}
}

// TestUnusableAddresses: addresses that no host can have are refused as subnet, as default pool, as gateway, as excluded range and as --ip6.
func TestUnusableAddresses(t *testing.T) {
	for prefix, what := range map[string]string{
		"0.0.0.0/8": `addresses of "this network"`, "0.0.0.0/1": `addresses of "this network"`, "0.1.2.0/24": `addresses of "this network"`,
		"127.0.0.0/8": "loopback addresses", "127.1.0.0/16": "loopback addresses", "126.0.0.0/7": "loopback addresses", "127.0.0.1/32": "loopback addresses",
		"224.0.0.0/24": "multicast addresses", "128.0.0.0/1": "multicast addresses",
		"240.0.0.0/4": "reserved addresses", "250.1.0.0/16": "reserved addresses", "255.255.255.255/32": "reserved addresses",
		"::/96": "unspecified addresses", "::/128": "unspecified addresses", "::1/128": "loopback addresses", "ff05::/64": "multicast addresses",
	} {
		want := " " + prefix + ": " + what + " cannot be given to a container"
		withFixture(t, func(b *fixture) {
			b.refusesPool(ipam.RequestPoolRequest{Pool: prefix}, ipamdrv.ErrInvalid, "request pool: subnet"+want)
			first, _, _ := strings.Cut(prefix, "/")
			bad := ": " + first + ": " + what + " cannot be given to a container"
			if what == "multicast addresses" && first == "128.0.0.0" || prefix == "126.0.0.0/7" {
				return
			}
			for _, name := range []string{"exclude", "gateway"} {
				b.refusesPool(ipam.RequestPoolRequest{Pool: "10.1.0.0/24", Options: map[string]string{name: first}}, ipamdrv.ErrInvalid,
					"request pool: ipam option "+name+bad)
			}
		})
		if _, err := ipamdrv.ParseDefaultPools(prefix + ":30"); err == nil || err.Error() != "default pool"+want {
			t.Errorf("default pool %s: %v", prefix, err)
		}
	}
	withFixture(t, func(b *fixture) {
		n := b.pool("8000::/1", "")
		b.refuses(n, "ff02::1", nil, ipamdrv.ErrInvalid, "pool 8000::/1: request address ff02::1: multicast addresses cannot be given to a container")
		b.refuses(n, "ff02::1", asGateway, ipamdrv.ErrInvalid, "pool 8000::/1: request gateway ff02::1: multicast addresses cannot be given to a container")
		b.poolWith("10.1.0.0/24", "exclude=126.0.0.0-128.0.0.0") // more than those
	})
}

// TestEngineOptionsPass: options that the engine adds are not refused.
func TestEngineOptionsPass(t *testing.T) {
	withFixture(t, func(b *fixture) {
		r, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{Pool: "10.1.0.0/24", V6: true,
			Options: map[string]string{
				"RequestAddressType": "com.docker.network.gateway", "com.docker.network.ipam.serial": "true"}})
		if err != nil || r.Pool != "10.1.0.0/24" {
			t.Errorf("RequestPool = %+v, %v", r, err)
		}
	})
}

func TestRefusedAddresses(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n4, n6 := b.pool("10.99.0.0/24", "10.99.0.128/25"), b.pool("fd00:1::/64", "")
		before := keys(t, b.store, "")
		tests := []struct {
			pool, addr string
			options    map[string]string
			kind       error
			want       string
		}{
			{n4, "10.98.0.5", nil, ipamdrv.ErrInvalid, "pool 10.99.0.0/24: request address 10.98.0.5: not in the subnet"},
			{n4, "10.98.0.1", asGateway, ipamdrv.ErrInvalid, "pool 10.99.0.0/24: request gateway 10.98.0.1: not in the subnet"},
			{n4, "10.99.0.0", nil, ipamdrv.ErrInvalid,
				"pool 10.99.0.0/24: request address 10.99.0.0: it is the subnet's network address"},
			{n4, "10.99.0.255", asGateway, ipamdrv.ErrInvalid,
				"pool 10.99.0.0/24: request gateway 10.99.0.255: it is the subnet's broadcast address"},
			{n4, "fd00:1::5", nil, ipamdrv.ErrInvalid, "pool 10.99.0.0/24: request address fd00:1::5: the pool is IPv4"},
			{n6, "10.99.0.5", nil, ipamdrv.ErrInvalid, "pool fd00:1::/64: request address 10.99.0.5: the pool is IPv6"},
			{n6, "fd00:1::", nil, ipamdrv.ErrInvalid,
				"pool fd00:1::/64: request address fd00:1::: it is the subnet-router anycast address"},
			{n6, "fd00:1::5%eth0", nil, ipamdrv.ErrInvalid, `request address: address "fd00:1::5%eth0": must not have a zone`},
			{n4, "10.99.0.5/24", nil, ipamdrv.ErrInvalid,
				`request address: address "10.99.0.5/24": must be an IPv4 or IPv6 address`},
			{n4, "ten", nil, ipamdrv.ErrInvalid, `request address: address "ten": must be an IPv4 or IPv6 address`},
			{"", "", nil, ipamdrv.ErrInvalid, "request address: the request names no pool"},
			{"pool-10.99.0.0/24", "", nil, ipamdrv.ErrUnknownPool,
				`pool "pool-10.99.0.0/24": request address: no such pool; create the network again`},
			{strings.ToUpper(n4), "", nil, ipamdrv.ErrUnknownPool,
				`pool "` + strings.ToUpper(n4) + `": request address: no such pool; create the network again`},
		}
		for _, test := range tests {
			b.refuses(test.pool, test.addr, test.options, test.kind, test.want)
		}
		if after := keys(t, b.store, ""); !slices.Equal(before, after) {
			t.Errorf("the ledger went from %q to %q", before, after)
		}
	})
}

// TestAddressInUse: the error says which container has the address, and since when.
func TestAddressInUse(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n, n6 := b.pool("10.99.0.0/24", "10.99.0.128/25"), b.pool("fd00:1::/64", "")
		b.gives(n, "10.99.0.1", asGateway, "10.99.0.1/24")
		b.gives(n, "10.99.0.5", nil, "10.99.0.5/24") // outside the ip-range is fine
		b.gives(n, "10.99.0.6", named, "10.99.0.6/24")
		b.gives(n, "", nil, "10.99.0.128/24")
		b.gives(n, "", named, "10.99.0.129/24")
		b.gives(n6, "fd00:1::5", nil, "fd00:1::5/64")
		for addr, who := range map[string]string{
			"10.99.0.1":   "the gateway",
			"10.99.0.5":   "an --aux-address or a container with this --ip",
			"10.99.0.6":   `container "c1"`,
			"10.99.0.128": "a container",
			"10.99.0.129": `container "c1"`,
		} {
			for range 2 {
				b.refuses(n, addr, nil, ipamdrv.ErrInUse,
					"pool 10.99.0.0/24: request address "+addr+": in use since 2000-01-01 00:00:00 UTC by "+who)
				b.restart()
			}
		}
		b.refuses(n6, "fd00:1::5", named, ipamdrv.ErrInUse, "pool fd00:1::/64: request address fd00:1::5: in use since "+
			"2000-01-01 00:00:00 UTC by an --aux-address or a container with this --ip6")
		b.refuses(n, "10.99.0.9", asGateway, ipamdrv.ErrInUse,
			"pool 10.99.0.0/24: request gateway 10.99.0.9: the gateway is 10.99.0.1 already")
		b.refuses(n6, "fd00:1::5", asGateway, ipamdrv.ErrInUse, "pool fd00:1::/64: request gateway fd00:1::5: in use since "+
			"2000-01-01 00:00:00 UTC by an --aux-address or a container with this --ip6")
		b.release(n, "10.99.0.5")
		b.gives(n, "10.99.0.5", nil, "10.99.0.5/24")
	})
}
