package conformance

import (
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

func testMove(t *testing.T, m machine) {
	index := m.pair(t)
	m.Add(t, "bridge", "ctbr", "")
	m.AltName(t, "ct0", "alt0")
	m.set(t, "ct0", hw.Link{Alias: "lent", MAC: hw.MAC("02:00:00:00:00:aa"), MTU: 1400, TxQLen: 77, Promisc: true, AllMulti: true,
		NoARP: true, NoMulticast: true, Segments: hw.Segments{GSOMaxSize: 50000, GROMaxSize: 50000}}, hw.LinkGSOMaxSize, hw.LinkGROMaxSize, hw.LinkAlias, hw.LinkMAC, hw.LinkMTU, hw.LinkTxQLen, hw.LinkPromisc, hw.LinkAllMulti,
		hw.LinkNoARP, hw.LinkNoMulticast)
	want := m.link(t, "ct0")
	done(t, "add an address", m.AddAddr(index, hw.Addr{CIDR: "192.0.2.1/24"}))
	done(t, "add a route", m.AddRoute(index, hw.Route{Dst: "198.51.100.0/24", Scope: 253}))
	m.set(t, "ct0", hw.Link{Master: m.link(t, "ctbr").Index}, hw.LinkMaster)
	done(t, "move to a namespace", m.MoveToNS("c1", "ct0", "eth0"))
	if l, ok := m.find(t, "ct0"); ok {
		t.Errorf("still in the host: %+v", l)
	}
	if rs, err := m.Routes(0); err != nil || len(rs) > 0 {
		t.Errorf("routes that stayed: %v (%v)", rs, err)
	}
	done(t, "move home", m.MoveHome("c1", "eth0", "ct0"))
	got := m.link(t, "ct0")
	want.Index, want.Up, want.Carrier, want.Peer = got.Index, false, false, got.Peer
	same(t, "a link that came home", got, want)
	if as := m.addrs(t, got.Index); len(as) > 0 {
		t.Errorf("a link that came home has addresses %v", as)
	}
}

func testMoveTaken(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.Add(t, "veth", "ct2", "ct3")
	done(t, "move to a namespace", m.MoveToNS("c1", "ct0", "ct2"))
	refused(t, "move another of that name", m.MoveToNS("c1", "ct2", ""), syscall.EEXIST)
	refused(t, "move home under a name that is taken", m.MoveHome("c1", "ct2", "ct3"), syscall.EEXIST)
	m.AltName(t, "ct1", "alt")
	refused(t, "move home under another's alternative name", m.MoveHome("c1", "ct3", "alt"), syscall.EEXIST)
	done(t, "move home under its own name", m.MoveHome("c1", "alt", "ct0"))
	m.AltName(t, "ct0", "eth7")
	done(t, "move one as eth7", m.MoveToNS("c1", "ct2", "eth7"))
	refused(t, "move one with the alternative name eth7", m.MoveToNS("c1", "ct0", ""), syscall.EEXIST)
	if _, ok := m.find(t, "ct0"); !ok {
		t.Error("what was refused is gone from the host")
	}
}

func testImmovable(t *testing.T, m machine) {
	m.Add(t, "bridge", "ctbr", "")
	refused(t, "move a bridge", m.MoveToNS("c1", "ctbr", ""), syscall.EINVAL)
	if fixed, known, err := m.NetNSImmutable(m.link(t, "ctbr").Index); known && !fixed || err != nil {
		t.Errorf("a bridge: immutable %v, known %v, %v", fixed, known, err)
	}
	if fixed, known, err := m.NetNSImmutable(m.pair(t)); known && fixed || err != nil {
		t.Errorf("a veth: immutable %v, known %v, %v", fixed, known, err)
	}
	_, _, err := m.NetNSImmutable(1 << 20)
	refused(t, "ask of none", err, syscall.ENODEV)
}

func testMacvlan(t *testing.T, m machine) {
	index := m.pair(t)
	m.Add(t, "macvlan", "ctmv", "ct0")
	if l := m.link(t, "ctmv"); l.Kind != "macvlan" || l.Peer != index {
		t.Errorf("macvlan on %d is %+v", index, l)
	}
	done(t, "move to a namespace", m.MoveToNS("c1", "ctmv", "eth0"))
	done(t, "move home", m.MoveHome("c1", "eth0", "ctmv"))
	if l := m.link(t, "ctmv"); l.Up {
		t.Errorf("came home up: %+v", l)
	}
}

func testEnd(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.Add(t, "veth", "ct2", "ct3")
	m.Add(t, "macvlan", "ctmv", "ct2")
	done(t, "move a veth end", m.MoveToNS("c1", "ct0", "eth0"))
	done(t, "move a macvlan", m.MoveToNS("c1", "ctmv", "eth1"))
	m.EndNS("c1")
	soon(t, "the end of the peer that stayed", func() bool {
		_, ok := m.find(t, "ct1")
		return !ok
	})
	if _, ok := m.find(t, "ctmv"); ok {
		t.Error("the macvlan came home")
	}
	m.link(t, "ct2")
}

func testChildrenElsewhere(t *testing.T, m machine) {
	index := m.pair(t)
	other := m.link(t, "ct1").Index
	elsewhere := func(index int) []hw.ForeignLink {
		t.Helper()
		children, err := m.ChildrenElsewhere(index)
		done(t, "look for children", err)
		return children
	}
	m.Add(t, "macvlan", "ctmv", "ct0")
	if got := elsewhere(index); len(got) > 0 {
		t.Errorf("a child in the host is elsewhere: %+v", got)
	}
	done(t, "move a child", m.MoveToNS("c1", "ctmv", "eth0"))
	m.Add(t, "veth", "ct2", "ct3")
	done(t, "move one end of a pair", m.MoveToNS("c1", "ct2", "eth1"))
	got := elsewhere(index)
	if len(got) != 1 || got[0].Name != "eth0" || got[0].Kind != hw.Macvlan {
		t.Fatalf("children elsewhere: %+v", got)
	}
	if others := append(elsewhere(other), elsewhere(m.link(t, "ct3").Index)...); len(others) > 0 {
		t.Errorf("children of another: %+v", others)
	}
	done(t, "remove it", m.RemoveElsewhere(got[0]))
	refused(t, "remove it again", m.RemoveElsewhere(got[0]), syscall.ENODEV)
	if got := elsewhere(index); len(got) > 0 {
		t.Errorf("it is still there: %+v", got)
	}
	m.set(t, "ct0", hw.Link{}, hw.LinkXDPSKB, hw.LinkXDPDriver) // there is none
}
