package netdrv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// igb is a PF like that of the lab.
func igb() hwtest.PF {
	return hwtest.PF{Behaviour: hwtest.IGB(), Name: "ens1f0", PCI: "0000:01:00.0", MAC: "52:54:00:aa:00:00", TotalVFs: 7,
		CarrierAfter: 3 * time.Second, VFCarrierAfter: 100 * time.Millisecond, ProbeTakes: 40 * time.Millisecond,
		VFDriverAfter: 200 * time.Millisecond, ResetTakes: 300 * time.Millisecond}
}

// TestOneContainer runs one container on a network: VFs are created, one is bound, set up, attached and released, and all are removed.
func TestOneContainer(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		before := m.kernel.String()
		m.mustCreate("customer1", "netdevice=ens1f0", "vlan=100")
		if n := m.kernel.NumVFs("0000:01:00.0"); n != 7 {
			t.Fatalf("%d vfs, want 7", n)
		}
		shared := m.kernel.String()
		source, mac := m.mustRun("web", "customer1")
		if inside := m.kernel.InNS("web").Links(); len(inside) != 1 || inside[0].Name != "eth0" || string(inside[0].MAC) != mac {
			t.Errorf("in the container: %+v, want eth0 with %s", inside, mac)
		}
		states := m.vfStates("ens1f0")
		if want := (hw.VFState{MAC: hw.MAC(mac), VLAN: hw.VLAN{ID: 100}, Spoofchk: true}); states[0] != want {
			t.Errorf("vf 0 is %+v, want %+v", states[0], want)
		}
		m.end("web")
		if l := m.kernel.Link(source); l.Up || string(l.MAC) != mac {
			t.Errorf("back in the host: %+v, want %s down with %s", l, source, mac)
		}
		again, sameMAC := m.mustRun("web2", "customer1")
		if again != source || sameMAC != mac {
			t.Errorf("the next container got %s %s, want the same %s %s", again, sameMAC, source, mac)
		}
		m.end("web2")
		if s := m.vfStates("ens1f0"); s[0].VLAN.ID != 0 || !strings.Contains(shared, mac) {
			t.Errorf("vf 0 is %+v; want it as it was created:\n%s", s[0], shared)
		}
		m.mustRemove("customer1")
		m.wantHost(before)
		if keys := m.keys(); len(keys) > 0 {
			t.Errorf("left in the ledger: %v", keys)
		}
	})
}

// TestComesHomeLate: a VF that comes home late, under another name, is waited for and renamed.
func TestComesHomeLate(t *testing.T) {
	for _, late := range []time.Duration{0, time.Second, 20 * time.Second} {
		t.Run(late.String(), func(t *testing.T) {
			story(t, func(m *machine) {
				pf := igb()
				pf.Up, pf.VFs = true, 2
				m.kernel.AddPF(pf)
				m.settled()
				m.mustCreate("n", "netdevice=0000:01:00.0", "vlan=5")
				before := m.kernel.String()
				m.mustRun("web", "n")
				m.leave("web")
				m.kernel.KillNS("web", late)
				m.delete("web")
				m.settled()
				m.wantHost(before)
			})
		})
	}
}

// TestAllInUse: the error of the eighth container on seven VFs names their holders.
func TestAllInUse(t *testing.T) {
	story(t, func(m *machine) {
		pf := igb()
		pf.TotalVFs = 2
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		m.mustRun("b", "n")
		_, _, err := m.run("c", "n")
		wantError(t, err, "ens1f0 (0000:01:00.0): all 2 vfs are in use: "+
			"vf 0 of ens1f0 (0000:01:10.0) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; "+
			"vf 1 of ens1f0 (0000:01:10.2) is held by endpoint b-endpoint-0 ("+ipOf("b")+") of network n")
		m.end("a")
		m.mustRun("c", "n")
		m.end("b")
		m.end("c")
	})
}

// TestWaitsForReturningVF: a container that is restarted before its VF has come home waits for it and gets it.
func TestWaitsForReturningVF(t *testing.T) {
	story(t, func(m *machine) {
		pf := igb()
		pf.TotalVFs = 1
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		m.leave("a")
		m.kernel.KillNS("a", 6*time.Second)
		m.delete("a") // gives up waiting after 3 seconds
		m.mustRun("b", "n")
		m.end("b")
	})
}

// TestMAC: a VF's own MAC selects that VF. Another MAC is set in the PF and on the netdev, and the original restored afterwards.
func TestMAC(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0")
		states := m.vfStates("ens1f0")
		third := string(states[3].MAC)
		if _, mac := m.mustRun("a", "n", third); mac != third {
			t.Errorf("got %s, want %s", mac, third)
		}
		if ns, l, _ := m.kernel.Netdev("0000:01:10.6"); ns != "a" || string(l.MAC) != third {
			t.Errorf("vf 3 is in %q with %s, want it in a with %s", ns, l.MAC, third)
		}
		_, _, err := m.run("b", "n", third)
		wantError(t, err, "mac address "+third+": vf 3 of ens1f0 (0000:01:10.6) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n")
		m.mustRun("b", "n", "02:00:00:00:00:99")
		if _, l, _ := m.kernel.Netdev("0000:01:10.0"); l.MAC != "02:00:00:00:00:99" {
			t.Errorf("the netdev of vf 0 has %s", l.MAC)
		}
		m.end("b")
		m.mustRun("c", "n") // the VF that b had, with its original MAC
		m.end("c")
		_, _, err = m.run("d", "n", "01:00:5e:00:00:01")
		wantError(t, err, "mac address 01:00:5e:00:00:01: must be six octets, not zero and not a multicast address")
		m.end("a")
	})
}

// TestPrivileged: spoof check and trust follow the option.
func TestPrivileged(t *testing.T) {
	for value, want := range map[string]hw.VFState{
		"":    {Spoofchk: true},
		"no":  {Spoofchk: true},
		"yes": {Trust: true},
		"1":   {Trust: true},
		"ON":  {Trust: true},
	} {
		t.Run(value, func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddPF(igb())
				options := []string{"netdevice=ens1f0"}
				if value != "" {
					options = append(options, "privileged="+value)
				}
				m.mustCreate("n", options...)
				m.mustRun("a", "n")
				states := m.vfStates("ens1f0")
				if got := (hw.VFState{Spoofchk: states[0].Spoofchk, Trust: states[0].Trust}); got != want {
					t.Errorf("vf 0 is %+v, want %+v", got, want)
				}
				m.end("a")
			})
		})
	}
}

// TestDirtyContainer: what a container changes on its device is restored.
func TestDirtyContainer(t *testing.T) {
	story(t, func(m *machine) {
		pf := igb()
		pf.Up, pf.VFs = true, 2
		m.kernel.AddPF(pf)
		m.settled()
		m.mustCreate("n", "netdevice=ens1f0", "privileged=yes")
		before := m.kernel.String()
		m.mustRun("a", "n")
		mtu, promisc, mac, alias := 9000, true, hw.MAC("02:66:66:66:66:66"), "mine now"
		err := m.kernel.InNS("a").SetLink("eth0", hw.Link{MTU: mtu, Promisc: promisc, MAC: mac, Alias: alias}, hw.LinkMTU, hw.LinkPromisc, hw.LinkMAC, hw.LinkAlias)
		m.must(err)
		m.end("a")
		m.wantHost(before)
	})
}

// TestDeadVF: a VF without carrier is bound again; one that stays without is quarantined, and another is attached.
func TestDeadVF(t *testing.T) {
	story(t, func(m *machine) {
		pf := igb()
		pf.DeadProbes = 1
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		if ns, _, _ := m.kernel.Netdev("0000:01:10.0"); ns != "a" {
			t.Errorf("vf 0 is in %q, want it in a", ns)
		}
		m.end("a")
	})
	story(t, func(m *machine) {
		pf := igb()
		pf.BadVFs = []int{0}
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		if ns, _, _ := m.kernel.Netdev("0000:01:10.2"); ns != "a" {
			t.Errorf("vf 1 is in %q, want it in a", ns)
		}
		m.end("a")
	})
}

// TestForeignVFs: VFs that the plugin did not create stay, and those in use by others are not touched.
func TestForeignVFs(t *testing.T) {
	story(t, func(m *machine) {
		pf := igb()
		pf.Up, pf.VFs = true, 3
		m.kernel.AddPF(pf)
		m.settled()
		_, l0, _ := m.kernel.Netdev("0000:01:10.0")
		if err := m.kernel.MoveToNS("vm", l0.Name, ""); err != nil {
			t.Fatal(err)
		}
		_, l1, _ := m.kernel.Netdev("0000:01:10.2")
		m.kernel.AddAddrs(l1.Name, "192.0.2.1/24")
		err := m.create("n", "netdevice=ens1f0", "numvfs=7")
		wantError(t, err, "option numvfs: 7 is not possible: ens1f0 (0000:01:00.0) has 3 vfs that the plugin did not make "+
			"and does not remove; leave the option out, or change their number on the host")
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		if ns, _, _ := m.kernel.Netdev("0000:01:10.4"); ns != "a" {
			t.Errorf("vf 2 is in %q, want it in a", ns)
		}
		_, _, err = m.run("b", "n")
		wantError(t, err, "ens1f0 (0000:01:00.0): all 3 vfs are in use: "+
			"vf 0 of ens1f0 (0000:01:10.0) is in another network namespace; "+
			"vf 1 of ens1f0 (0000:01:10.2) has address 192.0.2.1/24 in the host; "+
			"vf 2 of ens1f0 (0000:01:10.4) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n")
		m.end("a")
		m.mustRemove("n")
		if n := m.kernel.NumVFs("0000:01:00.0"); n != 3 {
			t.Errorf("%d vfs are left of the 3 from before", n)
		}
	})
}
