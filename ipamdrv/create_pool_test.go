package ipamdrv_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/docker/go-plugins-helpers/ipam"

	"github.com/mellanox/passthrough/ipamdrv"
)

// refusesPool requests a pool, which must fail with this text.
func (b *fixture) refusesPool(r ipam.RequestPoolRequest, kind error, want string) {
	b.Helper()
	before := keys(b.T, b.store, "")
	_, err := b.d.RequestPool(b.Context(), &r)
	wantError(b.T, err, kind, want)
	if after := keys(b.T, b.store, ""); !slices.Equal(before, after) {
		b.Errorf("the ledger went from %q to %q", before, after)
	}
}

// empty checks that the ledger is empty.
func (b *fixture) empty() {
	b.Helper()
	if left := keys(b.T, b.store, ""); len(left) > 0 {
		b.Errorf("the ledger still has %q", left)
	}
}

// TestExclude: an excluded address is not allocated; a container or a gateway can request it.
func TestExclude(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/28", "exclude=10.99.0.1-10.99.0.4, 10.99.0.6,10.99.0.8/29,10.99.0.3,10.9.0.0/16,fd00::1")
		b.gives(n, "10.99.0.1", asGateway, "10.99.0.1/28")
		b.gives(n, "", nil, "10.99.0.5/28")
		b.gives(n, "", nil, "10.99.0.7/28")
		b.gives(n, "10.99.0.6", nil, "10.99.0.6/28")
		b.release(n, "10.99.0.6")
		b.restart()
		b.refuses(n, "", nil, ipamdrv.ErrFull, "pool 10.99.0.0/28: request address: all 2 addresses that are not excluded "+
			"are in use; remove a container, or create the network with a larger --subnet")
		b.release(n, "10.99.0.5")
		b.gives(n, "", nil, "10.99.0.5/28")

		all := b.poolWith("fd00::/64", "exclude=fd00::-fd00::ffff:ffff:ffff:ffff")
		b.refuses(all, "", nil, ipamdrv.ErrFull,
			"pool fd00::/64: request address: option exclude leaves none to choose; ask for one with --ip6")
		b.gives(all, "fd00::9", nil, "fd00::9/64")

		one := b.poolWith("10.99.0.0/29", "exclude=10.99.0.1,10.99.0.3-10.99.0.6")
		b.gives(one, "", nil, "10.99.0.2/29")
		b.refuses(one, "", nil, ipamdrv.ErrFull, "pool 10.99.0.0/29: request address: the one address that is not excluded "+
			"is in use; remove a container, or create the network with a larger --subnet")
	})
}

// TestNoGateway: with gateway=none a gateway that the engine requests takes no address from containers.
func TestNoGateway(t *testing.T) {
	withFixture(t, func(b *fixture) {
		n := b.poolWith("10.99.0.0/24", "gateway=none")
		for range 2 {
			b.gives(n, "", asGateway, "10.99.0.0/24")
			b.invented("10.99.0.0/24", "10.99.0.0/24", true)
			b.restart()
		}
		b.refuses(n, "10.99.0.1", asGateway, ipamdrv.ErrInvalid,
			"pool 10.99.0.0/24: request gateway 10.99.0.1: option gateway=none says that there is none")
		b.gives(n, "", nil, "10.99.0.2/24") // the first address is kept for a router nevertheless
		b.gives(n, "10.99.0.1", nil, "10.99.0.1/24")
		b.release(n, "10.99.0.0")
		b.releasePool(n)
		n6 := b.poolWith("fd00:1::/64", "gateway=none")
		b.gives(n6, "", asGateway, "fd00:1::/64")
		b.releasePool(n6)
		b.empty()
	})
}

// TestNamedGateway: the answer to RequestPool has the gateway of the option, so that the engine requests none.
func TestNamedGateway(t *testing.T) {
	withFixture(t, func(b *fixture) {
		const option = "10.99.0.9,fd00:2::1"
		for _, test := range []struct{ subnet, want, first string }{
			{"10.99.0.0/24", "10.99.0.9/24", "10.99.0.1/24"},
			{"10.98.0.0/24", "10.99.0.9/32", "10.98.0.1/24"},
			{"fd00:1::/64", "fd00:2::1/128", "fd00:1::1/64"},
			{"fd00:2::/64", "fd00:2::1/64", "fd00:2::2/64"},
		} {
			r, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{Pool: test.subnet,
				Options: map[string]string{"gateway": option}})
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Data["com.docker.network.gateway"]; got != test.want {
				t.Errorf("%s: gateway %q, want %q", test.subnet, got, test.want)
			}
			b.invented(test.subnet, test.want, false)
			gw := netip.MustParsePrefix(test.want).Addr()
			asked := netip.PrefixFrom(gw, netip.MustParsePrefix(test.subnet).Bits()).String()
			b.gives(r.PoolID, gw.String(), asGateway, asked)
			b.gives(r.PoolID, "", asGateway, asked)
			b.release(r.PoolID, gw.String()) // when the network is removed the engine releases it, although it did not request it
			b.restart()
			b.gives(r.PoolID, "", nil, test.first)
			b.releasePool(r.PoolID)
		}
		b.empty()
		b.refusesPool(ipam.RequestPoolRequest{Pool: "10.99.0.0/24", Options: map[string]string{"gateway": "10.99.0.255"}},
			ipamdrv.ErrInvalid, "request pool: ipam option gateway: 10.99.0.255 is the subnet's broadcast address")
		n := b.poolWith("10.99.0.0/24", "gateway=10.99.0.9")
		b.refuses(n, "10.99.0.1", asGateway, ipamdrv.ErrInUse,
			"pool 10.99.0.0/24: request gateway 10.99.0.1: the gateway is 10.99.0.9 already")
		b.refuses(n, "10.99.0.9", nil, ipamdrv.ErrInUse, "pool 10.99.0.0/24: request address 10.99.0.9: in use since "+
			"2000-01-01 00:00:00 UTC by the gateway")
	})
}

// TestSharedPool: networks that share a pool get different addresses, and cannot release each other's.
func TestSharedPool(t *testing.T) {
	withFixture(t, func(b *fixture) {
		red, blue := b.poolWith("10.99.0.0/24", "pool=lan"), b.poolWith("10.99.0.0/24", "pool=lan")
		other := b.poolWith("10.99.0.0/24")
		six := b.poolWith("fd00:1::/64", "pool=lan") // the same name, for the other family of a network
		if red == blue {
			t.Fatal("two networks have one handle")
		}
		for _, n := range []string{red, blue, red} {
			b.gives(n, "10.99.0.1", asGateway, "10.99.0.1/24")
			b.restart()
		}
		b.gives(red, "", nil, "10.99.0.2/24")
		b.gives(blue, "", nil, "10.99.0.3/24")
		b.gives(other, "", nil, "10.99.0.2/24")
		b.gives(six, "", nil, "fd00:1::2/64")
		b.release(blue, "10.99.0.2") // it is red's
		b.refuses(blue, "10.99.0.2", nil, ipamdrv.ErrInUse,
			"pool 10.99.0.0/24: request address 10.99.0.2: in use since 2000-01-01 00:00:00 UTC by a container")
		b.release(red, "10.99.0.1")
		b.refuses(red, "10.99.0.1", nil, ipamdrv.ErrInUse, "pool 10.99.0.0/24: request address 10.99.0.1: in use since "+
			"2000-01-01 00:00:00 UTC by the gateway")
		b.releasePool(red)
		b.releasePool(red)
		b.refuses(red, "", nil, ipamdrv.ErrUnknownPool,
			`pool "`+red+`": request address: no such pool; create the network again`)
		b.gives(blue, "10.99.0.2", nil, "10.99.0.2/24") // red's lease was removed with red
		b.restart()
		b.release(blue, "10.99.0.1")
		b.gives(blue, "10.99.0.1", nil, "10.99.0.1/24")
		for _, n := range []string{blue, other, six} {
			b.releasePool(n)
		}
		b.empty()
		b.gives(b.poolWith("10.98.0.0/24", "pool=lan"), "", nil, "10.98.0.2/24") // the name is free again
	})
}

// TestSharedInventedGateway: engines before 28 request a gateway for each of the networks.
func TestSharedInventedGateway(t *testing.T) {
	withFixture(t, func(b *fixture) {
		red, blue := b.poolWith("10.99.0.0/24", "pool=lan"), b.poolWith("10.99.0.0/24", "pool=lan")
		b.gives(red, "", asGateway, "10.99.0.1/24")
		b.gives(blue, "", asGateway, "10.99.0.1/24")
		b.invented("10.99.0.0/24", "10.99.0.1", true)
		b.releasePool(red)
		b.restart()
		b.invented("10.99.0.0/24", "10.99.0.1", true)
		b.refuses(blue, "10.99.0.1", nil, ipamdrv.ErrInUse, "pool 10.99.0.0/24: request address 10.99.0.1: in use since "+
			"2000-01-01 00:00:00 UTC by the gateway")
		b.release(blue, "10.99.0.1")
		b.gives(blue, "10.99.0.1", nil, "10.99.0.1/24")
	})
}

// TestSharedPoolIsOne: all networks of a shared pool must give the same subnet and options.
func TestSharedPoolIsOne(t *testing.T) {
	withFixture(t, func(b *fixture) {
		b.poolWith("10.99.0.0/24", "pool=lan", "sticky=1h")
		const same = "; networks that share a pool must say the same of it"
		for _, test := range []struct {
			req     ipam.RequestPoolRequest
			options []string
			want    string
		}{
			{ipam.RequestPoolRequest{Pool: "10.98.0.0/24"}, []string{"sticky=1h"},
				`pool 10.98.0.0/24: request: pool "lan" has subnet 10.99.0.0/24` + same},
			{ipam.RequestPoolRequest{Pool: "10.99.0.0/24", SubPool: "10.99.0.0/25"}, []string{"sticky=1h"},
				`pool 10.99.0.0/24: request: pool "lan" has ip-range none` + same},
			{ipam.RequestPoolRequest{Pool: "10.99.0.0/24"}, nil,
				`pool 10.99.0.0/24: request: pool "lan" has 1h for option sticky` + same},
			{ipam.RequestPoolRequest{Pool: "10.99.0.0/24"}, []string{"sticky=1h", "reuse=last"},
				`pool 10.99.0.0/24: request: pool "lan" has the default for option reuse` + same},
			{ipam.RequestPoolRequest{Pool: "10.99.0.0/24"}, []string{"overflow=x"},
				`request pool: ipam options pool and overflow: a pool that is shared cannot help another out; say only one of them`},
		} {
			test.req.Options = pairs(append(test.options, "pool=lan"))
			b.refusesPool(test.req, ipamdrv.ErrInvalid, test.want)
		}
		b.poolWith("", "pool=lan", "sticky=1h")
	})
}

// TestOverflow: if the first subnet of a network is full, the next one of its group gives addresses.
func TestOverflow(t *testing.T) {
	withFixture(t, func(b *fixture) {
		first, second := b.poolWith("10.99.0.0/30", "overflow=net"), b.poolWith("10.98.0.0/30", "overflow=net")
		stranger, six := b.poolWith("10.97.0.0/30", "overflow=other"), b.poolWith("fd00::/127", "overflow=net")
		b.gives(second, "10.98.0.1", asGateway, "10.98.0.1/30")
		b.gives(first, "", nil, "10.99.0.1/30")
		b.gives(first, "", nil, "10.99.0.2/30")
		b.gives(first, "", by("c3"), "10.98.0.2/30")
		b.refuses(first, "", nil, ipamdrv.ErrFull, "pool 10.99.0.0/30: request address: all 2 addresses are in use; "+
			"remove a container, or create the network with a larger --subnet")
		b.refuses(first, "10.98.0.2", nil, ipamdrv.ErrInvalid,
			"pool 10.99.0.0/30: request address 10.98.0.2: not in the subnet")
		if got := b.d.ContainerName("10.98.0.2/30"); got != "c3" {
			t.Errorf("container %q, want c3", got)
		}
		b.release(first, "10.98.0.1") // the gateway is not of the first pool
		b.release(stranger, "10.98.0.2")
		b.restart()
		b.refuses(second, "10.98.0.1", nil, ipamdrv.ErrInUse, "pool 10.98.0.0/30: request address 10.98.0.1: in use since "+
			"2000-01-01 00:00:00 UTC by the gateway")
		b.release(first, "10.98.0.2")
		b.gives(second, "10.98.0.2", nil, "10.98.0.2/30")
		b.refusesPool(ipam.RequestPoolRequest{Pool: "10.99.0.0/24", Options: pairs([]string{"overflow=net"})},
			ipamdrv.ErrInvalid, `pool 10.99.0.0/24: request: ipam option overflow: "net" is said for subnet 10.99.0.0/30, too; `+
				`subnets that overlap cannot help each other out, take another name`)
		for _, n := range []string{first, second, stranger, six} {
			b.releasePool(n)
		}
		b.empty()
	})
}

// TestStickyInGroup: a container whose address is of another subnet of its network has it again, though the first subnet has room by now. An
// address that is kept for a container is given to another one only if no subnet has a free one.
func TestStickyInGroup(t *testing.T) {
	withFixture(t, func(b *fixture) {
		first := b.poolWith("10.99.0.0/30", "overflow=net")
		b.poolWith("10.98.0.0/29", "overflow=net")
		b.gives(first, "", by("c1"), "10.99.0.1/30")
		b.gives(first, "", by("c2"), "10.99.0.2/30")
		b.gives(first, "", by("c3"), "10.98.0.2/29")
		b.release(first, "10.99.0.1")
		for range 2 {
			b.release(first, "10.98.0.2")
			b.restart()
			b.gives(first, "", by("c3"), "10.98.0.2/29")
		}
		for _, want := range []string{"10.98.0.3/29", "10.98.0.4/29", "10.98.0.5/29", "10.98.0.6/29", "10.99.0.1/30"} {
			b.gives(first, "", by("new "+want), want)
		}
		b.release(first, "10.98.0.4")
		b.release(first, "10.99.0.2")
		b.gives(first, "", by("c1"), "10.99.0.2/30") // the subnet that the engine names comes first
		b.gives(first, "", nil, "10.98.0.4/29")
		b.refuses(first, "", by("c2"), ipamdrv.ErrFull, "pool 10.99.0.0/30: request address: all 2 addresses are in use; "+
			"remove a container, or create the network with a larger --subnet")
	})
}

// withDefaults makes a driver with default pools on a host with these subnets.
func (b *fixture) withDefaults(text string, host ...string) {
	b.Helper()
	defaults, err := ipamdrv.ParseDefaultPools(text)
	if err != nil {
		b.Fatal(err)
	}
	b.d, err = ipamdrv.New(ipamdrv.Config{Store: b.store, Defaults: defaults, Host: func() ([]netip.Prefix, error) {
		if len(host) == 1 && host[0] == "broken" {
			return nil, errors.New("netlink: no answer")
		}
		var all []netip.Prefix
		for _, p := range host {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all, nil
	}})
	if err != nil {
		b.Fatal(err)
	}
}

// carves requests a pool without a subnet.
func (b *fixture) carves(v6 bool, want string) string {
	b.Helper()
	r, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{V6: v6})
	if err != nil || r.Pool != want {
		b.Fatalf("RequestPool = %+v, %v, want %s", r, err, want)
	}
	return r.PoolID
}

// TestDefaultPools: a network without a subnet gets the next one that no other network and no device of the host has.
func TestDefaultPools(t *testing.T) {
	withFixture(t, func(b *fixture) {
		const defaults = "10.200.0.0/22:24, 10.201.0.0/24:25,fd00:200::/63:64"
		b.withDefaults(defaults, "10.200.1.7/32", "10.201.0.99/25", "fe80::1/64", "0.0.0.0/32", "192.168.0.0/16")
		b.pool("10.200.2.128/28", "")
		first := b.carves(false, "10.200.0.0/24")
		b.gives(first, "", nil, "10.200.0.2/24")
		b.carves(false, "10.200.3.0/24")
		b.carves(false, "10.201.0.128/25")
		b.carves(true, "fd00:200::/64")
		b.carves(true, "fd00:200:0:1::/64")
		b.refusesPool(ipam.RequestPoolRequest{}, ipamdrv.ErrFull, "request pool: every IPv4 subnet of the plugin's DEFAULT_POOLS "+
			"is used by a network or by the host; remove a network, give this one a --subnet, or the plugin more to choose from")
		b.releasePool(first)
		b.carves(false, "10.200.0.0/24")
		b.withDefaults(defaults, "0.0.0.0/1", "128.0.0.0/1")
		if _, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{}); !errors.Is(err, ipamdrv.ErrFull) {
			t.Errorf("the host has everything: %v", err)
		}
		b.withDefaults(defaults, "broken")
		b.refusesPool(ipam.RequestPoolRequest{}, nil, "request pool: the host's subnets: netlink: no answer")
		b.pool("10.200.0.0/24", "") // a network with a subnet needs no default pool
	})
}

// TestSharedDefaultPool: a shared pool without a subnet. The first network gets the next default subnet, the others join it, unless the
// host has it by then.
func TestSharedDefaultPool(t *testing.T) {
	withFixture(t, func(b *fixture) {
		b.withDefaults("10.200.0.0/16:24")
		red := b.poolWith("", "pool=lan")
		blue := b.poolWith("", "pool=lan")
		b.gives(red, "", nil, "10.200.0.2/24")
		b.gives(blue, "", nil, "10.200.0.3/24")
		b.withDefaults("10.200.0.0/16:24", "10.200.0.1/24")
		b.refusesPool(ipam.RequestPoolRequest{Options: map[string]string{"pool": "lan"}}, ipamdrv.ErrInvalid,
			`request pool: pool "lan" has subnet 10.200.0.0/24, which the host has, too (10.200.0.1/24); if that is meant, give it `+
				`with --subnet`)
		b.poolWith("10.200.0.0/24", "pool=lan")
	})
}

func TestParseDefaultPools(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.0/8":          `default pool "": must be an address and a prefix length, such as 10.1.0.0/24 or fd00:1::/64`,
		"10.0.0.0/16:15":      `default pool "10.0.0.0/16:15": the length of its subnets must be 16 to 30`,
		"10.0.0.0/16:31":      `default pool "10.0.0.0/16:31": the length of its subnets must be 16 to 30`,
		"10.0.0.0/16:+24":     `default pool "10.0.0.0/16:+24": the length of its subnets must be 16 to 30`,
		"10.0.0.0/16:024":     `default pool "10.0.0.0/16:024": the length of its subnets must be 16 to 30`,
		"fd00::/48:x":         `default pool "fd00::/48:x": the length of its subnets must be 48 to 126`,
		"10.0.0.0/16:24,x:24": `default pool "x": must be an address and a prefix length, such as 10.1.0.0/24 or fd00:1::/64`,
	} {
		if _, err := ipamdrv.ParseDefaultPools(text); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// TestConcurrentPools: many networks are created at once. No two get the same subnet; those that share a pool get the same pool.
func TestConcurrentPools(t *testing.T) {
	withFixture(t, func(b *fixture) {
		b.withDefaults("10.200.0.0/16:24")
		var mu sync.Mutex // guards got and shared
		got, shared := map[string]bool{}, map[string]bool{}
		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() {
				r := &ipam.RequestPoolRequest{Options: map[string]string{}}
				if i%2 == 0 {
					r = &ipam.RequestPoolRequest{Pool: "10.99.0.0/24", Options: map[string]string{"pool": "lan"}}
				}
				answer, err := b.d.RequestPool(context.Background(), r)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					t.Error(err)
				case i%2 == 0:
					shared[answer.PoolID[:len("v1:")+32]] = true
				case got[answer.Pool]:
					t.Errorf("%s was given twice", answer.Pool)
				default:
					got[answer.Pool] = true
				}
			})
		}
		wg.Wait()
		if len(shared) != 1 || len(pools(t, b.store)) != 21 {
			t.Errorf("the shared pool is %v, and there are %d pools", shared, len(pools(t, b.store)))
		}
	})
}

// TestSLAAC: link-local addresses are random, so that two hosts on a segment do not choose the same ones.
func TestSLAAC(t *testing.T) {
	withFixture(t, func(b *fixture) {
		seen := map[string]bool{}
		for range 2 { // two hosts
			n := b.poolWith("fe80::/64", "slaac=yes")
			b.gives(b.poolWith("10.99.0.0/24", "slaac=yes"), "", nil, "10.99.0.2/24") // the network's other family
			for range 100 {
				a, err := b.request(n, "", nil)
				if p, bad := netip.ParsePrefix(a); err != nil || bad != nil || seen[a] || !p.Addr().IsLinkLocalUnicast() || p.Bits() != 64 {
					t.Fatalf("%q, %v", a, err)
				}
				seen[a] = true
			}
		}
	})
}

// TestSLAACOfOne: a range of one address.
func TestSLAACOfOne(t *testing.T) {
	withFixture(t, func(b *fixture) {
		r, err := b.d.RequestPool(b.Context(), &ipam.RequestPoolRequest{Pool: "fe80::/64", SubPool: "fe80::5/128",
			Options: pairs([]string{"slaac=yes"})})
		if err != nil {
			t.Fatal(err)
		}
		b.gives(r.PoolID, "", nil, "fe80::5/64")
	})
}
