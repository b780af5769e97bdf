package netdrv_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
)

// uses returns what Uses returns, as text.
func (m *machine) uses() string {
	m.t.Helper()
	all, err := m.driver.Uses(m.ctx)
	if err != nil {
		return "error: " + err.Error()
	}
	var lines []string
	for _, u := range all {
		lines = append(lines, fmt.Sprint(u.Network, u.Addrs))
	}
	return strings.Join(lines, "\n")
}

// TestUses: Uses returns the addresses in use. It is an error, not none, if a record of an earlier version lacks them.
func TestUses(t *testing.T) {
	story(t, func(m *machine) {
		able(m)
		two := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/24"}},
			IPv6Data: []*plugin.IPAMData{{Pool: "fd00::/64"}}}
		if err := m.createWith("n", two, "netdevice=ens1f0"); err != nil {
			t.Fatal(err)
		}
		if _, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24", AddressIPv6: "fd00::2/64"}); err != nil {
			t.Fatal(err)
		}
		m.mustRun("b", "n")
		b := netip.MustParsePrefix(addressOf("b")).Addr().String()
		if diff := cmp.Diff("n[10.0.0.2 fd00::2 "+b+"]", m.uses()); diff != "" {
			t.Error(diff)
		}
		if err := m.deleteFrom("a", "n"); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff("n["+b+"]", m.uses()); diff != "" {
			t.Error(diff)
		}
		m.ageEndpoint("b", "n")
		if diff := cmp.Diff("error: network n: endpoint b-endpoint-0: its addresses are not known", m.uses()); diff != "" {
			t.Error(diff)
		}
	})
}

// ageEndpoint turns an endpoint's record into one of an early version.
func (m *machine) ageEndpoint(container, network string) {
	m.t.Helper()
	key := "ep/" + network + "/" + endpoint(container)
	kv, err := m.store.Get(m.ctx, key)
	if err != nil {
		m.t.Fatal(err)
	}
	old := strings.Replace(string(kv.Value), `"addrs":["`+addressOf(container)+`"]`, `"ipv4":true`, 1)
	if old == string(kv.Value) {
		m.t.Fatalf("no addresses in %s", old)
	}
	if _, err := m.store.Txn(m.ctx, nil, []store.Op{store.Put(key, []byte(old))}); err != nil {
		m.t.Fatal(err)
	}
}
