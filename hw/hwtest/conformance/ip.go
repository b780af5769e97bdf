package conformance

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// Numbers of rtnetlink (linux/if_addr.h, linux/rtnetlink.h) that the tests use.
const (
	noDADFlag    = 0x02  // IFA_F_NODAD
	noPrefixFlag = 0x200 // IFA_F_NOPREFIXROUTE
	scopeHost    = 254
	protoDHCP    = 16
)

// pair makes a veth whose ends are up and have carrier, and returns the ifindex of ct0.
func (m machine) pair(t *testing.T) int {
	t.Helper()
	m.Add(t, "veth", "ct0", "ct1")
	m.set(t, "ct0", hw.Link{Up: true}, hw.LinkUp)
	m.set(t, "ct1", hw.Link{Up: true}, hw.LinkUp)
	soon(t, "carrier", func() bool { return m.link(t, "ct0").Carrier })
	return m.link(t, "ct0").Index
}

// addrs lists the addresses of a link in order of their text.
func (m machine) addrs(t *testing.T, index int) []hw.Addr {
	t.Helper()
	as, err := m.Addrs(index)
	done(t, "list addresses", err)
	slices.SortFunc(as, func(a, b hw.Addr) int { return strings.Compare(a.CIDR, b.CIDR) })
	return as
}

func testAddrs(t *testing.T, m machine) {
	index := m.pair(t)
	if as := m.addrs(t, index); len(as) > 0 {
		t.Errorf("a new link has addresses %v", as)
	}
	want := []hw.Addr{
		{CIDR: "192.0.2.1/24", Label: "ct0"},
		{CIDR: "192.0.2.2/24", Label: "ct0:two", Broadcast: "192.0.2.255"},
		{CIDR: "198.51.100.1/32", Peer: "198.51.100.2/32", Label: "ct0"},
		{CIDR: "203.0.113.1/24", Label: "ct0", Scope: scopeHost, Flags: noPrefixFlag},
		{CIDR: "2001:db8::1/64", Flags: noDADFlag},
		{CIDR: "2001:db8::2/64", Flags: noDADFlag | noPrefixFlag},
		{CIDR: "2001:db8:1::1/128", Peer: "2001:db8:1::2/128", Flags: noDADFlag},
	}
	for range 2 { // the second time they are there already
		for _, a := range want {
			done(t, "add "+a.CIDR, m.AddAddr(index, a))
		}
	}
	slices.SortFunc(want, func(a, b hw.Addr) int { return strings.Compare(a.CIDR, b.CIDR) })
	sameList(t, "addresses", m.addrs(t, index), want)
	refused(t, "add nonsense", m.AddAddr(index, hw.Addr{CIDR: "192.0.2.300/24"}), hw.ErrInvalid)
	refused(t, "add without a length", m.AddAddr(index, hw.Addr{CIDR: "192.0.2.3"}), hw.ErrInvalid)
	other := m.link(t, "ct1").Index
	done(t, "add to the other end", m.AddAddr(other, hw.Addr{CIDR: "10.0.0.1/8"}))
	m.set(t, "ct1", hw.Link{Name: "ct9"}, hw.LinkName)
	sameList(t, "address after a change of name", m.addrs(t, other), []hw.Addr{{CIDR: "10.0.0.1/8", Label: "ct9"}})
}

func testSmallMTU(t *testing.T, m machine) {
	index := m.pair(t)
	add := func() error { return m.AddAddr(index, hw.Addr{CIDR: "2001:db8::1/64", Flags: noDADFlag}) }
	done(t, "add one of IPv4", m.AddAddr(index, hw.Addr{CIDR: "192.0.2.1/24"}))
	done(t, "add one of IPv6", add())
	m.set(t, "ct0", hw.Link{MTU: 1279}, hw.LinkMTU)
	want := []hw.Addr{{CIDR: "192.0.2.1/24", Label: "ct0"}}
	sameList(t, "addresses with an mtu of 1279", m.addrs(t, index), want)
	m.set(t, "ct0", hw.Link{MTU: 1500}, hw.LinkMTU)
	sameList(t, "addresses with an mtu of 1500 again", m.addrs(t, index), want)
	done(t, "add it again", add())
}

func testLives(t *testing.T, m machine) {
	index := m.pair(t)
	near := func(got, want int) bool { return got <= want && got > want-20 }
	for _, cidr := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		add := func(a hw.Addr) hw.Addr {
			t.Helper()
			a.CIDR = cidr
			done(t, "add "+cidr, m.AddAddr(index, a))
			as := m.addrs(t, index)
			i := slices.IndexFunc(as, func(a hw.Addr) bool { return a.CIDR == cidr })
			return as[i]
		}
		if a := add(hw.Addr{ValidSec: 1000, PrefSec: 500}); !near(a.ValidSec, 1000) || !near(a.PrefSec, 500) {
			t.Errorf("%s lives %d and %d s, want 1000 and 500", cidr, a.ValidSec, a.PrefSec)
		}
		if a := add(hw.Addr{ValidSec: 2000, PrefSec: -1}); !near(a.ValidSec, 2000) || a.PrefSec != -1 {
			t.Errorf("%s lives %d and %d s, want 2000 and over", cidr, a.ValidSec, a.PrefSec)
		}
		if a := add(hw.Addr{PrefSec: -1}); a.ValidSec != 0 || a.PrefSec != -1 {
			t.Errorf("%s lives %d and %d s, want for ever and over", cidr, a.ValidSec, a.PrefSec)
		}
	}
}

func testDown(t *testing.T, m machine) {
	index := m.pair(t)
	for _, a := range []hw.Addr{{CIDR: "192.0.2.1/24"}, {CIDR: "2001:db8::1/64", Flags: noDADFlag}} {
		done(t, "add "+a.CIDR, m.AddAddr(index, a))
	}
	for _, r := range []hw.Route{{Dst: "198.51.100.0/24", Gateway: "192.0.2.9"},
		{Dst: "2001:db8:5::/64", Gateway: "2001:db8::9"}} {
		done(t, "add "+r.Dst, m.AddRoute(index, r))
	}
	m.set(t, "ct0", hw.Link{Up: false}, hw.LinkUp)
	sameList(t, "addresses of a link that went down", m.addrs(t, index), []hw.Addr{{CIDR: "192.0.2.1/24", Label: "ct0"}})
	m.set(t, "ct0", hw.Link{Up: true}, hw.LinkUp)
	if rs, err := m.Routes(index); err != nil || len(rs) > 0 {
		t.Errorf("routes after down and up are %v (%v)", rs, err)
	}
}

func testRoutes(t *testing.T, m machine) {
	index := m.pair(t)
	for _, a := range []hw.Addr{{CIDR: "192.0.2.1/24"}, {CIDR: "2001:db8::1/64", Flags: noDADFlag}} {
		done(t, "add "+a.CIDR, m.AddAddr(index, a))
	}
	if rs, err := m.Routes(index); err != nil || len(rs) > 0 {
		t.Errorf("with addresses alone there are routes %v (%v)", rs, err)
	}
	add := []hw.Route{
		{Dst: "198.51.100.0/24", Scope: 253},
		{Dst: "0.0.0.0/0", Gateway: "192.0.2.254", Protocol: protoDHCP, Src: "192.0.2.1", Metric: 100},
		{Dst: "0.0.0.0/0", Gateway: "192.0.2.253", Metric: 200, MTU: 1400},
		{Dst: "203.0.113.0/24", Gateway: "198.51.100.7", Table: 1000},
		{Dst: "203.0.113.5/32", Gateway: "10.9.8.7", OnLink: true},
		{Dst: "2001:db8:1::/64"},
		{Dst: "::/0", Gateway: "2001:db8::254", Metric: 512},
		{Dst: "2001:db8:2::/64", Gateway: "fe80::1", Protocol: protoDHCP},
		{Dst: "2001:db8:3::/64", Gateway: "2001:db8::8"},
		{Dst: "2001:db8:3::/64", Gateway: "2001:db8::9"},
	}
	for range 2 { // the second time they are there already
		for _, r := range add {
			done(t, fmt.Sprintf("add %+v", r), m.AddRoute(index, r))
		}
	}
	var want []hw.Route
	for _, r := range add { // with what the kernel fills in
		r.Index, r.Type = index, 1
		r.Table, r.Protocol = cmp.Or(r.Table, 254), cmp.Or(r.Protocol, 3)
		if strings.Contains(r.Dst, ":") {
			r.Metric = cmp.Or(r.Metric, 1024)
		}
		want = append(want, r)
	}
	got, err := m.Routes(index)
	done(t, "list routes", err)
	if !slices.IsSortedFunc(got, func(a, b hw.Route) int { return min(1, len(a.Gateway)) - min(1, len(b.Gateway)) }) {
		t.Errorf("a route with a gateway comes before one without: %v", got)
	}
	sameList(t, "routes", got, want)
	all, err := m.Routes(0)
	done(t, "list all routes", err)
	all = slices.DeleteFunc(all, func(r hw.Route) bool { return r.Index != index })
	sameList(t, "routes among all", all, want)
	if rs, err := m.Routes(m.link(t, "ct1").Index); err != nil || len(rs) > 0 {
		t.Errorf("routes of the other end are %v (%v)", rs, err)
	}
}

// testEntries: what is configured on a link is listed in an order in which it can be added again, also to a link with another
// ifindex, and without what the kernel makes again.
func testEntries(t *testing.T, m machine) {
	index := m.pair(t)
	for _, a := range []hw.Addr{{CIDR: "192.0.2.1/24"}, {CIDR: "203.0.113.1/24", Flags: noPrefixFlag}, {CIDR: "2001:db8::1/64"},
		{CIDR: "198.51.100.1/32", Peer: "198.51.100.2/32"}, {CIDR: "192.0.2.9/24", ValidSec: 1000, PrefSec: 500}} {
		done(t, "add "+a.CIDR, m.AddAddr(index, a))
	}
	for _, r := range []hw.Route{
		{Dst: "0.0.0.0/0", Gateway: "203.0.113.254", Src: "203.0.113.1", Metric: 100, OnLink: true},
		{Dst: "203.0.113.0/24", Scope: 253, Protocol: 2, Metric: 100}, // as NetworkManager makes it
		{Dst: "198.51.100.0/24", Gateway: "192.0.2.254", Table: 1000},
		{Dst: "2001:db8:1::/48", Gateway: "2001:db8::2", Src: "2001:db8::1"},
		{Dst: "2001:db8:2::/48", Gateway: "fe80::1", Protocol: 9}, // from a router advertisement
	} {
		done(t, "add "+r.Dst, m.AddRoute(index, r))
	}
	was := m.entries(t, index)
	var kinds []string
	for _, e := range was {
		if e.Kind == hw.EntryAddress || e.Kind == hw.EntryRoute {
			kinds = append(kinds, e.Text+" "+e.Address)
		}
	}
	want := []string{"address 192.0.2.1/24 192.0.2.1", "address 203.0.113.1/24 203.0.113.1", "address 2001:db8::1/64 2001:db8::1",
		"address 198.51.100.1/32 198.51.100.1", "address 192.0.2.9/24 192.0.2.9", "route 203.0.113.0/24 metric 100 ",
		"route 0.0.0.0/0 via 203.0.113.254 metric 100 203.0.113.1", "route 198.51.100.0/24 via 192.0.2.254 table 1000 ",
		"route 2001:db8:1::/48 via 2001:db8::2 metric 1024 2001:db8::1"}
	sameList(t, "entries", kinds, want)
	m.set(t, "ct0", hw.Link{}, hw.LinkUp)
	m.set(t, "ct0", hw.Link{Up: true}, hw.LinkUp)
	for range 2 { // the second time they are there already
		for _, e := range was {
			done(t, "add "+e.Text, m.AddEntry(index, e))
		}
	}
	now := m.entries(t, index)
	if !slices.EqualFunc(was, now, hw.Entry.Same) {
		sameList(t, "entries that were added again", now, was)
	}
	for _, e := range was { // the kernel says of a route that its gateway is out of reach
		if e.Kind == hw.EntryAddress {
			refused(t, "add it to no link: "+e.Text, m.AddEntry(987654, e), hw.ErrNotFound, syscall.ENODEV)
		}
	}
	refused(t, "an entry without a body", m.AddEntry(index, hw.Entry{Kind: hw.EntryRoute}), hw.ErrInvalid)
	refused(t, "an entry of no kind", m.AddEntry(index, hw.Entry{Kind: "x", Body: []byte("x")}), hw.ErrInvalid)
	refused(t, "an entry of no bridge's port", m.AddEntry(index, hw.Entry{Kind: hw.EntryBridgePort, Body: make([]byte, 16)}),
		hw.ErrUnsupported)
}

// testSysctls: a link has the default values of its namespace's sysctls until others are set, and again after it was in another.
func testSysctls(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.Add(t, "macvlan", "ct2", "ct0")
	index := m.link(t, "ct2").Index
	defaults, err := m.Sysctls(m.link(t, "ct1").Index)
	done(t, "list those of a new link", err)
	fresh, err := m.Sysctls(0)
	done(t, "list default sysctls", err)
	for name, value := range fresh { // those of neighbour tables are only in the first namespace
		if got, ok := defaults[name]; ok && got != value && name != "net.ipv4.conf.*.rp_filter" {
			t.Errorf("%s of a new link is %s, the default is %s", name, got, value)
		}
	}
	want := map[string]string{"net.ipv4.conf.*.arp_ignore": "2", "net.ipv4.neigh.*.gc_stale_time": "90",
		"net.ipv6.neigh.*.gc_stale_time": "91", "net.ipv6.conf.*.addr_gen_mode": "1"}
	check := func(what string, want map[string]string) {
		t.Helper()
		got, err := m.Sysctls(index)
		done(t, "list sysctls", err)
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s: %s is %q, want %q", what, name, got[name], value)
			}
		}
	}
	for name := range want {
		if defaults[name] == "" {
			t.Errorf("there is no %s", name)
		}
	}
	for name, value := range want {
		done(t, "set "+name, m.SetSysctl(index, name, value))
	}
	check("after they were set", want)
	done(t, "move it", m.MoveToNS("c1", "ct2", ""))
	done(t, "move it home", m.MoveHome("c1", "ct2", "ct2"))
	index = m.link(t, "ct2").Index
	for name := range want {
		want[name] = defaults[name]
	}
	check("after it was away", want)
	refused(t, "one that is not there", m.SetSysctl(index, "net.ipv4.conf.*.nosuch", "1"), hw.ErrNotFound)
	_, err = m.Sysctls(987654)
	refused(t, "those of no link", err, hw.ErrNotFound)
	refused(t, "set one of no link", m.SetSysctl(987654, "net.ipv4.conf.*.arp_ignore", "1"), hw.ErrNotFound)
}

// entries lists the entries of a link, in their order but for that of IPv4 and IPv6.
func (m machine) entries(t *testing.T, index int) []hw.Entry {
	t.Helper()
	es, err := m.Entries(index)
	done(t, "list entries", err)
	slices.SortStableFunc(es, func(a, b hw.Entry) int { return strings.Compare(string(a.Kind)+a.Text, string(b.Kind)+b.Text) })
	return es
}

// testSource: an address can be the source of a route as soon as it was added.
func testSource(t *testing.T, m machine) {
	index := m.pair(t)
	want := hw.Addr{CIDR: "2001:db8::1/64"}
	done(t, "add an address", m.AddAddr(index, want))
	done(t, "add a route with that source", m.AddRoute(index, hw.Route{Dst: "2001:db8:1::/48", Gateway: "2001:db8::2",
		Src: "2001:db8::1"}))
	sameList(t, "addresses", m.addrs(t, index), []hw.Addr{want})
}

func testRoutesRefused(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	index := m.link(t, "ct0").Index
	done(t, "add an address", m.AddAddr(index, hw.Addr{CIDR: "192.0.2.1/24"}))
	link := hw.Route{Dst: "198.51.100.0/24", Scope: 253}
	refused(t, "a route through a link that is down", m.AddRoute(index, link), hw.ErrDeviceFault, syscall.ENETDOWN)
	m.set(t, "ct0", hw.Link{Up: true}, hw.LinkUp)
	m.set(t, "ct1", hw.Link{Up: true}, hw.LinkUp)
	refused(t, "nonsense", m.AddRoute(index, hw.Route{Dst: "198.51.100.0"}), hw.ErrInvalid)
	refused(t, "a gateway that is nonsense", m.AddRoute(index, hw.Route{Dst: "0.0.0.0/0", Gateway: "gate"}), hw.ErrInvalid)
	refused(t, "a gateway out of reach", m.AddRoute(index, hw.Route{Dst: "0.0.0.0/0", Gateway: "10.9.8.7"}),
		syscall.ENETUNREACH)
	foreign := link
	foreign.Src = "10.1.1.1"
	refused(t, "a source that the host does not have", m.AddRoute(index, foreign), hw.ErrInvalid, syscall.EINVAL)
}

// testRoutesIn: routes of one program are told from all others by their table and protocol number. They go when their link is set down.
func testRoutesIn(t *testing.T, m machine) {
	const table, protocol = 117, 117
	index := m.pair(t)
	in := func() []hw.Route {
		t.Helper()
		rs, err := m.RoutesIn(table, protocol)
		done(t, "list routes", err)
		return rs
	}
	sameList(t, "routes of a table that is empty", in(), nil)
	own := []hw.Route{{Dst: "10.1.1.2/32", Scope: 253}, {Dst: "10.1.2.0/24", Scope: 253}, {Dst: "2001:db8:1::2/128"}}
	others := []hw.Route{{Dst: "10.1.1.3/32", Scope: 253, Table: table, Protocol: 4}, {Dst: "2001:db8:1::3/128", Table: table, Protocol: 4},
		{Dst: "10.1.1.2/32", Scope: 253, Table: 254, Protocol: protocol}, {Dst: "10.1.1.2/32", Scope: 253, Table: 118, Protocol: protocol}}
	for i := range own {
		own[i].Table, own[i].Protocol = table, protocol
	}
	for _, r := range append(slices.Clone(own), others...) {
		done(t, "add "+r.Dst, m.AddRoute(index, r))
	}
	var want []hw.Route
	for _, r := range own { // with what the kernel fills in
		r.Index, r.Type = index, 1
		if strings.Contains(r.Dst, ":") {
			r.Metric = 1024
		}
		want = append(want, r)
	}
	sameList(t, "routes", in(), want)
	for range 2 { // the second time it is gone already
		done(t, "remove one", m.RemoveRoute(index, own[0]))
	}
	done(t, "remove that of another program", m.RemoveRoute(index, hw.Route{Dst: "10.1.1.3/32", Scope: 253, Table: table, Protocol: protocol}))
	sameList(t, "routes without one", in(), want[1:])
	done(t, "remove one as it is listed", m.RemoveRoute(index, want[2]))
	sameList(t, "routes without two", in(), want[1:2])
	all, err := m.Routes(index)
	done(t, "list routes of all", err)
	if len(all) != 1+len(others) {
		t.Errorf("routes of all are %v", all)
	}
	m.set(t, "ct0", hw.Link{}, hw.LinkUp)
	sameList(t, "routes of a link that is down", in(), nil)
}

// sameList compares two lists whatever their order.
func sameList[T any](t *testing.T, what string, got, want []T) {
	t.Helper()
	text := func(vs []T) string {
		var lines []string
		for _, v := range vs {
			lines = append(lines, fmt.Sprintf("%+v", v))
		}
		slices.Sort(lines)
		return strings.Join(lines, "\n")
	}
	if g, w := text(got), text(want); g != w {
		t.Errorf("%s: got\n%s\nwant\n%s", what, g, w)
	}
}
