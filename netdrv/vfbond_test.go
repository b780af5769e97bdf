package netdrv_test

import (
	"strings"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// ports returns the names of a bond's ports in the host.
func (m *machine) ports(bond hw.Link) (names []string) {
	m.t.Helper()
	links, err := m.kernel.Links()
	m.must(err)
	for _, l := range links {
		if l.Master == bond.Index {
			names = append(names, l.Name)
		}
	}
	return names
}

// bondBelow returns the only bond in the host.
func (m *machine) bondBelow() hw.Link {
	m.t.Helper()
	links, err := m.kernel.Links()
	m.must(err)
	for _, l := range links {
		if l.Kind == hw.Bond {
			return l
		}
	}
	m.t.Fatalf("no bond in\n%s", m.kernel)
	return hw.Link{}
}

// TestBondOfVFs: the container gets the child of a bond of one VF of each PF, all with one MAC. Bond and child are removed afterwards. The VFs
// are not used otherwise while it runs.
func TestBondOfVFs(t *testing.T) {
	for name, ends := range map[string]func(m *machine){
		"stopped": func(m *machine) { m.end("a") },
		"killed with the engine": func(m *machine) {
			m.kernel.KillNS("a", 0)
			m.delete("a")
		},
		"forgotten by the engine": func(m *machine) {
			m.kernel.KillNS("a", 0)
			delete(m.where, "a")
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				pool(m)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens1f0,ens2f0", "bond=active-backup", "vlan=100", "mtu=1400")
				source, mac := m.mustRun("a", "n")
				m.settled()
				bond := m.bondBelow()
				if got := strings.Join(m.ports(bond), " "); got != "ens1f0v0 ens2f0v0" || !bond.Carrier || bond.MTU != 1400 {
					t.Errorf("ports %s of %+v", got, bond)
				}
				for _, pf := range []string{"ens1f0", "ens2f0"} {
					states := m.vfStates(pf)
					if states[0].MAC != hw.MAC(mac) || states[0].VLAN.ID != 100 {
						t.Errorf("%s: vf 0 has %+v; want mac %s and vlan 100", pf, states[0], mac)
					}
				}
				if string(bond.MAC) != mac || !strings.HasPrefix(source, "pt") {
					t.Errorf("bond %+v, container %s %s", bond, source, mac)
				}
				ends(m)
				if name == "forgotten by the engine" {
					m.restart()
				}
				m.mustRemove("n")
				m.settled()
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestBondOfVFsLives: a user's MAC is that of all ports; two containers have two bonds; a bond runs on without the port of a PF that is gone,
// and new bonds are created without it; restarts and reboots.
func TestBondOfVFsLives(t *testing.T) {
	story(t, func(m *machine) {
		pool(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0,ens3f0", "bond=802.3ad")
		_, mac := m.mustRun("a", "n", "02:00:00:00:00:42")
		if got := m.bondBelow(); got.MAC != "02:00:00:00:00:42" || mac != "02:00:00:00:00:42" || len(m.ports(got)) != 3 {
			t.Errorf("bond %+v of %v", got, m.ports(got))
		}
		wantError(t, m.runWith("x", "n", map[string]any{"mac": "02:00:00:00:00:42"}),
			"mac address 02:00:00:00:00:42: vf 0 of ens1f0 (0000:01:10.0) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n")
		m.restart()
		m.runAll("n", nil, "b")
		wantError(t, m.runWith("c", "n", nil), "ens1f0 (0000:01:00.0): all 2 vfs are in use: "+
			"vf 0 of ens1f0 (0000:01:10.0) is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; "+
			"vf 1 of ens1f0 (0000:01:10.2) is held by endpoint b-endpoint-0 ("+ipOf("b")+") of network n")
		m.kernel.RemovePF("0000:03:00.0")
		m.end("b")
		m.runAll("n", nil, "c")
		m.settled()
		if got := m.bondBelow(); len(m.ports(got)) != 2 {
			t.Errorf("the bond of a has %v", m.ports(got))
		}
		m.end("a")
		m.end("c")
		m.mustRemove("n")
		m.settled()
		m.wantKeys()
	})
	story(t, func(m *machine) {
		pool(m)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0", "bond=balance-xor")
		m.mustRun("a", "n")
		m.reboot(pool)
		m.settled()
		m.mustRun("b", "n")
		m.end("b")
		m.mustRemove("n")
		m.settled()
		m.wantKeys()
	})
}

// TestBondOfVFsErrors: what cannot be bonded is refused, and a faulty VF does not quarantine the other.
func TestBondOfVFsErrors(t *testing.T) {
	story(t, func(m *machine) {
		pool(m)
		m.kernel.NoKinds = []string{hw.Bond}
		before := m.kernel.String()
		wantError(t, m.create("n", "netdevice=ens1f0", "bond=802.3ad"),
			"option bond: netdevice=ens1f0 is one pf (ens1f0 (0000:01:00.0)); a bond takes one vf of each of two or more")
		wantError(t, m.create("n", "netdevice=ens1f0,ens2f0", "bond=lacp"),
			`option bond: "lacp" is not allowed; allowed: active-backup, 802.3ad or balance-xor`)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0", "bond=802.3ad")
		wantError(t, m.runWith("a", "n", nil),
			"make a bond (802.3ad): not supported by the driver (operation not supported); load its module: modprobe bonding")
		m.kernel.NoKinds = nil
		m.runAll("n", nil, "a")
		m.end("a")
		m.mustRemove("n")
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
	story(t, func(m *machine) {
		for i, name := range []string{"ens1f0", "ens2f0"} {
			pf := igb()
			pf.Name, pf.PCI, pf.MAC, pf.TotalVFs, pf.Up = name, "0000:0"+string(rune('1'+i))+":00.0", "", 3, true
			if i == 1 {
				pf.BadVFs = []int{0}
			}
			m.kernel.AddPF(pf)
		}
		m.settled()
		m.mustCreate("n", "netdevice=ens1f0,ens2f0", "bond=active-backup")
		m.runAll("n", nil, "a")
		if got := strings.Join(m.ports(m.bondBelow()), " "); got != "ens1f0v0 ens2f0v1" {
			t.Errorf("the bond has %s", got)
		}
		m.end("a")
	})
}
