package netdrv_test

import (
	"fmt"
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// TestRoutes: a container has the routes of its network or its own, through its device. The engine hears of them in Join, also after a
// restart of the plugin.
func TestRoutes(t *testing.T) {
	t.Parallel()
	const network = "routes=10.50.0.0/16 via 10.0.0.254; 10.60.0.1 dev, fd50::/48 via fd00::fe"
	for name, c := range map[string]struct {
		addr4, addr6 string
		network      string // in place of network
		own          string
		want         string
	}{
		"of the network":            {addr4: "10.0.0.2/24", addr6: "fd00::2/64", want: "10.50.0.0/16 0 10.0.0.254, 10.60.0.1/32 1 , fd50::/48 0 fd00::fe"},
		"no address of a family":    {addr4: "10.0.0.2/24", want: "10.50.0.0/16 0 10.0.0.254, 10.60.0.1/32 1 "},
		"own":                       {addr4: "10.0.0.2/24", own: "10.70.0.0/16 VIA 10.0.0.9", want: "10.70.0.0/16 0 10.0.0.9"},
		"none":                      {addr4: "10.0.0.2/24", own: "none", want: ""},
		"not to itself":             {addr4: "10.0.0.254/24", want: "10.60.0.1/32 1 "},
		"gateway in another subnet": {addr4: "10.0.1.2/24", want: "10.0.0.254/32 1 , 10.50.0.0/16 0 10.0.0.254, 10.60.0.1/32 1 "},
		"two by such a gateway": {addr4: "10.0.1.2/24", network: "routes=10.50.0.0/16 via 10.0.0.254,10.51.0.0/16 via 10.0.0.254",
			want: "10.0.0.254/32 1 , 10.50.0.0/16 0 10.0.0.254, 10.51.0.0/16 0 10.0.0.254"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				nic(m)
				r := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/24"}, {Pool: "10.0.1.0/24"}},
					IPv6Data: []*plugin.IPAMData{{Pool: "fd00::/64"}}}
				options := network
				if c.network != "" {
					options = c.network
				}
				m.must(m.createWith("n", r, "netdevice=ens2", "mode=macvlan", options))
				var own map[string]any
				if c.own != "" {
					own = map[string]any{"routes": c.own}
				}
				ctx, cancel := m.call()
				defer cancel()
				_, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: "n", EndpointID: endpoint("a"), Options: own,
					Interface: &plugin.EndpointInterface{Address: c.addr4, AddressIPv6: c.addr6}})
				m.must(err)
				m.restart()
				join, err := m.join("a", "n")
				m.must(err)
				var got string
				for i, r := range join.StaticRoutes {
					if i > 0 {
						got += ", "
					}
					got += fmt.Sprintf("%s %d %s", r.Destination, r.RouteType, r.NextHop)
				}
				if got != c.want {
					t.Errorf("routes %q, want %q", got, c.want)
				}
				m.must(m.deleteFrom("a", "n"))
			})
		})
	}
}

// TestRouteErrors: routes that a container cannot have are refused, of a network and of a container, and change nothing.
func TestRouteErrors(t *testing.T) {
	t.Parallel()
	const allowed = "; allowed: SUBNET via GATEWAY or SUBNET dev, separated by commas or semicolons; or none"
	const outside = ": the gateway is in none of the network's subnets 10.0.0.0/24, fd00::/64; it has to be, for containers to reach it"
	for routes, want := range map[string]string{
		"10.50.0.0/16":                    `"10.50.0.0/16" is not allowed` + allowed,
		"10.50.0.0/16 via":                `"10.50.0.0/16 via" is not allowed` + allowed,
		"10.50.0.0/16 dev eth0":           `"10.50.0.0/16 dev eth0" is not allowed` + allowed,
		"10.50.0.0/33 dev":                `"10.50.0.0/33 dev" is not allowed` + allowed,
		"router via 10.0.0.1":             `"router via 10.0.0.1" is not allowed` + allowed,
		"fe80::1%eth0 dev":                `"fe80::1%eth0 dev" is not allowed` + allowed,
		"::ffff:10.50.0.1 dev":            `"::ffff:10.50.0.1 dev" is not allowed` + allowed,
		";,":                              `";," is not allowed` + allowed,
		"10.50.0.0/16 via 10.0.0.1, none": `"10.50.0.0/16 via 10.0.0.1, none" is not allowed` + allowed,
		"0.0.0.0/0 via 10.0.0.1":          "0.0.0.0/0 via 10.0.0.1: is a default route, which the engine chooses; use --gateway",
		"::/0 dev":                        "::/0 dev: is a default route, which the engine chooses; use --gateway",
		"10.50.0.1/16 dev":                "10.50.0.1/16 dev: has bits beyond its prefix length; the subnet is 10.50.0.0/16",
		"127.0.0.0/8 dev":                 "127.0.0.0/8 dev: leads to no other host",
		"10.50.0.0/16 via fd00::1":        "10.50.0.0/16 via fd00::1: has a gateway of the other address family",
		"fd50::/48 via 10.0.0.1":          "fd50::/48 via 10.0.0.1: has a gateway of the other address family",
		"10.50.0.0/16 via 224.0.0.1":      "10.50.0.0/16 via 224.0.0.1: has a gateway that is no host's address",
		"10.50.0.0/16 via 0.0.0.0":        "10.50.0.0/16 via 0.0.0.0: has a gateway that is no host's address",
		"10.5.0.0/16 dev;10.5.0.0/16 dev": "10.5.0.0/16 dev: is the second to its destination",
		"10.50.0.0/16 via 10.0.1.1":       "10.50.0.0/16 via 10.0.1.1" + outside,
		"fd50::/48 via fe80::1":           "fd50::/48 via fe80::1" + outside,
		"10.50.0.0/16 via 10.0.0.0":       "10.50.0.0/16 via 10.0.0.0: the gateway is the address of the subnet itself, which is no host's",
		"10.0.0.0/24 via 10.0.0.1":        "10.0.0.0/24 via 10.0.0.1: is the network's own subnet, to which each container has a route already",
	} {
		story(t, func(m *machine) {
			nic(m)
			pools := func() *plugin.CreateNetworkRequest {
				return &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/24"}}, IPv6Data: []*plugin.IPAMData{{Pool: "fd00::/64"}}}
			}
			m.must(m.createWith("n", pools(), "netdevice=ens2", "mode=macvlan"))
			before, keys := m.kernel.String(), len(m.keys())
			wantError(t, m.createWith("o", pools(), "netdevice=ens2", "mode=macvlan", "routes="+routes), "option routes: "+want)
			wantError(t, m.runWith("a", "n", map[string]any{"routes": routes}), "option routes: "+want)
			if after := m.kernel.String(); after != before || len(m.keys()) != keys {
				t.Errorf("%s: the ledger has %v, and the host is\n%s", routes, m.keys(), after)
			}
		})
	}
	story(t, func(m *machine) {
		nic(m)
		four := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/8"}}}
		bare := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "0.0.0.0/0"}}}
		const no = ": the network has no subnet of that address family"
		wantError(t, m.createWith("n", four, "netdevice=ens2", "mode=macvlan", "routes=fd50::/48 dev"), "option routes: fd50::/48 dev"+no)
		wantError(t, m.createWith("n", bare, "netdevice=ens2", "mode=macvlan", "routes=10.1.0.0/16 dev"), "option routes: 10.1.0.0/16 dev"+no)
		both := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/8"}}, IPv6Data: []*plugin.IPAMData{{Pool: "fd00::/64"}}}
		m.must(m.createWith("n", both, "netdevice=ens2", "mode=macvlan", "lock=mtu"))
		wantError(t, m.runWith("a", "n", map[string]any{"routes": "fd50::/48 dev"}),
			"option routes: fd50::/48 dev: the container has no address of that family on this network")
		self, _, _ := strings.Cut(addressOf("a"), "/")
		wantError(t, m.runWith("a", "n", map[string]any{"routes": "192.0.2.0/24 via " + self}),
			"option routes: 192.0.2.0/24 via "+self+": the gateway is the container itself")
	})
}
