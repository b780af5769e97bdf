package conformance

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
)

// segments are those of a new link.
var segments = hw.Segments{GSOMaxSize: 65536, GSOMaxSegs: 65535, GROMaxSize: 65536, GSOIPv4MaxSize: 65536, GROIPv4MaxSize: 65536}

func testListed(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	a, b := m.link(t, "ct0"), m.link(t, "ct1")
	if a.Peer != b.Index || b.Peer != a.Index || a.Index == b.Index {
		t.Errorf("ends are %d with peer %d and %d with peer %d", a.Index, a.Peer, b.Index, b.Peer)
	}
	if a.MAC == b.MAC || len(a.MAC) != len("02:00:00:00:00:01") {
		t.Errorf("MACs are %s and %s", a.MAC, b.MAC)
	}
	want := hw.Link{Index: a.Index, Peer: b.Index, MAC: a.MAC, Name: "ct0", Kind: "veth", Type: "ether", MTU: 1500,
		MaxMTU: 65535, TxQLen: 1000, Segments: segments, MaxGSO: 8 * 65535}
	same(t, "the new end", a, want)
	lo := m.link(t, "lo")
	if lo.Type != "loopback" || lo.Kind != "" {
		t.Errorf("loopback is %+v", lo)
	}
}

func testRead(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.AltName(t, "ct1", "alt1")
	m.set(t, "ct1", hw.Link{Alias: "mine", Up: true}, hw.LinkAlias, hw.LinkUp)
	want := m.link(t, "ct1")
	got, err := m.LinkAt(want.Index)
	done(t, "read it by its ifindex", err)
	same(t, "read by its ifindex", got, want)
	got, err = m.LinkNamed("ct1")
	done(t, "read it by its name", err)
	same(t, "read by its name", got, want)
	for _, name := range []string{"alt1", "ct2", "", "a-name-of-16-let"} {
		_, err := m.LinkNamed(name)
		refused(t, fmt.Sprintf("read one named %q", name), err, hw.ErrNotFound, syscall.ENODEV)
	}
	for _, index := range []int{0, -1, 987654} {
		_, err := m.LinkAt(index)
		refused(t, fmt.Sprintf("read the one at %d", index), err, hw.ErrNotFound, syscall.ENODEV)
	}
	done(t, "move it to a namespace", m.MoveToNS("c1", "ct1", "eth0"))
	_, err = m.LinkAt(want.Index)
	refused(t, "read one that is elsewhere", err, hw.ErrNotFound, syscall.ENODEV)
}

func testSetAll(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	want := m.link(t, "ct0")
	want.Name, want.Alias, want.MAC, want.MTU, want.TxQLen = "ct9", "lent: ä", "02:00:00:00:00:aa", 1400, 77
	want.Promisc, want.AllMulti, want.NoARP, want.NoMulticast, want.Up = true, true, true, true, true
	want.Segments = hw.Segments{GSOMaxSize: 150000, GSOMaxSegs: 100, GROMaxSize: 160000, GSOIPv4MaxSize: 70000, GROIPv4MaxSize: 80000}
	m.set(t, "ct0", want, hw.LinkName, hw.LinkAlias, hw.LinkMAC, hw.LinkMTU, hw.LinkTxQLen, hw.LinkPromisc, hw.LinkAllMulti,
		hw.LinkNoARP, hw.LinkNoMulticast, hw.LinkGSOMaxSize, hw.LinkGSOMaxSegs, hw.LinkGROMaxSize, hw.LinkGSOIPv4MaxSize, hw.LinkGROIPv4MaxSize, hw.LinkUp)
	same(t, "after everything has been set", m.link(t, "ct9"), want)
	m.set(t, "ct9", hw.Link{}, hw.LinkAlias, hw.LinkPromisc, hw.LinkAllMulti, hw.LinkNoARP, hw.LinkNoMulticast, hw.LinkUp)
	want.Alias, want.Promisc, want.AllMulti, want.NoARP, want.NoMulticast, want.Up = "", false, false, false, false, false
	same(t, "after some has been taken back", m.link(t, "ct9"), want)
}

func testSetOne(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	was := m.link(t, "ct0")
	other := hw.Link{Alias: "other", MTU: 10, TxQLen: 77, Promisc: true, Up: true}
	err := m.SetLink(was.Index, hw.LinkMTU, other)
	refused(t, "mtu 10", err, hw.ErrInvalid, syscall.EINVAL)
	if want := "invalid argument"; fmt.Sprint(err) != want {
		t.Errorf("error is %q, want %q", err, want)
	}
	same(t, "after a value was refused", m.link(t, "ct0"), was)
	done(t, "set the alias", m.SetLink(was.Index, hw.LinkAlias, other))
	was.Alias = "other"
	same(t, "only the attribute that was named is set", m.link(t, "ct0"), was)
}

// testSegments: a size that is not above 65536 is that of IPv4, too; one that is above what the driver can send is refused.
func testSegments(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	was := m.link(t, "ct0")
	for _, a := range []hw.LinkAttr{hw.LinkGSOMaxSize, hw.LinkGROMaxSize, hw.LinkGSOIPv4MaxSize, hw.LinkGROIPv4MaxSize} {
		const most = 8*65535 + 1
		err := m.SetLink(was.Index, a, hw.Link{Segments: hw.Segments{GSOMaxSize: most, GROMaxSize: most, GSOIPv4MaxSize: most, GROIPv4MaxSize: most}})
		refused(t, fmt.Sprintf("%s %d", a, most), err, hw.ErrInvalid, syscall.EINVAL)
	}
	same(t, "after sizes were refused", m.link(t, "ct0"), was)
	m.set(t, "ct0", hw.Link{Segments: hw.Segments{GSOMaxSize: 150000, GROMaxSize: 40000}}, hw.LinkGSOMaxSize, hw.LinkGROMaxSize)
	want := was
	want.Segments.GSOMaxSize, want.Segments.GROMaxSize, want.Segments.GROIPv4MaxSize = 150000, 40000, 40000
	same(t, "after one size of two was set", m.link(t, "ct0"), want)
}

func testCarrier(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.set(t, "ct0", hw.Link{Up: true}, hw.LinkUp)
	if l := m.link(t, "ct0"); !l.Up || l.Carrier {
		t.Errorf("with its peer down: %+v", l)
	}
	m.set(t, "ct1", hw.Link{Up: true}, hw.LinkUp)
	soon(t, "carrier on both ends", func() bool { return m.link(t, "ct0").Carrier && m.link(t, "ct1").Carrier })
	m.set(t, "ct1", hw.Link{Up: false}, hw.LinkUp)
	soon(t, "no carrier", func() bool { return !m.link(t, "ct0").Carrier })
	if l := m.link(t, "ct1"); l.Up || l.Carrier {
		t.Errorf("after it went down: %+v", l)
	}
}

func testRename(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.AltName(t, "ct1", "alt1")
	m.AltName(t, "ct0", "alt0")
	index := m.link(t, "ct0").Index
	rename := func(to string) error { return m.SetLink(index, hw.LinkName, hw.Link{Name: to}) }
	refused(t, "rename to another's name", rename("ct1"), syscall.EEXIST)
	refused(t, "rename to another's alternative name", rename("alt1"), syscall.EEXIST)
	refused(t, "rename to its own alternative name", rename("alt0"), syscall.EEXIST)
	refused(t, "rename to a name of 16 letters", rename("ct0123456789abcd"), hw.ErrInvalid)
	refused(t, "rename to a name with a slash", rename("ct/0"), hw.ErrInvalid)
	done(t, "rename to its own name", rename("ct0"))
	done(t, "drop the alternative name", m.RemoveAltName(index, "alt0"))
	done(t, "take it", rename("alt0"))
	if l := m.link(t, "alt0"); l.Index != index || len(l.AltNames) > 0 {
		t.Errorf("renamed to %+v", l)
	}
}

func testRenameUp(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.set(t, "ct0", hw.Link{Up: true}, hw.LinkUp)
	if err := m.SetLink(m.link(t, "ct0").Index, hw.LinkName, hw.Link{Name: "ct9"}); err != nil {
		refused(t, "rename while up", err, hw.ErrBusy, syscall.EBUSY)
		m.set(t, "ct0", hw.Link{Up: false, Name: "ct9"}, hw.LinkUp, hw.LinkName)
		return
	}
	if !m.link(t, "ct9").Up {
		t.Error("the link went down when it was renamed")
	}
}

func testAltNames(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.AltName(t, "ct0", "alt0")
	m.AltName(t, "ct0", "a longer name than those proper")
	if got := m.link(t, "ct0").AltNames; !slices.Equal(got, []string{"alt0", "a longer name than those proper"}) {
		t.Errorf("alternative names are %q", got)
	}
	drop := func(link, name string) error {
		return m.RemoveAltName(m.link(t, link).Index, name)
	}
	refused(t, "drop an alternative name that no link has", drop("ct0", "alt9"), hw.ErrNotFound)
	refused(t, "drop another's", drop("ct1", "alt0"), hw.ErrInvalid)
	refused(t, "drop a name proper", drop("ct0", "ct0"), hw.ErrInvalid)
	add := func(name string) error { return m.AddAltName(m.link(t, "ct0").Index, name) }
	for _, name := range []string{"ct1", "ct0", "alt0"} {
		refused(t, "add a name that is taken: "+name, add(name), syscall.EEXIST)
	}
	done(t, "drop one", drop("ct0", "alt0"))
	done(t, "add it again", add("alt0"))
	done(t, "and drop it", drop("ct0", "alt0"))
	if got := m.link(t, "ct0").AltNames; !slices.Equal(got, []string{"a longer name than those proper"}) {
		t.Errorf("alternative names are %q", got)
	}
}

func testRefused(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	was := m.link(t, "ct0")
	try := func(a hw.LinkAttr, want hw.Link) error { return m.SetLink(was.Index, a, want) }
	refused(t, "a multicast MAC", try(hw.LinkMAC, hw.Link{MAC: hw.MAC("01:00:5e:00:00:01")}), hw.ErrInvalid,
		syscall.EADDRNOTAVAIL)
	refused(t, "an all-zero MAC", try(hw.LinkMAC, hw.Link{MAC: hw.MAC("00:00:00:00:00:00")}), hw.ErrInvalid,
		syscall.EADDRNOTAVAIL)
	refused(t, "no MAC", try(hw.LinkMAC, hw.Link{MAC: hw.MAC("")}), hw.ErrInvalid)
	refused(t, "an MTU of 100000", try(hw.LinkMTU, hw.Link{MTU: 100000}), hw.ErrInvalid)
	refused(t, "an alias of 256 letters", try(hw.LinkAlias, hw.Link{Alias: strings.Repeat("x", 256)}), hw.ErrInvalid)
	same(t, "after all that", m.link(t, "ct0"), was)
}

func testMissing(t *testing.T, m machine) {
	for _, index := range []int{-1, 0, 987654} {
		refused(t, "change it", m.SetLink(index, hw.LinkUp, hw.Link{Up: true}), hw.ErrNotFound, syscall.ENODEV)
		refused(t, "change its VF", m.SetVF(index, 0, hw.VFTrust, hw.VFState{Trust: true}), hw.ErrNotFound, syscall.ENODEV)
		refused(t, "add an address", m.AddAddr(index, hw.Addr{CIDR: "192.0.2.1/24"}), hw.ErrNotFound, syscall.ENODEV)
		refused(t, "add a route", m.AddRoute(index, hw.Route{Dst: "198.51.100.0/24", Scope: 253}), hw.ErrNotFound,
			syscall.ENODEV)
	}
	_, err := m.VFs(987654)
	refused(t, "list VFs", err, hw.ErrNotFound, syscall.ENODEV)
	_, err = m.Addrs(987654)
	refused(t, "list addresses", err, hw.ErrNotFound, syscall.ENODEV)
	_, err = m.Entries(987654)
	refused(t, "list entries", err, hw.ErrNotFound, syscall.ENODEV)
	_, err = m.Routes(987654)
	refused(t, "list routes", err, hw.ErrNotFound, syscall.ENODEV)
	if on, err := m.Switchdev("0000:ff:1f.7"); on || err != nil {
		t.Errorf("switchdev mode of what is not there: %t, %v", on, err)
	}
	if reporters, err := m.HealthReporters("0000:ff:1f.7"); len(reporters) > 0 || err != nil {
		t.Errorf("health of what is not there: %v, %v", reporters, err)
	}
}

func testNoVFs(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	index := m.link(t, "ct0").Index
	if vfs, err := m.VFs(index); vfs != nil || err != nil {
		t.Errorf("VFs of a veth are %v, %v", vfs, err)
	}
	if counters, err := m.VFCounters(index); counters != nil || err != nil {
		t.Errorf("counters of the VFs of a veth are %v, %v", counters, err)
	}
	want := hw.VFState{MAC: "02:00:00:00:00:01", VLAN: hw.VLAN{ID: 5}, Spoofchk: true, Trust: true}
	for _, a := range []hw.VFAttr{hw.VFMAC, hw.VFVLAN, hw.VFSpoofchk, hw.VFTrust} {
		refused(t, "change a VF of a veth", m.SetVF(index, 0, a, want), hw.ErrUnsupported, syscall.EOPNOTSUPP)
	}
}

func testMaster(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.Add(t, "bridge", "ctbr", "")
	br := m.link(t, "ctbr").Index
	m.set(t, "ct0", hw.Link{Master: br}, hw.LinkMaster)
	if l := m.link(t, "ct0"); l.Master != br || l.Promisc {
		t.Errorf("as a port of %d it is %+v, but promisc was not set", br, l)
	}
	index := m.link(t, "ct0").Index
	refused(t, "a port of nothing", m.SetLink(index, hw.LinkMaster, hw.Link{Master: 987654}), hw.ErrInvalid)
	other := m.link(t, "ct1").Index
	refused(t, "a port of a veth", m.SetLink(index, hw.LinkMaster, hw.Link{Master: other}), hw.ErrUnsupported)
	m.set(t, "ct0", hw.Link{Master: 0}, hw.LinkMaster)
	if l := m.link(t, "ct0"); l.Master != 0 {
		t.Errorf("after leaving its bridge it is %+v", l)
	}
	m.set(t, "ct0", hw.Link{Master: 0}, hw.LinkMaster)
}

// testPortVLANs: a port has the default VLAN of its bridge, then those that it is given and no others; one that has left its bridge has none.
func testPortVLANs(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.Add(t, "bridge", "ctbr", "")
	index := m.link(t, "ct0").Index
	const filtering = "class/net/ctbr/bridge/vlan_filtering"
	err := m.WriteAttr(filtering, "1")
	if errors.Is(err, hw.ErrNotFound) { // a kernel without CONFIG_BRIDGE_VLAN_FILTERING, which the lab's have
		m.set(t, "ct0", hw.Link{Master: m.link(t, "ctbr").Index}, hw.LinkMaster)
		if got, err := m.PortVLANs(index); err != nil || len(got) > 0 {
			t.Errorf("without VLANs: %v, %v", got, err)
		}
		refused(t, "set VLANs", m.SetPortVLANs(index, hw.PortVLANs{5: {}}), hw.ErrUnsupported)
		return
	}
	done(t, "filter VLANs", err)
	none := func(when string) {
		t.Helper()
		_, err := m.PortVLANs(index)
		refused(t, "VLANs of no port, "+when, err, hw.ErrUnsupported)
		refused(t, "set VLANs of no port, "+when, m.SetPortVLANs(index, hw.PortVLANs{5: {}}), hw.ErrUnsupported)
	}
	none("before")
	m.set(t, "ct0", hw.Link{Master: m.link(t, "ctbr").Index}, hw.LinkMaster)
	native := hw.PortVLAN{PVID: true, Untagged: true}
	trunk := hw.PortVLANs{100: native}
	for vid := 2000; vid <= 4094; vid++ {
		trunk[vid] = hw.PortVLAN{}
	}
	for i, want := range []hw.PortVLANs{{1: native}, {100: native}, {100: native, 200: {}, 201: {}, 300: {Untagged: true}}, {200: native, 100: {}}, trunk, {7: {}}, {}} {
		if i > 0 {
			done(t, "set VLANs", m.SetPortVLANs(index, want))
			done(t, "set them again", m.SetPortVLANs(index, want))
		}
		got, err := m.PortVLANs(index)
		done(t, "read VLANs", err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d: VLANs (-want +got):\n%s", i, diff)
		}
	}
	for _, vid := range []int{0, -1, 4095, 70000} {
		refused(t, fmt.Sprintf("VLAN %d", vid), m.SetPortVLANs(index, hw.PortVLANs{vid: {}}), hw.ErrInvalid)
	}
	m.set(t, "ct0", hw.Link{Master: 0}, hw.LinkMaster)
	none("afterwards")
	m.set(t, "ct0", hw.Link{Master: m.link(t, "ctbr").Index}, hw.LinkMaster)
	got, err := m.PortVLANs(index)
	done(t, "read VLANs", err)
	if diff := cmp.Diff(hw.PortVLANs{1: native}, got); diff != "" {
		t.Errorf("as a port again (-want +got):\n%s", diff)
	}
}

func testAttr(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	done(t, "write mtu", m.WriteAttr("class/net/ct0/mtu", "1300"))
	done(t, "write ifalias", m.WriteAttr("class/net/ct0/ifalias", "x\n"))
	if l := m.link(t, "ct0"); l.MTU != 1300 || l.Alias != "x" {
		t.Errorf("after writing it is %+v", l)
	}
	done(t, "clear ifalias", m.WriteAttr("class/net/ct0/ifalias", ""))
	if l := m.link(t, "ct0"); l.Alias != "" {
		t.Errorf("alias is %q after an empty write", l.Alias)
	}
	refused(t, "write nonsense", m.WriteAttr("class/net/ct0/mtu", "many"), hw.ErrInvalid, syscall.EINVAL)
	refused(t, "write too little", m.WriteAttr("class/net/ct0/mtu", "10"), hw.ErrInvalid, syscall.EINVAL)
	refused(t, "write what is not there", m.WriteAttr("class/net/ct0/no_such", "1"), hw.ErrNotFound, syscall.ENOENT)
	refused(t, "write for a link that is not there", m.WriteAttr("class/net/ct5/mtu", "1"), hw.ErrNotFound, syscall.ENOENT)
	refused(t, "write what is read-only", m.WriteAttr("class/net/ct0/ifindex", "1"), syscall.EACCES)
	refused(t, "write outside", m.WriteAttr("../etc/hostname", "x"), hw.ErrInvalid)
	m.set(t, "ct0", hw.Link{Name: "ct9"}, hw.LinkName)
	refused(t, "write under the old name", m.WriteAttr("class/net/ct0/mtu", "1300"), hw.ErrNotFound)
	done(t, "write under the new name", m.WriteAttr("class/net/ct9/mtu", "1350"))
}

// same compares two links.
func same(t *testing.T, what string, got, want hw.Link) {
	t.Helper()
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}
