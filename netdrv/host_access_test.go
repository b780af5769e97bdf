package netdrv_test

import (
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
)

// hostPool is a subnet in which an address is the host's.
func hostPool() []*plugin.IPAMData {
	return []*plugin.IPAMData{{Pool: "10.0.0.0/8", AuxAddresses: map[string]any{"host": "10.255.0.1/8", "router": "10.255.0.2/8"}}}
}

// createHosted creates a network with host access.
func (m *machine) createHosted(id string, options ...string) error {
	return m.createWith(id, &plugin.CreateNetworkRequest{IPv4Data: hostPool()}, append(options, "host_access=yes")...)
}

// hostLines returns what the kernel says of a link and of what is on it.
func (m *machine) hostLines(link string) string {
	m.t.Helper()
	_, after, ok := strings.Cut(m.kernel.String(), "\n  "+link+":")
	if !ok {
		return "none"
	}
	first, rest, _ := strings.Cut(after, "\n")
	lines := []string{first}
	for _, l := range strings.Split(rest, "\n") {
		if !strings.HasPrefix(l, "    ") {
			break
		}
		lines = append(lines, strings.TrimSpace(l))
	}
	return strings.Join(lines, "\n")
}

// routeTo is what hostLines has of the route to a container.
func routeTo(container string) string {
	address, _, _ := strings.Cut(addressOf(container), "/")
	return "{Index:0 Dst:" + address + "/32 Gateway: Src:10.255.0.1 Table:254 Metric:0 Protocol:118 Scope:253"
}

// TestHostAccess: the host gets a child with its address, and a route to each container; they go with them. The host's own addresses and
// routes stay as they are.
func TestHostAccess(t *testing.T) {
	t.Parallel()
	for _, options := range [][]string{
		{"netdevice=ens2", "mode=macvlan"},
		{"netdevice=ens2", "mode=macvlan", "vlan=100"},
		{"netdevice=bond0", "mode=macvlan"},
		{"netdevice=bond0", "mode=macvlan", "vlan=100"},
		{"netdevice=ens1f0", "vlan=100", "numvfs=2"},
		{"netdevice=ens1f0", "numvfs=2"},
	} {
		t.Run(strings.Join(options, " "), func(t *testing.T) {
			story(t, func(m *machine) {
				nic(m)
				bond(m, true)
				m.kernel.AddPF(igb())
				before := m.kernel.String()
				m.must(m.createHosted("n", options...))
				for _, c := range []string{"a", "b"} {
					m.mustRun(c, "n")
				}
				shim := m.hostLines("pt-n")
				for _, want := range []string{"macvlan on ", "mode bridge", " up ", "mtu 1279", "CIDR:10.255.0.1/32",
					"net.ipv4.conf.*.arp_ignore = 1", "net.ipv4.conf.*.arp_announce = 2", "net.ipv4.conf.*.forwarding = 0", routeTo("a"), routeTo("b")} {
					if !strings.Contains(shim, want) {
						t.Errorf("the host's child has no %q:\n%s", want, shim)
					}
				}
				m.end("a")
				if shim := m.hostLines("pt-n"); strings.Contains(shim, routeTo("a")) || !strings.Contains(shim, routeTo("b")) {
					t.Errorf("after a container:\n%s", shim)
				}
				m.restart()
				m.kernel.DelLink("pt-n") // by an administrator
				m.settled()
				if now := m.hostLines("pt-n"); !strings.Contains(now, routeTo("b")) {
					t.Errorf("it is not as before:\n%s", now)
				}
				m.end("b")
				m.mustRemove("n")
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestHostAccessIPv6: router advertisements of a container must not configure the host. Where a sysctl can be written, the host's child has
// IPv6 and accepts none.
func TestHostAccessIPv6(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		dual := &plugin.CreateNetworkRequest{IPv4Data: hostPool(), IPv6Data: []*plugin.IPAMData{{Pool: "2001:db8:7::/64",
			AuxAddresses: map[string]any{"host6": "2001:db8:7::1/64"}}}}
		before := m.kernel.String()
		options := []string{"netdevice=ens2", "mode=macvlan", "host_access=yes"}
		wantError(t, m.createWith("n", dual, options...), "host access: pt-n: set net.ipv6.conf.pt-n.accept_ra to 0, so that no container "+
			"configures the host: read-only file system; say on the host: sysctl -w net.ipv6.conf.default.accept_ra=0")
		wantError(t, m.createHosted("n", "netdevice=ens2", "mode=ipvlan"), "host access: pt-n: set net.ipv6.conf.pt-n.accept_ra to 0, so that no "+
			"container configures the host: read-only file system; say on the host: sysctl -w net.ipv6.conf.default.accept_ra=0")
		m.wantHost(before)
		m.wantKeys()
		m.kernel.ProcSys = true
		m.must(m.createHosted("n", "netdevice=ens2", "mode=ipvlan"))
		if shim := m.hostLines("pt-n"); !strings.HasPrefix(shim, " ipvlan on ens2 mode l2 mac") {
			t.Errorf("the host's child is\n%s", shim)
		}
		m.mustRemove("n")
		m.must(m.createWith("n", dual, options...))
		for _, want := range []string{"mtu 1500", "CIDR:2001:db8:7::1/128", "CIDR:10.255.0.1/32", "net.ipv6.conf.*.accept_ra = 0"} {
			if shim := m.hostLines("pt-n"); !strings.Contains(shim, want) {
				t.Errorf("the host's child has no %q:\n%s", want, shim)
			}
		}
		m.mustRemove("n")
		m.wantHost(before)
	})
}

// TestHostAccessRefused: what cannot be is refused with the reason, and changes nothing.
func TestHostAccessRefused(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		bond(m, true)
		m.kernel.AddPF(igb())
		ib := hca()
		ib.PCI = "0000:06:00.0"
		m.kernel.AddPF(ib)
		second := igb()
		second.Name, second.PCI, second.MAC = "ens5f0", "0000:05:00.0", ""
		m.kernel.AddPF(second)
		before := m.kernel.String()
		for _, c := range []struct{ options, want string }{
			{"netdevice=ens2 mode=macvlan macvlan_mode=private",
				"option host_access: needs macvlan_mode=bridge; in mode private the host is not reached either"},
			{"netdevice=ens2 mode=ipvlan ipvlan_mode=l3", "option host_access: needs ipvlan_mode=l2, not l3"},
			{"netdevice=ens2 mode=ipvlan ipvlan_flag=vepa", "option host_access: needs ipvlan_flag=bridge, not vepa"},
			{"netdevice=ens2 mode=passthrough", "option host_access: not for mode=passthrough, only for mode=sriov, macvlan, ipvlan"},
			{"netdevice=ens1f0,ens5f0", "option host_access: is for one pf; netdevice=ens1f0,ens5f0 are 2"},
			{"netdevice=ens1f0,ens5f0 bond=active-backup", "option host_access: not with bond=active-backup: containers " +
				"send by any of the pfs, and the host's child is on one"},
			{"netdevice=ens1f0 vlan=keep", "option host_access: not with vlan=keep: the host is in one vlan; say which"},
			{"netdevice=ib0", "option host_access: ib0 is an infiniband pf"},
		} {
			wantError(t, m.createHosted("x", strings.Fields(c.options)...), c.want)
		}
		wantError(t, m.create("x", "netdevice=ens2", "mode=macvlan", "host_access=yes"),
			"option host_access: the host needs an address, and the network has no subnet")
		without := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/8"}}}
		wantError(t, m.createWith("x", without, "netdevice=ens2", "mode=macvlan", "vlan=7", "host_access=yes"),
			"option host_access: the host needs an address in 10.0.0.0/8; reserve one: --aux-address host=ADDRESS")
		m.wantHost(before)
		m.must(m.createHosted("n", "netdevice=ens2", "mode=macvlan"))
		wantError(t, m.createHosted("x", "netdevice=bond0", "mode=macvlan"), "option host_access: network n has it as well, and containers "+
			"with the same addresses on another device: the host cannot tell them apart; use another subnet"+left("n"))
		wantError(t, m.createHosted("x", "netdevice=ens2", "mode=macvlan"),
			"option host_access: the host has address 10.255.0.1 by network n; reserve another with --aux-address"+left("n"))
		m.mustRemove("n")
		m.kernel.AddAddrs("bond0", "10.255.0.1/8")
		wantError(t, m.createHosted("x", "netdevice=ens2", "mode=macvlan", "vlan=7"),
			"host access: bond0 has address 10.255.0.1 already; reserve another with --aux-address")
		m.wantKeys()
	})
}

// TestHostAccessReplaced: a network that a crash has left and the engine does not have leaves the host's child to the next one.
func TestHostAccessReplaced(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		before := m.kernel.String()
		const stale = "stale-network-0123456789"
		m.must(m.createHosted(stale, "netdevice=ens2", "mode=macvlan", "vlan=100"))
		m.restart()
		m.must(m.createHosted("n", "netdevice=ens2", "mode=macvlan", "vlan=100", "replace="+stale))
		m.mustRun("a", "n")
		if shim := m.hostLines("pt-n"); !strings.Contains(shim, routeTo("a")) || m.hostLines("pt-stale-networ") != "none" {
			t.Errorf("the host has\n%s", m.kernel)
		}
		m.end("a")
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestHostAccessAfterReboot: the host's child is there again with the first container, or before.
func TestHostAccessAfterReboot(t *testing.T) {
	t.Parallel()
	for _, device := range []string{"ens2", "tap0"} {
		for _, options := range [][]string{{"mode=macvlan"}, {"mode=macvlan", "vlan=100"}} {
			t.Run(device+" "+strings.Join(options, " "), func(t *testing.T) {
				story(t, func(m *machine) {
					hardware := func(m *machine) {
						nic(m)
						m.kernel.AddVeth("tap0", "tap1")
						m.must(m.kernel.SetLink(m.kernel.Link("tap0").Index, hw.LinkUp, hw.Link{Up: true}))
					}
					hardware(m)
					before := m.kernel.String()
					m.must(m.createHosted("n", append(options, "netdevice="+device)...))
					m.mustRun("a", "n")
					m.reboot(hardware)
					m.mustRun("b", "n")
					if shim := m.hostLines("pt-n"); !strings.Contains(shim, routeTo("b")) {
						t.Errorf("with the first container:\n%s", shim)
					}
					m.reboot(hardware)
					m.settled()
					if shim := m.hostLines("pt-n"); !strings.Contains(shim, "CIDR:10.255.0.1/32") {
						t.Errorf("without a container:\n%s", shim)
					}
					m.mustRemove("n")
					m.settled()
					m.wantHost(before)
					m.wantKeys()
				})
			})
		}
	}
}

// TestHostAccessAfterRebootOfDownDevice: a device that is down after a reboot is brought up for a container only, not before.
func TestHostAccessAfterRebootOfDownDevice(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		hardware := func(m *machine) {
			pf := ens2()
			pf.Up = false
			m.kernel.AddPF(pf)
		}
		hardware(m)
		m.must(m.createHosted("n", "netdevice=ens2", "mode=macvlan", "vlan=100"))
		m.reboot(hardware)
		before := m.kernel.String()
		m.settled()
		m.wantHost(before)
		m.mustRun("a", "n")
		if shim := m.hostLines("pt-n"); !strings.Contains(shim, routeTo("a")) {
			t.Errorf("with a container:\n%s", shim)
		}
	})
}
