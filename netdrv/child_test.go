package netdrv_test

import (
	"strings"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestChildren: each container gets a child, which is removed with it, however it ended. The device stays in the host and does not change.
func TestChildren(t *testing.T) {
	t.Parallel()
	for mode, c := range map[string]struct {
		device  string
		options []string
		mac     bool // the child has its own MAC, which is answered
	}{
		"macvlan": {"ens2", []string{"macvlan_mode=private"}, true},
		"ipvlan":  {"ens2", []string{"ipvlan_mode=l3s", "ipvlan_flag=private"}, false},
		"ipoib":   {"ib0", []string{"ipoib_mode=connected", "pkey=0x7"}, false},
	} {
		t.Run(mode, func(t *testing.T) {
			story(t, func(m *machine) {
				nic(m)
				ipoib(m)
				before := m.kernel.String()
				options := append(c.options, "netdevice="+c.device, "mode="+mode)
				m.mustCreate("n", options...)
				m.mustCreate("same", options...)
				macs := map[string]bool{}
				for _, name := range []string{"a", "b", "c"} {
					_, mac := m.mustRun(name, "n")
					if (mac != "") != c.mac || mac != "" && macs[mac] {
						t.Errorf("answered mac %q for %s", mac, name)
					}
					macs[mac] = true
				}
				m.mustRun("d", "same")
				if l := m.kernel.InNS("b").Links()[0]; l.Kind != mode || !l.Carrier || l.Peer != m.kernel.Link(c.device).Index {
					t.Errorf("in the container: %+v", l)
				}
				_, value, _ := strings.Cut(c.options[0], "=")
				if all := m.kernel.String(); !strings.Contains(all, mode+" on "+c.device+" mode "+value) {
					t.Errorf("it is not in mode %s:\n%s", value, all)
				}
				m.restart()
				m.end("a")
				m.leave("b")
				m.kernel.KillNS("b", 2*time.Second) // the engine was killed
				m.delete("b")
				m.end("c")
				m.end("d")
				m.settled()
				m.wantHost(before)
				m.mustRemove("n")
				m.mustRemove("same")
				m.wantKeys()
			})
		})
	}
}

// TestChildMAC: a user can choose the MAC of a macvlan only, and none that another child of the device has.
func TestChildMAC(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		ipoib(m)
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan")
		m.mustRun("a", "n", "02:00:00:00:00:42")
		if l := m.kernel.InNS("a").Links()[0]; l.MAC != "02:00:00:00:00:42" {
			t.Errorf("in the container: %+v", l)
		}
		_, _, err := m.run("b", "n", "02:00:00:00:00:42")
		wantError(t, err, "mac address 02:00:00:00:00:42: macvlan on ens2 is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n")
		_, _, err = m.run("b", "n", "52:54:00:bb:00:00")
		wantError(t, err, "mac address 52:54:00:bb:00:00: ens2 has it")
		m.leave("a")
		m.kernel.KillNS("a", time.Second) // the engine was killed, and the container is restarted at once
		m.delete("a")
		m.mustRun("b", "n", "02:00:00:00:00:42")
		m.end("b")
		parent := m.kernel.Link("ens2").Index
		m.kernel.AddLink(hw.Link{Name: "mv0", Kind: hw.Macvlan, Peer: parent, MAC: "02:00:00:00:00:43", Up: true})
		_, _, err = m.run("c", "n", "02:00:00:00:00:43")
		if err == nil || !strings.HasSuffix(err.Error(), ": set mac 02:00:00:00:00:43: another on its device has it: "+
			"address already in use") {
			t.Errorf("the mac of a macvlan that the host created: %v", err)
		}
		m.kernel.DelLink("mv0")
		m.mustRemove("n")
		m.wantKeys()
		for _, c := range []struct{ mode, device, want string }{
			{"ipvlan", "ens2", "an ipvlan has the mac of its device, 52:54:00:bb:00:00"},
			{"ipoib", "ib0", "the address of an infiniband device cannot be chosen"},
		} {
			m.mustCreate(c.mode, "netdevice="+c.device, "mode="+c.mode)
			_, _, err := m.run("c", c.mode, "02:00:00:00:00:42")
			wantError(t, err, "mac address 02:00:00:00:00:42: "+c.want)
		}
	})
}

// TestChildParent: which devices can have children, and which other networks such a device can have.
func TestChildParent(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		bond(m, true)
		ipoib(m)
		m.kernel.AddPF(igb())
		m.kernel.AddPF(hwtest.PF{Name: "hosted", PCI: "0000:07:00.0", Up: true})
		m.kernel.AddLink(hw.Link{Name: "mv0", Kind: hw.Macvlan, Peer: m.kernel.Link("hosted").Index})
		m.mustCreate("macvlans", "netdevice=ens2", "mode=macvlan")
		m.mustCreate("ipvlans", "netdevice=bond0", "mode=ipvlan", "ipvlan_mode=l3", "ipvlan_flag=vepa")
		m.mustCreate("vfs", "netdevice=ens1f0")
		m.mustCreate("besides", "netdevice=ens1f0", "mode=macvlan")
		before := m.kernel.String()
		for _, c := range []struct{ options, want string }{
			{"netdevice=ens2 mode=ipvlan", "option mode: ens2 has macvlan children for network macvlans, and a device cannot have both kinds" +
				left("macvlans")},
			{"netdevice=bond0 mode=macvlan", "option mode: bond0 has ipvlan children for network ipvlans, and a device cannot have both kinds" +
				left("ipvlans")},
			{"netdevice=bond0 mode=ipvlan", "option ipvlan_mode: must be l3, as network ipvlans has it on bond0: " +
				"a device has one for all its children" + left("ipvlans")},
			{"netdevice=bond0 mode=ipvlan ipvlan_mode=l3 ipvlan_flag=private", "option ipvlan_flag: must be vepa, as network ipvlans has it on bond0: " +
				"a device has one for all its children" + left("ipvlans")},
			{"netdevice=ens2 mode=passthrough", "option netdevice: ens2 is used by network macvlans" + left("macvlans")},
			{"netdevice=ens3 mode=macvlan", "option netdevice: ens3 is a port of bond0, which takes its frames; say netdevice=bond0"},
			{"netdevice=hosted mode=ipvlan", "option netdevice: hosted carries mv0 (macvlan), and a device cannot have ipvlan children as well"},
			{"netdevice=ib0 mode=macvlan", "option netdevice: ib0 is of type infiniband; mode=macvlan is for devices of type ether"},
			{"netdevice=lo mode=ipvlan", "option netdevice: lo is of type loopback; mode=ipvlan is for devices of type ether"},
			{"netdevice=nosuch0 mode=macvlan", "option netdevice: nosuch0: no such device; the NICs of this host are ens1f0, ens2, ens3, ens4, hosted"},
		} {
			wantError(t, m.create("x", strings.Fields(c.options)...), c.want)
		}
		m.wantHost(before)
		m.mustRun("a", "besides")
		m.mustRun("b", "vfs")
		m.end("b")
		m.mustRemove("vfs") // its VFs are removed although the PF has another network, for which the PF stays up
		if n := m.kernel.NumVFs("0000:01:00.0"); n != 0 {
			t.Errorf("%d vfs are left", n)
		}
		m.settled()
		if l := m.kernel.InNS("a").Links()[0]; !l.Carrier {
			t.Errorf("without the vfs the child has no carrier: %+v", l)
		}
		m.end("a")
	})
}

// TestChildRefused: the error of a child that cannot be created is for users. It leaves nothing behind, and the next call tries again.
func TestChildRefused(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		before := m.kernel.String()
		const tooHigh = "option mtu: 1501 is above 1500, which ens2 has; raise that first"
		wantError(t, m.create("n", "netdevice=ens2", "mode=macvlan", "mtu=1501"), tooHigh)
		wantError(t, m.create("n", "netdevice=ens2", "mode=macvlan", "gso_max_size=524280"), "option gso_max_size: 524280 is above 65536, the most that ens2 can have")
		m.mustCreate("n", "netdevice=ens2", "mode=ipvlan")
		wantError(t, m.runWith("a", "n", map[string]any{"mtu": "1501"}), tooHigh)
		m.kernel.NoKinds = []string{hw.IPVlan}
		_, _, err := m.run("a", "n")
		wantError(t, err, "ens2: make a child (ipvlan, l2): not supported by the driver (operation not supported); "+
			"load its module: modprobe ipvlan")
		m.wantHost(before)
		m.wantKeys("net/n")
		m.kernel.NoKinds = nil
		m.mustRun("a", "n")
		m.end("a")
		m.wantHost(before)
	})
}

// TestChildOfDeadEngine: a container of an engine that has died costs no more than its record, which is removed with
// the network; a child that stays in the host is removed.
func TestChildOfDeadEngine(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan")
		m.mustRun("a", "n")
		m.kernel.KillNS("a", 0)
		if _, err := m.createEndpoint("b", "n", plugin.EndpointInterface{}); err != nil {
			t.Fatal(err)
		}
		if m.kernel.String() == before {
			t.Error("b has no child")
		}
		m.settled()
		m.wantHost(before)
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestChildAfterReboot: children do not survive a reboot; the network does.
func TestChildAfterReboot(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan")
		m.mustRun("a", "n")
		m.kernel.KillNS("a", 0)
		m.boot = "boot-2"
		m.restart()
		m.settled()
		m.wantKeys("net/n")
		m.mustRun("a", "n")
		m.end("a")
		m.wantHost(before)
	})
}

// TestParentBecomesPort: a container cannot start on a device that has become a port of a bridge since the network was created; on a port of a
// VRF, which takes no frames, it can.
func TestParentBecomesPort(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan")
		under := func(kind string) {
			m.must(m.kernel.SetLink(m.kernel.Link("ens2").Index, hw.LinkMaster, hw.Link{Master: m.kernel.AddLink(hw.Link{Name: kind + "7", Kind: kind})}))
		}
		under("bridge")
		before := m.kernel.String()
		_, _, err := m.run("a", "n")
		wantError(t, err, "network n: ens2 is a port of bridge7, which takes its frames; say netdevice=bridge7")
		m.wantHost(before)
		under("vrf")
		m.mustRun("a", "n")
		m.end("a")
		m.mustCreate("two", "netdevice=ens2", "mode=macvlan")
	})
}
