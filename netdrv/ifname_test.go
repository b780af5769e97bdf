package netdrv_test

import (
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
)

// TestIfname: a device gets the exact name that the container or its network asks for, on an engine that can; otherwise the container
// does not start, and the device comes home.
func TestIfname(t *testing.T) {
	const label = "com.docker.network.endpoint.ifname"
	for name, c := range map[string]struct {
		network string
		own     map[string]any
		want    string
	}{
		"option of the container":      {"", map[string]any{"ifname": "fab7"}, "fab7"},
		"label of the engine":          {"", map[string]any{label: "fab7"}, "fab7"},
		"the option is stronger":       {"", map[string]any{label: "fab7", "ifname": "fab8"}, "fab8"},
		"of the network":               {"ifname=fab9", nil, "fab9"},
		"own, not the network's":       {"ifname=fab9", map[string]any{label: "fab7"}, "fab7"},
		"prefix, not the network's":    {"ifname=fab9", map[string]any{"prefix": "net"}, "net0"},
		"own, beside network's prefix": {"prefix=net", map[string]any{"ifname": "fab7"}, "fab7"},
		"longest":                      {"", map[string]any{"ifname": "abcdefghijklmno"}, "abcdefghijklmno"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				m.takesIfname = true
				m.kernel.AddPF(igb())
				m.mustCreate("n", strings.Fields("netdevice=ens1f0 "+c.network)...)
				m.restart()
				m.must(m.runWith("a", "n", c.own))
				if got := m.where["a"].inside; got != c.want {
					t.Errorf("the device is called %s, want %s", got, c.want)
				}
				m.end("a")
			})
		})
	}
}

// TestIfnameTooOld: an engine before 29 is known by what it does not send, and refused at once. One from 29.0 to 29.7 cannot be told from
// a newer one: it gets a name that it cannot give.
func TestIfnameTooOld(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		before, keys := m.kernel.String(), m.keys()
		own := map[string]any{"com.docker.network.endpoint.ifname": "fab7"}
		m.unnamed = map[string]bool{addressOf("a"): true}
		wantError(t, m.runWith("a", "n", own), "option ifname: fab7 is not possible: this engine is older than 29, and names the devices of "+
			"plugins by a prefix and a number; engine 29.8 or newer is needed; or use the option prefix")
		if after := m.kernel.String(); after != before || len(m.keys()) != len(keys) {
			t.Errorf("the ledger has %v, and the host is\n%s", m.keys(), after)
		}
		m.must(m.runWith("a", "n", nil))
		m.end("a")

		i := plugin.EndpointInterface{Address: addressOf("b")}
		ctx, cancel := m.call()
		defer cancel()
		_, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: "n", EndpointID: endpoint("b"), Interface: &i, Options: own})
		m.must(err)
		join, err := m.join("b", "n")
		m.must(err)
		if _, err := m.inside(join.InterfaceName); err == nil || !strings.Contains(err.Error(), `to "ifname-needs-docker-29.8-or-newer-0"`) {
			t.Errorf("%+v: %v", join.InterfaceName, err)
		}
		m.where["b"] = place{network: "n"}
		m.delete("b")
	})
}

// TestIfnameErrors: names that no device can have are refused for a network and for a container, and change nothing.
func TestIfnameErrors(t *testing.T) {
	const allowed = " is not allowed; allowed: up to 15 letters, digits, _, - and ., but not lo, all or default"
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "lock=ifname")
		m.mustRemove("n")
		m.mustCreate("n", "netdevice=ens1f0")
		before, keys := m.kernel.String(), m.keys()
		for _, bad := range []string{"lo", "all", "default", ".", "..", "a/b", "a b", "a:b", "-a", "eth%d", "abcdefghijklmnop", "fäb"} {
			want := `option ifname: "` + bad + `"` + allowed
			wantError(t, m.create("o", "netdevice=ens1f0", "ifname="+bad), want)
			wantError(t, m.runWith("a", "n", map[string]any{"com.docker.network.endpoint.ifname": bad}), want)
		}
		wantError(t, m.create("o", "netdevice=ens1f0", "ifname=fab0", "prefix=fab"),
			"option prefix: has no effect beside ifname, which is the whole name; give one of them")
		wantError(t, m.create("o", "netdevice=ens1f0", "com.docker.network.endpoint.ifname=fab0"),
			`option "com.docker.network.endpoint.ifname": unknown; known are `+known("network", "container", "both"))
		if after := m.kernel.String(); after != before || len(m.keys()) != len(keys) {
			t.Errorf("the ledger has %v, and the host is\n%s", m.keys(), after)
		}
	})
}

// TestEndpointLabels: labels of the engine that it or this driver obeys for a container are accepted, all others refused.
func TestEndpointLabels(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		m.must(m.runWith("a", "n", map[string]any{"com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.rp_filter=2",
			"com.docker.network.endpoint.exposedports": []any{}, "com.docker.network.portmap": []any{},
			"com.docker.network.endpoint.dnsservers": []any{"10.0.0.1"}, "com.docker.network.driver.mtu": "1400"}))
		if link := m.kernel.InNS("a").Links()[0]; link.MTU != 1400 {
			t.Errorf("mtu %d, want 1400", link.MTU)
		}
		m.end("a")
		for _, label := range []string{"com.docker.network.bridge.name", "com.docker.network.endpoint.ifnam", "com.docker.network.endpoint.SYSCTLS",
			"com.docker.network.driver.private.x", "com.docker.network.advertise_addr_ms", "com.docker.network."} {
			wantError(t, m.runWith("a", "n", map[string]any{label: "x"}), "option "+label+": neither the engine nor this driver obeys it for a "+
				"container; of the names that begin with com.docker.network, users can give com.docker.network.endpoint.ifname, "+
				"com.docker.network.endpoint.sysctls and com.docker.network.driver.mtu")
		}
	})
}

// TestIfnameHome: a device that had an exact name comes home under its own, also if the kernel brings it because the namespace has ended, and
// the host has a device of that name meanwhile.
func TestIfnameHome(t *testing.T) {
	story(t, func(m *machine) {
		m.takesIfname = true
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "ifname=fab7")
		m.must(m.runWith("a", "n", nil))
		m.end("a")
		m.settled()
		before := m.kernel.String()
		for _, taken := range []bool{false, true} {
			m.must(m.runWith("a", "n", nil))
			if taken {
				m.kernel.AddLink(hw.Link{Name: "fab7", Kind: "macvlan", MAC: "02:00:00:00:00:99", MTU: 1500})
			}
			m.kernel.KillNS("a", 0)
			m.leave("a")
			m.delete("a")
			m.settled()
			if taken {
				m.kernel.DelLink("fab7")
			}
			m.wantHost(before)
		}
	})
}
