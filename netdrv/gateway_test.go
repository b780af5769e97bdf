package netdrv_test

import (
	"cmp"
	"fmt"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// TestRoutedChild: an ipvlan in mode l3 or l3s, to which the host routes, has a default route through its device unless the network says
// otherwise. The gateway is an address that the container does not have: the device resolves none.
func TestRoutedChild(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		pool4, pool6, addr4, addr6 string
		options                    []string // in place of ipvlan_mode=l3
		gateway                    string   // given by the user
		internal                   bool
		want                       string
	}{
		"l2":                       {addr4: "10.0.0.2/24", options: []string{"ipvlan_mode=l2"}, want: `"" "" true`},
		"l3s":                      {addr4: "10.0.0.2/24", options: []string{"ipvlan_mode=l3s"}, want: `"10.0.0.3" "" false`},
		"first address":            {addr4: "10.0.0.1/24", want: `"10.0.0.2" "" false`},
		"last address":             {addr4: "10.0.0.254/24", want: `"10.0.0.253" "" false`},
		"of two, the first":        {pool4: "10.0.0.4/31", addr4: "10.0.0.4/31", want: `"10.0.0.5" "" false`},
		"of two, the second":       {pool4: "10.0.0.4/31", addr4: "10.0.0.5/31", want: `"10.0.0.4" "" false`},
		"the only one":             {pool4: "10.0.8.2/32", addr4: "10.0.8.2/32", want: `"169.254.8.2" "" false 169.254.8.2/32 1`},
		"both families":            {addr4: "10.0.0.2/24", addr6: "fd00::2/64", want: `"10.0.0.3" "fd00::3" false`},
		"IPv6 alone":               {addr6: "fd00::ffff:ffff:ffff:ffff/64", want: `"" "fd00::ffff:ffff:ffff:fffe" true`},
		"the only one of IPv6":     {pool6: "fd00::8:2/128", addr6: "fd00::8:2/128", want: `"" "100::8:2" true 100::8:2/128 1`},
		"given by the user":        {addr4: "10.0.0.2/24", addr6: "fd00::2/64", gateway: "10.0.0.9/24", want: `"10.0.0.9" "fd00::3" false`},
		"not wanted":               {addr4: "10.0.0.2/24", options: []string{"ipvlan_mode=l3", "gateway=none"}, want: `"" "" true`},
		"of an internal network":   {addr4: "10.0.0.2/24", internal: true, want: `"" "" true`},
		"no address":               {want: `"" "" true`},
		"link-local, the only one": {pool4: "169.254.8.2/32", addr4: "169.254.8.2/32", want: `"" "" true`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				nic(m)
				options := c.options
				if options == nil {
					options = []string{"ipvlan_mode=l3"}
				}
				r := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: cmp.Or(c.pool4, "10.0.0.0/24"), Gateway: c.gateway}},
					IPv6Data: []*plugin.IPAMData{{Pool: cmp.Or(c.pool6, "fd00::/64")}}}
				if c.internal {
					r.Options = map[string]any{"com.docker.network.internal": true}
				}
				m.must(m.createWith("n", r, append(options, "netdevice=ens2", "mode=ipvlan")...))
				m.restart()
				join, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: c.addr4, AddressIPv6: c.addr6})
				m.must(err)
				got := fmt.Sprintf("%q %q %v", join.Gateway, join.GatewayIPv6, join.DisableGatewayService)
				for _, route := range join.StaticRoutes {
					got += fmt.Sprintf(" %s %d", route.Destination, route.RouteType)
				}
				if got != c.want {
					t.Errorf("%s\nwant %s", got, c.want)
				}
			})
		})
	}
}
