package conformance

import (
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// bond makes a bond and four veth ends for it, of which ct0 and ct2 are to be ports and the others are up.
func (m machine) bond(t *testing.T, mode string, mac hw.MAC) hw.Link {
	t.Helper()
	m.Add(t, "veth", "ct0", "ct1")
	m.Add(t, "veth", "ct2", "ct3")
	m.set(t, "ct1", hw.Link{Up: true}, hw.LinkUp)
	m.set(t, "ct3", hw.Link{Up: true}, hw.LinkUp)
	return m.make(t, hw.NewLink{Name: "ctbo", Kind: hw.Bond, Mode: mode, MAC: mac})
}

func testNewPorts(t *testing.T, m machine) {
	bond := m.bond(t, "active-backup", "")
	if bond.Kind != hw.Bond || bond.MTU != 1500 || bond.Up || bond.Carrier {
		t.Errorf("a new bond is %+v", bond)
	}
	m.set(t, "ct0", hw.Link{MTU: 1400}, hw.LinkMTU)
	was0, was2 := m.link(t, "ct0"), m.link(t, "ct2")
	m.set(t, "ctbo", hw.Link{Up: true}, hw.LinkUp)
	m.set(t, "ct0", hw.Link{Master: bond.Index}, hw.LinkMaster)
	m.set(t, "ct2", hw.Link{Master: bond.Index}, hw.LinkMaster)
	for _, name := range []string{"ctbo", "ct0", "ct2"} {
		if l := m.link(t, name); l.MAC != was0.MAC || l.MTU != 1500 || !l.Up {
			t.Errorf("with ports, %s is %+v; want mac %s and mtu 1500, and up", name, l, was0.MAC)
		}
	}
	soon(t, "carrier", func() bool { return m.link(t, "ctbo").Carrier })
	m.set(t, "ct1", hw.Link{Up: false}, hw.LinkUp)
	soon(t, "one port without carrier", func() bool { return !m.link(t, "ct0").Carrier })
	soon(t, "carrier by the other", func() bool { return m.link(t, "ctbo").Carrier })
	m.set(t, "ct3", hw.Link{Up: false}, hw.LinkUp)
	soon(t, "no carrier without any", func() bool { return !m.link(t, "ctbo").Carrier })
	m.set(t, "ctbo", hw.Link{MTU: 1300, MAC: hw.MAC("02:00:00:00:00:aa")}, hw.LinkMTU, hw.LinkMAC)
	for _, name := range []string{"ct0", "ct2"} {
		if l := m.link(t, name); l.MTU != 1300 || l.MAC != "02:00:00:00:00:aa" {
			t.Errorf("%s does not follow its bond: %+v", name, l)
		}
	}
	m.set(t, "ct0", hw.Link{Master: 0}, hw.LinkMaster)
	m.set(t, "ct2", hw.Link{Master: 0}, hw.LinkMaster)
	same(t, "a port that was released", m.link(t, "ct0"), was0)
	same(t, "the other port", m.link(t, "ct2"), was2)
	if mac := m.link(t, "ctbo").MAC; mac == was0.MAC || mac == "02:00:00:00:00:aa" {
		t.Errorf("without ports it has %s still", mac)
	}
}

func testNewBondMAC(t *testing.T, m machine) {
	bond := m.bond(t, "active-backup", "02:00:00:00:00:bb")
	m.set(t, "ct0", hw.Link{Master: bond.Index}, hw.LinkMaster)
	if a, b := m.link(t, "ctbo").MAC, m.link(t, "ct0").MAC; a != "02:00:00:00:00:bb" || b != a {
		t.Errorf("the bond has %s, its port %s", a, b)
	}
}

func testNewPortsRefused(t *testing.T, m machine) {
	bond := m.bond(t, "active-backup", "")
	refused(t, "a port that is up", m.SetLink(m.link(t, "ct1").Index, hw.LinkMaster, hw.Link{Master: bond.Index}), syscall.EPERM)
	err := m.CreateLink(hw.NewLink{Name: "ctbo", Kind: hw.Bond})
	refused(t, "a second bond of that name", err, syscall.EEXIST)
	refused(t, "move a bond", m.MoveToNS("c1", "ctbo", ""), syscall.EINVAL)
}

func testNewBondRemoved(t *testing.T, m machine) {
	bond := m.bond(t, "active-backup", "02:00:00:00:00:bb")
	was := m.link(t, "ct0")
	m.set(t, "ct0", hw.Link{Master: bond.Index}, hw.LinkMaster)
	m.child(t, "ctmv", "passthru", bond.Index)
	done(t, "move the child to a namespace", m.MoveToNS("c1", "ctmv", "eth0"))
	done(t, "remove the bond", m.RemoveLink(bond.Index))
	same(t, "its port afterwards", m.link(t, "ct0"), was)
	if err := m.MoveHome("c1", "eth0", "ctmv"); err == nil {
		t.Error("the child outlived the bond")
	}
}

func testNewBondModes(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.set(t, "ct1", hw.Link{Up: true}, hw.LinkUp)
	for _, mode := range []string{"active-backup", "balance-xor", "802.3ad"} {
		bond := m.make(t, hw.NewLink{Name: "ctbo", Kind: hw.Bond, Mode: mode})
		m.set(t, "ctbo", hw.Link{Up: true}, hw.LinkUp)
		m.set(t, "ct0", hw.Link{Master: bond.Index}, hw.LinkMaster)
		soon(t, "carrier of "+mode, func() bool { return m.link(t, "ctbo").Carrier })
		done(t, "remove it", m.RemoveLink(bond.Index))
	}
}

func testNewOnBond(t *testing.T, m machine) {
	bond := m.bond(t, "active-backup", "")
	m.set(t, "ct0", hw.Link{Master: bond.Index}, hw.LinkMaster)
	m.set(t, "ct2", hw.Link{Master: bond.Index}, hw.LinkMaster)
	m.set(t, "ctbo", hw.Link{Up: true}, hw.LinkUp)
	mac := m.link(t, "ctbo").MAC
	m.child(t, "ctmv", "passthru", bond.Index)
	m.set(t, "ctmv", hw.Link{Up: true}, hw.LinkUp)
	soon(t, "carrier of the child", func() bool { return m.link(t, "ctmv").Carrier })
	m.set(t, "ctmv", hw.Link{MAC: hw.MAC("02:00:00:00:00:aa")}, hw.LinkMAC)
	for _, name := range []string{"ctbo", "ct0", "ct2"} {
		if l := m.link(t, name); l.MAC != "02:00:00:00:00:aa" {
			t.Errorf("%s has mac %s", name, l.MAC)
		}
	}
	done(t, "remove the child", m.RemoveLink(m.link(t, "ctmv").Index))
	for _, name := range []string{"ctbo", "ct0", "ct2"} {
		if l := m.link(t, name); l.MAC != mac {
			t.Errorf("afterwards %s has mac %s, not %s", name, l.MAC, mac)
		}
	}
	if !m.link(t, "ctbo").Up {
		t.Error("the bond went down")
	}
}
