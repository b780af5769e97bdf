package hw_test

import (
	"slices"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestHostSubnets: the subnets that the host has addresses in and routes to, once each, without default routes.
func TestHostSubnets(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddLink(hw.Link{Name: "nic", Up: true})
	k.AddLink(hw.Link{Name: "other", Up: true})
	k.AddAddrs("nic", "192.0.2.7/24", "2001:db8::1/64")
	k.AddAddrs("other", "192.0.2.9/24")
	k.AddRoutes("nic", hw.Route{Dst: "203.0.113.0/24"}, hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.2.1"},
		hw.Route{Dst: "192.0.2.0/24", Gateway: "192.0.2.1", Table: 100})
	all, err := open(t, k).HostSubnets()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range all {
		got = append(got, p.String())
	}
	got = slices.DeleteFunc(got, func(p string) bool { return p == "127.0.0.0/8" || p == "::1/128" })
	if want := []string{"192.0.2.0/24", "203.0.113.0/24", "2001:db8::/64"}; !slices.Equal(got, want) {
		t.Errorf("networks %q, want %q", got, want)
	}
}
