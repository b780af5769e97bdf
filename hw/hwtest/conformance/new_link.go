package conformance

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// NewLinks tests CreateLink and RemoveLink of an hw.Kernel for the kinds of link in kinds, those whose modules the kernel
// has. open returns the kernel of one test.
func NewLinks(t *testing.T, kinds []string, open func(t *testing.T) (hw.Kernel, Env)) {
	tests := []struct {
		name  string
		kinds []string // which it creates
		run   func(*testing.T, machine)
	}{
		{"a macvlan as it is made", []string{hw.Macvlan}, testNewMacvlan},
		{"links that cannot be made", []string{hw.Macvlan}, testNewRefused},
		{"links that are removed", []string{hw.Macvlan}, testNewRemoved},
		{"a child and its device's carrier and mtu", []string{hw.Macvlan}, testNewFollows},
		{"a macvlan in mode passthru is the only one", []string{hw.Macvlan}, testNewPassthruAlone},
		{"a macvlan in mode passthru and its device have one mac", []string{hw.Macvlan}, testNewPassthruMAC},
		{"a child ends with its device", []string{hw.Macvlan}, testNewEnds},
		{"an ipvlan as it is made", []string{hw.IPVlan}, testNewIPVlan},
		{"macvlan and ipvlan on one device", []string{hw.Macvlan, hw.IPVlan}, testNewMixed},
		{"a vlan device as it is made", []string{hw.VLANDevice}, testNewVLAN},
		{"a vlan device and its device's state, mtu and mac", []string{hw.VLANDevice}, testNewVLANFollows},
		{"children of a vlan device", []string{hw.VLANDevice, hw.Macvlan, hw.IPVlan}, testNewOnVLAN},
		{"ports of a bond", []string{hw.Bond}, testNewPorts},
		{"a bond keeps the mac that it was given", []string{hw.Bond}, testNewBondMAC},
		{"ports that a bond refuses", []string{hw.Bond}, testNewPortsRefused},
		{"a bond that is removed", []string{hw.Bond, hw.Macvlan}, testNewBondRemoved},
		{"a bond of each mode has carrier without a partner", []string{hw.Bond}, testNewBondModes},
		{"a macvlan in mode passthru on a bond", []string{hw.Bond, hw.Macvlan}, testNewOnBond},
	}
	for _, r := range tests {
		if slices.ContainsFunc(r.kinds, func(k string) bool { return !slices.Contains(kinds, k) }) {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			k, env := open(t)
			r.run(t, machine{k, env})
		})
	}
}

// make creates a link; the test ends if that fails.
func (m machine) make(t *testing.T, l hw.NewLink) hw.Link {
	t.Helper()
	if err := m.CreateLink(l); err != nil {
		t.Fatalf("make %+v: %v", l, err)
	}
	return m.link(t, l.Name)
}

// child makes a macvlan.
func (m machine) child(t *testing.T, name, mode string, parent int) hw.Link {
	t.Helper()
	return m.make(t, hw.NewLink{Name: name, Kind: hw.Macvlan, Mode: mode, Parent: parent})
}

func testNewMacvlan(t *testing.T, m machine) {
	index := m.pair(t)
	m.set(t, "ct0", hw.Link{MTU: 1400}, hw.LinkMTU)
	got := m.make(t, hw.NewLink{Name: "ctmv", Kind: hw.Macvlan, Mode: "bridge", Parent: index, MTU: 1300,
		MAC: "02:00:00:00:00:aa"})
	want := hw.Link{Index: got.Index, Peer: index, MAC: "02:00:00:00:00:aa", Name: "ctmv", Kind: hw.Macvlan, Type: "ether",
		MTU: 1300, MaxMTU: 65535, TxQLen: 1000, Segments: segments, MaxGSO: 8 * 65535}
	same(t, "a new macvlan", got, want)
	macs := map[hw.MAC]bool{m.link(t, "ct0").MAC: true}
	for _, mode := range []string{"bridge", "private", "vepa"} {
		l := m.child(t, "ct"+mode, mode, index)
		if l.MTU != 1400 || macs[l.MAC] {
			t.Errorf("one of mode %s has mtu %d and mac %s", mode, l.MTU, l.MAC)
		}
		macs[l.MAC] = true
	}
	m.set(t, "ctmv", hw.Link{Up: true}, hw.LinkUp)
	for i, mac := range []hw.MAC{got.MAC, m.link(t, "ct0").MAC} {
		twin := hw.NewLink{Name: fmt.Sprintf("cttwin%d", i), Kind: hw.Macvlan, Mode: "bridge", Parent: index, MAC: mac}
		err := m.SetLink(m.make(t, twin).Index, hw.LinkUp, hw.Link{Up: true})
		refused(t, "set up with another's mac", err, syscall.EADDRINUSE)
		refused(t, "take another's mac", m.SetLink(m.link(t, "ctvepa").Index, hw.LinkMAC, hw.Link{MAC: mac}), syscall.EADDRINUSE)
	}
}

func testNewRefused(t *testing.T, m machine) {
	index := m.pair(t)
	m.Add(t, "bridge", "ctbr", "")
	br, lo := m.link(t, "ctbr").Index, m.link(t, "lo").Index
	try := func(l hw.NewLink) error {
		l.Kind, l.Mode = hw.Macvlan, "bridge"
		return m.CreateLink(l)
	}
	refused(t, "under a name that is taken", try(hw.NewLink{Name: "ct1", Parent: index}), syscall.EEXIST)
	refused(t, "under a name of 16 letters", try(hw.NewLink{Name: "ct0123456789abcd", Parent: index}), hw.ErrInvalid)
	refused(t, "on nothing", try(hw.NewLink{Name: "ctmv"}), hw.ErrInvalid)
	refused(t, "on what is not there", try(hw.NewLink{Name: "ctmv", Parent: 987654}), hw.ErrNotFound)
	refused(t, "on the loopback link", try(hw.NewLink{Name: "ctmv", Parent: lo}), hw.ErrInvalid)
	refused(t, "with an mtu above its device's", try(hw.NewLink{Name: "ctmv", Parent: index, MTU: 9000}), hw.ErrInvalid)
	err := m.CreateLink(hw.NewLink{Name: "ctmv", Kind: hw.Macvlan, Mode: "l2", Parent: index})
	refused(t, "in another kind's mode", err, hw.ErrInvalid)
	err = m.CreateLink(hw.NewLink{Name: "ctmv", Kind: "veth"})
	refused(t, "of a kind that is not for lending", err, hw.ErrUnsupported)
	m.set(t, "ct0", hw.Link{Master: br}, hw.LinkMaster)
	refused(t, "on a port of a bridge", try(hw.NewLink{Name: "ctmv", Parent: index}), hw.ErrBusy)
	if l, ok := m.find(t, "ctmv"); ok {
		t.Errorf("there is %+v", l)
	}
}

func testNewRemoved(t *testing.T, m machine) {
	l := m.child(t, "ctmv", "bridge", m.pair(t))
	done(t, "remove it", m.RemoveLink(l.Index))
	if _, ok := m.find(t, "ctmv"); ok {
		t.Error("it is still there")
	}
	refused(t, "remove it again", m.RemoveLink(l.Index), hw.ErrNotFound, syscall.ENODEV)
	refused(t, "remove nothing", m.RemoveLink(0), hw.ErrNotFound, syscall.ENODEV)
	refused(t, "remove the loopback link", m.RemoveLink(m.link(t, "lo").Index), hw.ErrUnsupported)
}

func testNewFollows(t *testing.T, m machine) {
	m.child(t, "ctmv", "bridge", m.pair(t))
	m.set(t, "ctmv", hw.Link{Up: true}, hw.LinkUp)
	soon(t, "carrier of the child", func() bool { return m.link(t, "ctmv").Carrier })
	m.set(t, "ct1", hw.Link{Up: false}, hw.LinkUp)
	soon(t, "no carrier of the child", func() bool { return !m.link(t, "ctmv").Carrier })
	m.set(t, "ct0", hw.Link{MTU: 1400}, hw.LinkMTU)
	if l := m.link(t, "ctmv"); l.MTU != 1400 {
		t.Errorf("mtu is %d under a device with 1400", l.MTU)
	}
	refused(t, "an mtu above the device's", m.SetLink(m.link(t, "ctmv").Index, hw.LinkMTU, hw.Link{MTU: 1500}), hw.ErrInvalid)
}

func testNewPassthruAlone(t *testing.T, m machine) {
	index := m.pair(t)
	one := hw.NewLink{Name: "ctmv", Kind: hw.Macvlan, Mode: "bridge", Parent: index}
	only := hw.NewLink{Name: "ctpt", Kind: hw.Macvlan, Mode: "passthru", Parent: index}
	l := m.make(t, one)
	err := m.CreateLink(only)
	refused(t, "beside another", err, hw.ErrInvalid)
	done(t, "remove the other", m.RemoveLink(l.Index))
	m.make(t, only)
	err = m.CreateLink(one)
	refused(t, "another beside it", err, hw.ErrInvalid)
	done(t, "move it to a namespace", m.MoveToNS("c1", "ctpt", "eth0"))
	err = m.CreateLink(one)
	refused(t, "another while it is elsewhere", err, hw.ErrInvalid)
	done(t, "move it home", m.MoveHome("c1", "eth0", "ctpt"))
	done(t, "remove it", m.RemoveLink(m.link(t, "ctpt").Index))
	m.make(t, one)
}

func testNewPassthruMAC(t *testing.T, m machine) {
	index := m.pair(t)
	was := m.link(t, "ct0")
	l := m.make(t, hw.NewLink{Name: "ctpt", Kind: hw.Macvlan, Mode: "passthru", Parent: index, MAC: "02:00:00:00:00:aa"})
	if l.MAC != was.MAC || m.link(t, "ct0").MAC != was.MAC {
		t.Errorf("made with mac %s on one with %s", l.MAC, m.link(t, "ct0").MAC)
	}
	both := func(what string, want hw.MAC) {
		t.Helper()
		if a, b := m.link(t, "ct0").MAC, m.link(t, "ctpt").MAC; a != want || b != want {
			t.Errorf("%s: the macs are %s and %s, want %s", what, a, b, want)
		}
	}
	m.set(t, "ctpt", hw.Link{MAC: hw.MAC("02:00:00:00:00:bb")}, hw.LinkMAC)
	both("set on the child", "02:00:00:00:00:bb")
	m.set(t, "ctpt", hw.Link{Up: true, MAC: hw.MAC("02:00:00:00:00:cc")}, hw.LinkUp, hw.LinkMAC)
	both("set on the child while it is up", "02:00:00:00:00:cc")
	done(t, "move it to a namespace", m.MoveToNS("c1", "ctpt", "eth0"))
	m.EndNS("c1")
	soon(t, "the device's own mac again", func() bool { return m.link(t, "ct0").MAC == was.MAC })
	was.Up = true
	now := m.link(t, "ct0")
	now.Carrier = was.Carrier
	same(t, "the device afterwards", now, was)
	m.make(t, hw.NewLink{Name: "ctpt", Kind: hw.Macvlan, Mode: "passthru", Parent: index})
	m.set(t, "ct0", hw.Link{MAC: hw.MAC("02:00:00:00:00:dd")}, hw.LinkMAC)
	both("set on the device", "02:00:00:00:00:dd")
	done(t, "remove it", m.RemoveLink(m.link(t, "ctpt").Index))
	if mac := m.link(t, "ct0").MAC; mac != "02:00:00:00:00:dd" {
		t.Errorf("without the child the device has %s", mac)
	}
}

func testNewEnds(t *testing.T, m machine) {
	index := m.pair(t)
	m.child(t, "ctmv", "bridge", index)
	m.child(t, "ctm2", "bridge", index)
	done(t, "move one to a namespace", m.MoveToNS("c1", "ctmv", "eth0"))
	done(t, "remove the device", m.RemoveLink(index))
	if _, ok := m.find(t, "ctm2"); ok {
		t.Error("the child in the host is still there")
	}
	if err := m.MoveHome("c1", "eth0", "ctmv"); err == nil {
		t.Error("the child in the namespace came home")
	}
}

func testNewIPVlan(t *testing.T, m machine) {
	index := m.pair(t)
	for _, mode := range []string{"l2", "l3", "l3s"} {
		l := m.make(t, hw.NewLink{Name: "ct" + mode, Kind: hw.IPVlan, Mode: mode, Parent: index})
		if l.MAC != m.link(t, "ct0").MAC || l.Peer != index || l.Kind != hw.IPVlan || l.MTU != 1500 {
			t.Errorf("one of mode %s is %+v", mode, l)
		}
		refused(t, "set its mac", m.SetLink(l.Index, hw.LinkMAC, hw.Link{MAC: hw.MAC("02:00:00:00:00:aa")}), hw.ErrUnsupported)
	}
	for _, flag := range hw.IPVlanFlags() {
		m.make(t, hw.NewLink{Name: "ct" + flag, Kind: hw.IPVlan, Mode: "l2", Parent: index, Flag: flag})
	}
	unknown := m.CreateLink(hw.NewLink{Name: "ctflag", Kind: hw.IPVlan, Mode: "l2", Parent: index, Flag: "passthru"})
	refused(t, "with a flag that it does not have", unknown, hw.ErrInvalid)
	m.set(t, "ct0", hw.Link{MAC: hw.MAC("02:00:00:00:00:bb")}, hw.LinkMAC)
	if mac := m.link(t, "ctl2").MAC; mac != "02:00:00:00:00:bb" {
		t.Errorf("it has %s on a device that was given another", mac)
	}
	done(t, "move one to a namespace", m.MoveToNS("c1", "ctl2", "eth0"))
	done(t, "move it home", m.MoveHome("c1", "eth0", "ctl2"))
	done(t, "remove it", m.RemoveLink(m.link(t, "ctl2").Index))
}

func testNewMixed(t *testing.T, m machine) {
	index := m.pair(t)
	mv := hw.NewLink{Name: "ctmv", Kind: hw.Macvlan, Mode: "bridge", Parent: index}
	iv := hw.NewLink{Name: "ctiv", Kind: hw.IPVlan, Mode: "l2", Parent: index}
	for _, pair := range [][2]hw.NewLink{{mv, iv}, {iv, mv}} {
		l := m.make(t, pair[0])
		err := m.CreateLink(pair[1])
		refused(t, pair[1].Kind+" beside "+pair[0].Kind, err, hw.ErrBusy, syscall.EBUSY)
		done(t, "remove it", m.RemoveLink(l.Index))
	}
}

func testNewVLAN(t *testing.T, m machine) {
	index := m.pair(t)
	m.set(t, "ct0", hw.Link{MTU: 1400}, hw.LinkMTU)
	vlan := func(name string, parent, id int) hw.NewLink {
		return hw.NewLink{Name: name, Kind: hw.VLANDevice, Parent: parent, VLAN: id}
	}
	got := m.make(t, vlan("ct0.100", index, 100))
	want := hw.Link{Index: got.Index, Peer: index, MAC: m.link(t, "ct0").MAC, Name: "ct0.100", Kind: hw.VLANDevice, Type: "ether", MTU: 1400,
		MaxMTU: 65535, TxQLen: 1000, VLAN: 100, Segments: segments, MaxGSO: 8 * 65535}
	same(t, "a new vlan device", got, want)
	refused(t, "the same vlan again", m.CreateLink(vlan("ct100", index, 100)), syscall.EEXIST)
	refused(t, "on nothing", m.CreateLink(vlan("ctv", 0, 100)), hw.ErrInvalid)
	refused(t, "on what is not there", m.CreateLink(vlan("ctv", 987654, 100)), hw.ErrNotFound)
	refused(t, "on the loopback link", m.CreateLink(vlan("ctv", m.link(t, "lo").Index, 100)), hw.ErrUnsupported)
	refused(t, "vlan 4095", m.CreateLink(vlan("ctv", index, 4095)), hw.ErrInvalid)
	m.make(t, vlan("ct0.4094", index, 4094))
	done(t, "move one to a namespace", m.MoveToNS("c1", "ct0.100", "eth0"))
	refused(t, "while another namespace has it", m.CreateLink(vlan("ct100", index, 100)), syscall.EEXIST)
	m.EndNS("c1")
	soon(t, "the vlan is free", func() bool { return m.CreateLink(vlan("ct100", index, 100)) == nil })
	done(t, "remove it", m.RemoveLink(m.link(t, "ct100").Index))
	done(t, "remove the device", m.RemoveLink(index))
	if _, ok := m.find(t, "ct0.4094"); ok {
		t.Error("a vlan device outlives its device")
	}
}

func testNewVLANFollows(t *testing.T, m machine) {
	index := m.pair(t)
	v := m.make(t, hw.NewLink{Name: "ct0.100", Kind: hw.VLANDevice, Parent: index, VLAN: 100})
	m.set(t, "ct0.100", hw.Link{Up: true}, hw.LinkUp)
	m.set(t, "ct0", hw.Link{Up: false}, hw.LinkUp)
	if m.link(t, "ct0.100").Up {
		t.Error("it is up on a device that is down")
	}
	refused(t, "set up on a device that is down", m.SetLink(v.Index, hw.LinkUp, hw.Link{Up: true}), syscall.ENETDOWN)
	m.set(t, "ct0", hw.Link{Up: true}, hw.LinkUp)
	if !m.link(t, "ct0.100").Up {
		t.Error("it is down on a device that is up again")
	}
	m.set(t, "ct0", hw.Link{MTU: 1400}, hw.LinkMTU)
	if l := m.link(t, "ct0.100"); l.MTU != 1400 {
		t.Errorf("mtu %d on a device that has 1400", l.MTU)
	}
	refused(t, "an mtu above its device's", m.SetLink(v.Index, hw.LinkMTU, hw.Link{MTU: 1500}), syscall.ERANGE)
	m.set(t, "ct0", hw.Link{MTU: 1500}, hw.LinkMTU)
	if l := m.link(t, "ct0.100"); l.MTU != 1400 {
		t.Errorf("mtu %d on a device that was raised to 1500", l.MTU)
	}
	m.set(t, "ct0.100", hw.Link{MTU: 1500}, hw.LinkMTU)
	m.set(t, "ct0", hw.Link{MAC: "02:00:00:00:00:bb"}, hw.LinkMAC)
	if mac := m.link(t, "ct0.100").MAC; mac != "02:00:00:00:00:bb" {
		t.Errorf("it has %s on a device that was given another mac", mac)
	}
}

func testNewOnVLAN(t *testing.T, m machine) {
	index := m.pair(t)
	v := m.make(t, hw.NewLink{Name: "ct0.100", Kind: hw.VLANDevice, Parent: index, VLAN: 100})
	mv := m.make(t, hw.NewLink{Name: "ctmv", Kind: hw.Macvlan, Mode: "bridge", Parent: v.Index})
	if mv.Peer != v.Index {
		t.Errorf("the macvlan is on link %d, not on the vlan device", mv.Peer)
	}
	m.make(t, hw.NewLink{Name: "ctiv", Kind: hw.IPVlan, Mode: "l2", Parent: index}) // another device, another kind
	done(t, "remove the vlan device", m.RemoveLink(v.Index))
	if _, ok := m.find(t, "ctmv"); ok {
		t.Error("the macvlan outlives the vlan device")
	}
}
