package netdrv_test

import (
	"strings"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// vlan adds the VLAN device of an administrator.
func (m *machine) vlan(parent, name string, id int) {
	m.t.Helper()
	m.must(m.kernel.CreateLink(hw.NewLink{Name: name, Kind: hw.VLANDevice, Parent: m.kernel.Link(parent).Index, VLAN: id}))
}

// TestVLANParent: networks with the same device and VLAN share its VLAN device, which goes with the last of them.
func TestVLANParent(t *testing.T) {
	t.Parallel()
	for mode, name := range map[string]string{"macvlan": "ens2", "ipvlan": "0000:02:00.0"} {
		t.Run(mode, func(t *testing.T) {
			story(t, func(m *machine) {
				nic(m)
				before := m.kernel.String()
				m.mustCreate("one", "netdevice="+name, "mode="+mode, "vlan=100")
				m.mustCreate("two", "parent=ens2.100", "mode="+mode)
				m.mustCreate("other", "netdevice=ens2", "mode="+mode, "vlan=4094")
				m.mustRun("a", "one")
				m.mustRun("b", "two")
				m.mustRun("c", "other")
				v := m.kernel.Link("ens2.100")
				for _, c := range []string{"a", "b"} {
					if l := m.kernel.InNS(c).Links()[0]; l.Peer != v.Index || l.Kind != mode {
						t.Errorf("in container %s: %+v", c, l)
					}
				}
				if v.VLAN != 100 || m.kernel.InNS("c").Links()[0].Peer != m.kernel.Link("ens2.4094").Index {
					t.Errorf("the host has\n%s", m.kernel)
				}
				m.restart()
				m.end("a")
				m.mustRemove("one")
				m.settled()
				m.mustRun("a", "two")
				if now := m.kernel.Link("ens2.100"); now.Index != v.Index {
					t.Error("the vlan device was created anew while a network has it")
				}
				for _, c := range []string{"a", "b", "c"} {
					m.end(c)
				}
				m.mustRemove("two")
				m.mustRemove("other")
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestVLANDeviceOfAdministrator: a VLAN device that the plugin has not created is used under whatever name it has, and stays.
func TestVLANDeviceOfAdministrator(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.vlan("ens2", "lan7", 7)
		m.vlan("ens2", "ens2.8", 8)
		m.must(m.kernel.SetLink(m.kernel.Link("lan7").Index, hw.LinkUp, hw.Link{Up: true}))
		m.must(m.kernel.SetLink(m.kernel.Link("ens2.8").Index, hw.LinkUp, hw.Link{Up: true}))
		before := m.kernel.String()
		m.mustCreate("seven", "netdevice=ens2", "mode=macvlan", "vlan=7")
		m.mustCreate("same", "netdevice=lan7", "mode=macvlan")
		m.mustCreate("eight", "netdevice=ens2.8", "mode=macvlan")
		for c, n := range map[string]string{"a": "seven", "b": "same", "c": "eight"} {
			m.mustRun(c, n)
		}
		if l := m.kernel.InNS("a").Links()[0]; l.Peer != m.kernel.Link("lan7").Index {
			t.Errorf("in the container: %+v", l)
		}
		wantError(t, m.create("x", "netdevice=ens2", "mode=ipvlan", "vlan=7"), "option mode: lan7 has macvlan children for network same, "+
			"and a device cannot have both kinds"+left("same"))
		for _, c := range []string{"a", "b", "c"} {
			m.end(c)
		}
		for _, n := range []string{"seven", "same", "eight"} {
			m.mustRemove(n)
		}
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestVLANParentRefused: what cannot be is refused with the reason, and changes nothing.
func TestVLANParentRefused(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		ipoib(m)
		m.kernel.AddLink(hw.Link{Name: "ens2.5", Kind: "bridge"})
		m.vlan("ens2", "lan7", 7)
		m.kernel.AddPF(igb())
		m.mustCreate("vfs", "netdevice=ens1f0", "vlan=100") // the same vlan on another kind of network
		before := m.kernel.String()
		for _, c := range []struct{ options, want string }{
			{"netdevice=ens2 mode=macvlan vlan=5",
				"option vlan: there is another device called ens2.5, which is not vlan 5 of ens2; rename it"},
			{"netdevice=lan7 mode=macvlan vlan=5",
				"option vlan: lan7 is a device of one vlan itself; leave the option out, or name another device"},
			{"netdevice=ens2.9 mode=macvlan vlan=5", "option netdevice: ens2.9: no such device; the NICs of this host are ens1f0, ens2"},
			{"netdevice=ens2.9 mode=passthrough", "option netdevice: ens2.9: no such device; the NICs of this host are ens1f0, ens2"},
			{"netdevice=ens2.4095 mode=macvlan", "option netdevice: ens2.4095: no such device; the NICs of this host are ens1f0, ens2"},
			{"netdevice=ens2.09 mode=macvlan", "option netdevice: ens2.09: no such device; the NICs of this host are ens1f0, ens2"},
			{"netdevice=nosuch.9 mode=macvlan", "option netdevice: nosuch.9: no such device; the NICs of this host are ens1f0, ens2"},
			{"netdevice=ens2 mode=macvlan vlan=keep", "option vlan: keep is for mode=sriov; say 0 to 4094"},
			{"netdevice=ib0 mode=ipoib vlan=5", "option vlan: not for mode=ipoib, only for mode=sriov, macvlan, ipvlan"},
			{"netdevice=ib0 mode=macvlan vlan=5", "option netdevice: ib0.5 is of type infiniband; mode=macvlan is for devices of type ether"},
			{"netdevice=ens2 mode=macvlan vlan=5 mtu=1501", "option vlan: there is another device called ens2.5, which is not vlan 5 of ens2; rename it"},
			{"netdevice=ens2 mode=macvlan vlan=6 mtu=1501", "option mtu: 1501 is above 1500, which ens2.6 has; raise that first"},
		} {
			wantError(t, m.create("x", strings.Fields(c.options)...), c.want)
		}
		m.wantHost(before)
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan", "vlan=6")
		wantError(t, m.runWith("a", "n", map[string]any{"vlan": "8"}),
			"option vlan: cannot be given for one container with mode=macvlan; give it with docker network create")
		wantError(t, m.create("x", "netdevice=ens2", "mode=passthrough", "force=yes"), "option netdevice: ens2 is used by network n"+left("n"))
		wantError(t, m.create("x", "netdevice=ens2.6", "mode=passthrough"), "option netdevice: ens2.6 is used by network n"+left("n"))
		m.mustCreate("plain", "netdevice=ens2", "mode=ipvlan") // another device than ens2.6
		m.mustCreate("zero", "netdevice=ens2", "mode=ipvlan", "vlan=0")
		for _, n := range []string{"n", "plain", "zero"} {
			m.mustRemove(n)
		}
		m.wantHost(before)
		m.mustCreate("whole", "netdevice=ens2", "mode=passthrough", "force=yes")
		wantError(t, m.create("x", "netdevice=ens2", "mode=macvlan", "vlan=6"), "option netdevice: ens2.6 is handed over whole by network whole"+
			left("whole"))
	})
}

// TestVLANParentInUse: a VLAN device that the host has begun to use stays as long as it does.
func TestVLANParentInUse(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan", "vlan=100")
		m.kernel.AddLink(hw.Link{Name: "mv0", Kind: hw.Macvlan, Peer: m.kernel.Link("ens2.100").Index})
		wantError(t, m.remove("n"), "network n: it is removed, but ens2.100, which the plugin created, stays until the host does not use it any more: "+
			"it carries mv0 (macvlan)")
		m.settled()
		index := m.kernel.Link("ens2.100").Index
		m.mustRemove("n")
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan", "vlan=100")
		if now := m.kernel.Link("ens2.100").Index; now != index {
			t.Error("it was created anew")
		}
		m.kernel.AddAddrs("ens2.100", "203.0.113.1/24")
		if err := m.remove("n"); err == nil || !strings.Contains(err.Error(), "mv0") {
			t.Errorf("remove the network: %v", err)
		}
		m.kernel.DelLink("mv0")
		m.settled()
		m.kernel.Link("ens2.100") // for its address
		m.kernel.DelLink("ens2.100")
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestVLANAfterReboot: a VLAN device is created again for the networks that have it, also without a container, and when its parent was gone.
func TestVLANAfterReboot(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		hardware := func(m *machine) {
			nic(m)
			m.kernel.AddVeth("tap0", "tap1")
			m.must(m.kernel.SetLink(m.kernel.Link("tap0").Index, hw.LinkUp, hw.Link{Up: true}))
		}
		hardware(m)
		before := m.kernel.String()
		m.mustCreate("pci", "netdevice=ens2", "mode=macvlan", "vlan=100")
		m.mustCreate("virtual", "netdevice=tap0", "mode=macvlan", "vlan=100")
		m.mustRun("a", "virtual")
		m.reboot(hardware)
		m.mustRun("b", "virtual")
		m.settled()
		m.mustRun("c", "pci")
		for c, dev := range map[string]string{"b": "tap0.100", "c": "ens2.100"} {
			if l := m.kernel.InNS(c).Links()[0]; l.Peer != m.kernel.Link(dev).Index {
				t.Errorf("in container %s: %+v", c, l)
			}
		}
		m.mustCreate("more", "netdevice=tap0.100", "mode=macvlan")
		for _, c := range []string{"b", "c"} {
			m.end(c)
		}
		m.kernel.DelLink("ens2.100") // by an administrator, or its driver
		m.settled()
		m.kernel.Link("ens2.100")
		for _, n := range []string{"pci", "virtual", "more"} {
			m.mustRemove(n)
		}
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestVLANMTU: the MTU of a VLAN device, and with it that of new children, is that of its parent, which may change.
func TestVLANMTU(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		parent := m.kernel.Link("ens2").Index
		setMTU := func(mtu int) { m.must(m.kernel.SetLink(parent, hw.LinkMTU, hw.Link{MTU: mtu})) }
		wantMTU := func(c string, mtu int) {
			t.Helper()
			if l := m.kernel.InNS(c).Links()[0]; l.MTU != mtu {
				t.Errorf("container %s has mtu %d, want %d", c, l.MTU, mtu)
			}
		}
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan", "vlan=100")
		m.mustRun("a", "n")
		setMTU(9000)
		m.mustRun("b", "n") // before the reconciler has seen it
		wantMTU("a", 1500)
		wantMTU("b", 9000)
		setMTU(1400)
		wantMTU("b", 1400)
		m.mustRun("c", "n")
		wantMTU("c", 1400)
		setMTU(2000)
		m.settled()
		if v := m.kernel.Link("ens2.100"); v.MTU != 2000 {
			t.Errorf("the vlan device has mtu %d", v.MTU)
		}
	})
}

// TestVLANOnDownDevice: the device below a VLAN device is brought up if it was never up, and not if an administrator has set it down.
func TestVLANOnDownDevice(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pf := ens2()
		pf.Up = false
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ens2", "mode=macvlan", "vlan=100")
		m.mustRun("a", "n")
		if l := m.kernel.InNS("a").Links()[0]; !l.Carrier {
			m.settled()
			if l := m.kernel.InNS("a").Links()[0]; !l.Carrier {
				t.Errorf("in the container: %+v", l)
			}
		}
		m.must(m.kernel.SetLink(m.kernel.Link("ens2").Index, hw.LinkUp, hw.Link{}))
		m.settled()
		_, _, err := m.run("b", "n")
		wantError(t, err, "ens2 was set down on the host while networks use it; when it may be used again: ip link set ens2 up (waited 6s)")
		m.must(m.kernel.SetLink(m.kernel.Link("ens2").Index, hw.LinkUp, hw.Link{Up: true}))
		m.mustRun("b", "n")
	})
}

// TestVLANOfLongName: the kernel takes no name of more than 15 letters.
func TestVLANOfLongName(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pf := ens2()
		pf.Name = "enp129s0f0np0"
		m.kernel.AddPF(pf)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=enp129s0f0np0", "mode=macvlan", "vlan=4000")
		m.mustCreate("same", "netdevice=enp129s0f0np0", "mode=macvlan", "vlan=4000")
		m.mustRun("a", "n")
		m.end("a")
		m.mustRemove("n")
		m.mustRemove("same")
		m.wantHost(before)
		m.wantKeys()
	})
}
