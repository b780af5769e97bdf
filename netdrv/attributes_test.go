package netdrv_test

import (
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/netdrv/option"
)

// able adds a PF that supports all attributes of rtnetlink, and has two VFs.
func able(m *machine) {
	pf := igb()
	pf.Up, pf.VFs, pf.Behaviour = true, 2, hwtest.AllVFOps()
	m.kernel.AddPF(pf)
	m.settled()
}

// runWith is run with options for the one container.
func (m *machine) runWith(container, network string, own map[string]any) error {
	ctx, cancel := m.call()
	defer cancel()
	_, err := m.driver.CreateEndpoint(ctx, &plugin.CreateEndpointRequest{NetworkID: network, EndpointID: endpoint(container),
		Interface: &plugin.EndpointInterface{Address: addressOf(container)}, Options: own})
	if err != nil {
		return err
	}
	join, err := m.driver.Join(ctx, &plugin.JoinRequest{NetworkID: network, EndpointID: endpoint(container)})
	if err != nil {
		return err
	}
	inside, err := m.inside(join.InterfaceName)
	if err != nil {
		return err
	}
	m.where[container] = place{network, join.InterfaceName.SrcName, inside}
	return m.kernel.MoveToNS(container, join.InterfaceName.SrcName, inside)
}

// TestEveryAttribute: each attribute of a VF and of its netdev is set from the network's options, and restored afterwards.
func TestEveryAttribute(t *testing.T) {
	story(t, func(m *machine) {
		able(m)
		before := m.kernel.String()
		err := m.create("n", "netdevice=ens1f0", "vlan=100", "vlan_qos=5", "vlan_proto=802.1ad", "spoofchk=off", "trust=on",
			"link_state=enable", "min_tx_rate=100", "max_tx_rate=1000", "mtu=1400", "txqlen=500", "promisc=yes", "allmulti=yes",
			"gso_max_size=50000", "gro_max_size=150000", "gso_ipv4_max_size=40000", "gro_ipv4_max_size=70000")
		m.must(err)
		_, mac := m.mustRun("a", "n")
		states := m.vfStates("ens1f0")
		want := hw.VFState{MAC: hw.MAC(mac), VLAN: hw.VLAN{ID: 100, QoS: 5, Proto: hw.Dot1AD}, Trust: true,
			Rate: hw.Rate{Min: 100, Max: 1000}, LinkMode: hw.LinkEnable}
		if states[0] != want {
			t.Errorf("vf 0 is %+v, want %+v", states[0], want)
		}
		l := m.kernel.InNS("a").Links()[0]
		segments := hw.Segments{GSOMaxSize: 50000, GSOMaxSegs: 65535, GROMaxSize: 150000, GSOIPv4MaxSize: 40000, GROIPv4MaxSize: 70000}
		if l.MTU != 1400 || l.TxQLen != 500 || !l.Promisc || !l.AllMulti || l.Segments != segments {
			t.Errorf("in the container: %+v", l)
		}
		m.end("a")
		m.wantHost(before)
	})
}

// TestContainerOverrides: a container's options override the network's. Keys and values are matched without regard to case.
func TestContainerOverrides(t *testing.T) {
	story(t, func(m *machine) {
		able(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100", "vlan_qos=3", "max_tx_rate=500")
		err := m.runWith("a", "n", map[string]any{"com.docker.network.portmap": []any{}, "VLAN": "200", "Trust": "YES",
			"mac": "02:00:00:00:00:AB", "prefix": "data", "max_tx_rate": "0"})
		m.must(err)
		states := m.vfStates("ens1f0")
		want := hw.VFState{MAC: "02:00:00:00:00:ab", VLAN: hw.VLAN{ID: 200, QoS: 3}, Spoofchk: true, Trust: true}
		if states[0] != want {
			t.Errorf("vf 0 is %+v, want %+v", states[0], want)
		}
		if l := m.kernel.InNS("a").Links()[0]; l.Name != "data0" || l.MAC != "02:00:00:00:00:ab" {
			t.Errorf("in the container: %+v", l)
		}
		m.end("a")
		m.wantHost(before)
	})
}

// TestContainerOptions: an option that cannot be given for one container, or not on this network, is an error.
func TestContainerOptions(t *testing.T) {
	story(t, func(m *machine) {
		able(m)
		m.mustCreate("other", "netdevice=ens1f0", "vlan=300")
		m.mustCreate("n", "netdevice=ens1f0", "vlan=100", "lock=vlan,trust")
		m.mustCreate("open", "netdevice=ens1f0")
		before := m.kernel.String()
		for _, c := range []struct {
			network, key string
			value        any
			want         string
		}{
			{"n", "vlan", "5", "option vlan: the network does not let containers change it (lock)"},
			{"n", "trust", "yes", "option trust: the network does not let containers change it (lock)"},
			{"n", "netdevice", "ens2", "option netdevice: cannot be given for one container; give it with docker network create"},
			{"n", "colour", "blue", `option "colour": unknown; known are ` + known(option.ForContainer, option.ForBoth)},
			{"n", "mtu", "9000", "ens1f0v0: set mtu 9000: its pf has mtu 1500, which a vf cannot exceed; raise the pf's first"},
			{"n", "mtu", 9000, "option mtu: is a int, not a text"},
			{"n", "mac", "00:00:00:00:00:00", `option mac: "00:00:00:00:00:00" is not allowed; allowed: six octets, not zero, not multicast`},
			{"open", "vlan", "300", "option vlan: 300 is used on ens1f0 (0000:01:00.0) by network other; choose another"},
			{"open", "vlan_qos", "3", "option vlan_qos: there is no tag to carry it; give vlan=1 to 4094 as well"},
		} {
			wantError(t, m.runWith("a", c.network, map[string]any{c.key: c.value}), c.want)
		}
		m.wantHost(before)
	})
}

// TestLockedMAC: a network that locks mac, or all, refuses a container's own MAC, vf and GUID, also as --mac-address. A MAC that the engine
// has generated, because the IPAM driver requires one, is not the user's.
func TestLockedMAC(t *testing.T) {
	const chosen = "02:00:00:00:00:42"
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("all", "netdevice=ens1f0", "vlan=100", "lock=all")
		m.mustCreate("some", "netdevice=ens1f0", "lock=mac,vf")
		for option, value := range map[string]string{"mac": chosen, "vf": "1"} {
			for _, network := range []string{"all", "some"} {
				wantError(t, m.runWith("a", network, map[string]any{option: value}),
					"option "+option+": the network does not let containers change it (lock)")
			}
		}
		ctx, cancel := m.call()
		defer cancel()
		r := &plugin.CreateEndpointRequest{NetworkID: "all", EndpointID: endpoint("a"), Options: map[string]any{netlabel.MacAddress: "AgAAAABC"},
			Interface: &plugin.EndpointInterface{MacAddress: chosen}}
		_, err := m.driver.CreateEndpoint(ctx, r)
		wantError(t, err, "--mac-address "+chosen+": option mac: the network does not let containers change it (lock)")
		m.mustRun("b", "all", chosen)
	})
}

// TestUnsupportedByIGB: an attribute that the user gave and the driver is known not to support is an error that names device and attribute,
// for a network, also if all VFs are in use, and for a container. The host is as before then.
func TestUnsupportedByIGB(t *testing.T) {
	for option, want := range map[string]string{
		"link_state=enable": "set link_state enable: driver igb does not support it; leave link_state out",
		"min_tx_rate=10":    "set rate min 10 max 0 Mbit/s: driver igb guarantees no rate; leave min_tx_rate out",
	} {
		t.Run(option, func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddPF(igb())
				before := m.kernel.String()
				wantError(t, m.create("n", "netdevice=ens1f0", option), "ens1f0 (0000:01:00.0): "+want)
				m.settled()
				m.wantHost(before)
				m.wantKeys()
				m.mustCreate("n", "netdevice=ens1f0", "numvfs=1")
				m.mustRun("a", "n")
				wantError(t, m.create("m", "netdevice=ens1f0", option), "ens1f0 (0000:01:00.0): "+want)
				m.end("a")
				key, value, _ := strings.Cut(option, "=")
				wantError(t, m.runWith("b", "n", map[string]any{key: value}), "ens1f0 (0000:01:00.0): "+want)
				m.mustRemove("n")
				m.wantHost(before)
			})
		})
	}
	story(t, func(m *machine) { // a whole device has no VF attributes; the others are set
		nic(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "mtu=9000", "promisc=on")
		m.mustRun("a", "n")
		if l := m.kernel.InNS("a").Links()[0]; l.MTU != 9000 || !l.Promisc {
			t.Errorf("in the container: %+v", l)
		}
		m.end("a")
		m.wantHost(before)
	})
}

// TestKernelErrno: a driver may refuse what it does not support with an errno of the kernel's own. An attribute that the user did not give
// may be missing then as well, and the error about one that the user gave says what it means.
func TestKernelErrno(t *testing.T) {
	story(t, func(m *machine) {
		pf := igb()
		pf.Driver, pf.VFDriver, pf.Behaviour = "bnxt_en", "bnxt_en", hwtest.BNXTOldFirmware()
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		m.mustCreate("p", "netdevice=ens1f0")
		wantError(t, m.runWith("b", "p", map[string]any{"spoofchk": "yes"}),
			"vf 1 of ens1f0 (0000:01:10.2): set spoofchk true with bnxt_en: not supported by the driver (operation not supported, errno 524)")
		m.end("a")
	})
}

// TestUnsupportedDefaults: a PF need not support attributes that the user did not give.
func TestUnsupportedDefaults(t *testing.T) {
	story(t, func(m *machine) {
		pf := igb()
		pf.Trust, pf.Spoofchk = false, false
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		m.end("a")
		wantError(t, m.create("p", "netdevice=ens1f0", "trust=yes"), "option trust: vf 0 of ens1f0 (0000:01:10.0): set trust true with igb: "+
			"not supported by the driver (operation not supported); leave it out, or use a nic that can")
	})
}

// TestLinkState: a VF with link_state=disable does not count as faulty; one with link_state=enable has carrier without a cable.
func TestLinkState(t *testing.T) {
	t.Parallel()
	for state, carrier := range map[string]bool{"auto": false, "disable": false, "enable": true} {
		t.Run(state, func(t *testing.T) {
			story(t, func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs, pf.Behaviour, pf.Unplugged = true, 1, hwtest.AllVFOps(), true
				m.kernel.AddPF(pf)
				m.settled()
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens1f0", "link_state="+state)
				m.mustRun("a", "n")
				m.settled()
				if l := m.kernel.InNS("a").Links()[0]; l.Carrier != carrier {
					t.Errorf("carrier %v, want %v", l.Carrier, carrier)
				}
				m.end("a")
				m.wantHost(before)
			})
		})
	}
}
