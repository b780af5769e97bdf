package netdrv_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestTriedAtCreate: what a driver refuses is found out when the network is created, on a VF that is free, and the VF is as it was then.
func TestTriedAtCreate(t *testing.T) {
	t.Parallel()
	for options, want := range map[string]string{
		"trust=yes":                     "option trust: vf 0 of ens1f0 (0000:01:10.0): set trust true with enic: not supported by the driver (operation not supported)",
		"privileged=yes":                "option privileged: vf 0 of ens1f0 (0000:01:10.0): set trust true with enic: not supported by the driver (operation not supported)",
		"spoofchk=no min_tx_rate=100":   "option min_tx_rate: vf 0 of ens1f0 (0000:01:10.0): set rate min 100 max 0 Mbit/s with enic: invalid argument",
		"vlan=7 vlan_qos=3":             "option vlan_qos: vf 0 of ens1f0 (0000:01:10.0): set vlan 7 qos 3 with enic: invalid argument",
		"vlan=7 vlan_proto=802.1ad":     "option vlan_proto: vf 0 of ens1f0 (0000:01:10.0): set vlan 7 proto 802.1ad with enic: not supported by the driver (protocol not supported)",
		"vlan=7 link_state=enable":      "option link_state: vf 0 of ens1f0 (0000:01:10.0): set link_state enable with enic: not supported by the driver (operation not supported)",
		"vlan=7 max_tx_rate=10":         "",
		"vlan=7 spoofchk=no":            "",
		"vlan=7 vlan_qos=0 trust=no":    "",
		"vfs=1 spoofchk=no trust=false": "",
	} {
		t.Run(options, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				b := hwtest.BNXT()
				b.MinRate, b.LinkState, b.Trust = false, false, false
				m.kernel.AddPF(unknownDriver(b))
				m.settled()
				before := m.kernel.String()
				err := m.create("n", append(strings.Fields(options), "netdevice=ens1f0")...)
				if want == "" {
					m.must(err)
					m.wantKeys("net/n")
					m.wantHost(before)
					return
				}
				wantError(t, err, want+"; leave it out, or use a nic that can")
				m.wantKeys()
				m.wantHost(before)
			})
		})
	}
}

// TestNothingToTryOn: a VF that has a container, that the host uses or that the network may not use is not touched, and neither is one of a
// PF that is down. Rates, which some drivers refuse without a link, are not tried without one.
func TestNothingToTryOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		prepare func(m *machine)
		options []string
	}{
		"in use": {func(m *machine) {
			m.mustCreate("first", "netdevice=ens1f0", "vfs=0")
			m.mustRun("a", "first")
			_, l, _ := m.kernel.Netdev("0000:01:10.2")
			m.kernel.AddAddrs(l.Name, "192.0.2.1/24")
		}, []string{"trust=yes"}},
		"up in the host": {func(m *machine) {
			_, l, _ := m.kernel.Netdev("0000:01:10.0")
			m.must(m.kernel.SetLink(l.Index, hw.LinkUp, hw.Link{Up: true}))
		}, []string{"trust=yes", "vfs=0"}},
		"pf down":    {func(m *machine) { m.setDown("ens1f0") }, []string{"trust=yes"}},
		"no carrier": {func(m *machine) { m.kernel.Plug("ens1f0", false) }, []string{"max_tx_rate=10"}},
		"plain vlan": {func(*machine) {}, []string{"vlan=7"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				m.kernel.AddPF(unknownDriver(hwtest.IGB()))
				m.settled()
				c.prepare(m)
				asked := len(m.kernel.Calls())
				m.mustCreate("n", append(c.options, "netdevice=ens1f0")...)
				if calls := m.kernel.Calls()[asked:]; len(calls) > 0 {
					t.Errorf("asked: %q", calls)
				}
			})
		})
	}
}

// TestCrashInTrial: the plugin is killed at each change that it makes while a network is created. The VF that was tried is restored, and
// nothing is left.
func TestCrashInTrial(t *testing.T) {
	t.Parallel()
	for n := 0; ; n++ {
		done := false
		story(t, func(m *machine) {
			m.kernel.AddPF(unknownDriver(hwtest.AllVFOps()))
			m.settled()
			before := m.kernel.String()
			m.kernel.FailFrom(n, errors.New("killed"))
			calls := len(m.kernel.Calls())
			err := m.create("n", "netdevice=ens1f0", "vlan=100", "vlan_qos=3", "trust=yes", "spoofchk=no", "max_tx_rate=9", "link_state=enable")
			done = len(m.kernel.Calls()) <= calls+n
			m.stop()
			m.kernel.OnCall(nil)
			m.start(m.store)
			m.settled()
			m.wantHost(before)
			if err == nil {
				m.wantKeys("net/n")
				m.mustRemove("n")
			}
			m.wantKeys()
		})
		if done {
			if n < 9 {
				t.Errorf("only %d changes", n)
			}
			return
		}
	}
}

// TestMTUAtCreate: an MTU, or a size of packets, that a device cannot have is refused when the network is created.
func TestMTUAtCreate(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		wantError(t, m.create("n", "netdevice=ens1f0", "mtu=9000"), "option mtu: 9000 is above 1500, which ens1f0 (0000:01:00.0) has, and a vf "+
			"cannot exceed its pf; raise that first: ip link set ens1f0 mtu 9000")
		wantError(t, m.create("n", "netdevice=ens1f0", "mtu=9500"),
			"option mtu: 9500 is above 9216, the most that ens1f0 (0000:01:00.0) with driver igb can have")
		m.wantHost(before)
		m.wantKeys()
		wantError(t, m.create("n", "netdevice=ens1f0", "mode=passthrough", "mtu=9500"),
			"option mtu: 9500 is above 9216, the most that ens1f0 can have")
		wantError(t, m.create("n", "netdevice=ens1f0", "mode=passthrough", "gso_ipv4_max_size=65537"),
			"option gso_ipv4_max_size: 65537 is above 65536, the most that ens1f0 can have")
		m.wantHost(before)
		m.must(m.kernel.SetLink(m.kernel.Link("ens1f0").Index, hw.LinkMTU, hw.Link{MTU: 9000}))
		m.mustCreate("n", "netdevice=ens1f0", "mtu=9000")
		wantError(t, m.runWith("b", "n", map[string]any{"gso_max_size": "150000"}),
			"ens1f0v0: set gso_max_size 150000: its driver cuts packets of at most 65536 bytes into frames")
		m.mustRun("a", "n")
	})
}
