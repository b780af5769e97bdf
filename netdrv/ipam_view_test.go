package netdrv_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

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

// forgotten are the addresses of endpoints that were forgotten, as the IPAM driver is told them.
type forgotten struct {
	mu  sync.Mutex // guards all
	all []string
}

func (f *forgotten) add(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, text)
}

func (f *forgotten) want(t *testing.T, when string, want ...string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if diff := cmp.Diff(want, f.all); diff != "" {
		t.Errorf("%s, forgotten addresses (-want +got):\n%s", when, diff)
	}
}

// TestForgottenAddresses: the IPAM driver can know by when an endpoint will be removed that the engine seems to have forgotten, and is told
// when it is. It is not told of endpoints from before a reboot: the engine may still clean them up.
func TestForgottenAddresses(t *testing.T) {
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		address := netip.MustParsePrefix(addressOf("a"))
		endsBy := func() time.Time {
			t.Helper()
			all, err := m.driver.Uses(m.ctx)
			m.must(err)
			return all[0].EndsBy[address.Addr()]
		}
		m.mustRun("a", "n")
		m.after(time.Hour)
		if by := endsBy(); !by.IsZero() {
			t.Errorf("an endpoint in use ends by %v", by)
		}
		m.kernel.KillNS("a", 0) // while the plugin is disabled
		m.restart()
		restarted := time.Now()
		m.after(10 * time.Second)
		if left := endsBy().Sub(restarted); left < 40*time.Second || left > 50*time.Second {
			t.Errorf("a forgotten endpoint ends %v after the restart, want 40s", left)
		}
		m.forgotten.want(t, "before")
		m.after(5 * time.Minute)
		m.forgotten.want(t, "after", "n "+address.String())
		m.wantKeys("net/n")
		delete(m.where, "a")

		m.mustRun("b", "n")
		m.stop()
		m.kernel.KillNS("b", 0)
		m.boot = "boot-2"
		m.start(m.store)
		m.after(time.Minute)
		m.wantKeys("net/n")
		m.forgotten.want(t, "after a reboot", "n "+address.String())
		delete(m.where, "b")
	})
}
