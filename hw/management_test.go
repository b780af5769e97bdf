package hw_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestMovable: links that cannot leave their namespace are refused: the kernel tells, or their kind does.
func TestMovable(t *testing.T) {
	t.Parallel()
	const why = " cannot leave its network namespace"
	for _, tells := range []bool{true, false} {
		k := hwtest.New(t)
		k.NoImmutable = !tells
		k.AddPF(igb())
		k.AddPF(hwtest.PF{Name: "wlp3s0", PCI: "0000:03:00.0"})
		k.MakeWiFi("wlp3s0")
		for _, kind := range []string{"bond", "bridge", "team", "vrf", "openvswitch", "batadv", "hsr", "ppp", "veth", "macvlan", "vlan",
			"tun", "vxlan"} {
			k.AddLink(hw.Link{Name: kind + "0", Kind: kind})
		}
		h := open(t, k)
		for name, want := range map[string]string{
			"bond0": "a bond", "bridge0": "a bridge", "team0": "a team", "vrf0": "a vrf", "openvswitch0": "a openvswitch",
			"batadv0": "a batadv", "hsr0": "a hsr", "ppp0": "a ppp", "lo": "a loopback", "wlp3s0": "it",
			"veth0": "", "macvlan0": "", "vlan0": "", "tun0": "", "vxlan0": "", "ens1f0": "", "ens1f0v0": "",
		} {
			n, err := h.Netdev(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.CheckMovable(n); want != "" || err != nil {
				wantError(t, err, name+": "+want+why)
			}
		}
	}
}

// A stack is links on top of one another, the lowest being nic.
type stack struct {
	t *testing.T
	k *hwtest.Kernel
}

// on adds a link above another.
func (s stack) on(kind, name, below string) {
	s.k.AddLink(hw.Link{Name: name, Kind: kind, Peer: s.k.Link(below).Index, Up: true})
}

// switched makes a link a port of Open vSwitch, of which the host sees two internal ports.
func (s stack) switched(port string) {
	for _, name := range []string{"ovs-system", "br-ex", "br-int"} {
		s.k.AddLink(hw.Link{Name: name, Kind: "openvswitch", Up: true})
	}
	s.k.AddPort("ovs-system", port)
}

// under adds a link and makes another a port of it.
func (s stack) under(kind, name, port string) {
	master, index := s.k.AddLink(hw.Link{Name: name, Kind: kind, Up: true}), s.k.Link(port).Index
	for _, err := range []error{
		s.k.SetLink(index, hw.LinkUp, hw.Link{}),
		s.k.SetLink(index, hw.LinkMaster, hw.Link{Master: master}),
		s.k.SetLink(index, hw.LinkUp, hw.Link{Up: true}),
	} {
		if err != nil {
			s.t.Fatal(err)
		}
	}
}

// away adds a link above the NIC and moves it to another namespace, as eth0.
func (s stack) away(kind, name, ns string) {
	s.on(kind, name, "nic")
	if err := s.k.MoveToNS(ns, name, "eth0"); err != nil {
		s.t.Fatal(err)
	}
}

const (
	anywhere  = "0.0.0.0/0"
	anywhere6 = "::/0"
)

// route adds a route; without a table it leads through a router.
func (s stack) route(name, dst string, table ...int) {
	r := hw.Route{Dst: dst, OnLink: true, Gateway: map[string]string{anywhere: "192.0.2.1", anywhere6: "2001:db8::1"}[dst]}
	if len(table) > 0 {
		r.Table = table[0]
	}
	s.k.AddRoutes(name, r)
}

// TestHostUse: what the host uses a device for is named, also if a link above it is what is used.
func TestHostUse(t *testing.T) {
	t.Parallel()
	const route, table = "carries the host's default route (through ", "carries the default route of table 100 (through "
	for name, c := range map[string]struct {
		build func(s stack)
		want  string // "" for no use
	}{
		"none":               {func(stack) {}, ""},
		"an address":         {func(s stack) { s.k.AddAddrs("nic", "192.0.2.1/24", "2001:db8::1/64") }, ""},
		"itself":             {func(s stack) { s.route("nic", anywhere) }, route + "nic)"},
		"itself, over ipv6":  {func(s stack) { s.route("nic", anywhere6) }, route + "nic)"},
		"of another table":   {func(s stack) { s.route("nic", anywhere, 100) }, table + "nic)"},
		"not a default":      {func(s stack) { s.route("nic", "10.0.0.0/8") }, ""},
		"of another device":  {func(s stack) { s.on("tun", "t0", "lo"); s.route("t0", anywhere) }, ""},
		"a veth is no child": {func(s stack) { s.on("veth", "v0", "nic"); s.route("v0", anywhere) }, ""},
		"vlan":               {func(s stack) { s.on("vlan", "nic.5", "nic") }, "carries nic.5 (vlan)"},
		"children": {func(s stack) {
			for _, kind := range []string{"vlan", "macsec", "macvlan", "macvtap", "ipvlan", "ipvtap"} {
				s.on(kind, kind+"0", "nic")
			}
		}, "carries vlan0 (vlan) and carries macsec0 (macsec) and carries macvlan0 (macvlan) and carries macvtap0 (macvtap) and " +
			"carries ipvlan0 (ipvlan) and carries ipvtap0 (ipvtap)"},
		"vxlan":           {func(s stack) { s.on("vxlan", "vx0", "nic") }, "carries vx0 (vxlan)"},
		"vxlan that went": {func(s stack) { s.on("vxlan", "vx0", "nic"); s.k.DelLink("vx0") }, ""},
		"route of a vlan": {func(s stack) { s.on("vlan", "nic.5", "nic"); s.route("nic.5", anywhere6) },
			"carries nic.5 (vlan) and " + route + "nic.5)"},
		"port of a bridge": {func(s stack) { s.under("bridge", "br0", "nic") }, "is a port of br0 (bridge)"},
		"port of a bond": {func(s stack) { s.under("bond", "bond0", "nic"); s.route("bond0", anywhere) },
			"is a port of bond0 (bond) and " + route + "bond0)"},
		"port of a vrf": {func(s stack) { s.under("vrf", "mgmt", "nic"); s.route("nic", anywhere, 100) },
			"is a port of mgmt (vrf) and " + table + "nic)"},
		"macvlan on a bridge over a vlan on a bond": {func(s stack) {
			s.under("bond", "bond0", "nic")
			s.on("vlan", "bond0.7", "bond0")
			s.under("bridge", "br7", "bond0.7")
			s.on("macvlan", "mv7", "br7")
			s.route("mv7", anywhere)
		}, "is a port of bond0 (bond) and " + route + "mv7)"},
		"port of open vswitch": {func(s stack) { s.switched("nic"); s.route("br-ex", anywhere) },
			"is a port of ovs-system (openvswitch) and " + route + "br-ex)"},
		"open vswitch over a bond, with a vlan on it": {func(s stack) {
			s.under("bond", "bond0", "nic")
			s.switched("bond0")
			s.on("vlan", "br-ex.9", "br-ex")
			s.route("br-ex.9", anywhere6)
		}, "is a port of bond0 (bond) and " + route + "br-ex.9)"},
		"open vswitch without it": {func(s stack) {
			s.on("tun", "t0", "lo")
			s.switched("t0")
			s.route("br-ex", anywhere)
		}, ""},
		"many circles over open vswitch": {func(s stack) {
			s.on("tun", "t0", "lo")
			s.switched("t0")
			for i := range 30 {
				name := fmt.Sprint("mv", i)
				s.on("macvlan", name, "br-ex")
				s.k.AddPort("ovs-system", name)
			}
			s.route("br-ex", anywhere)
		}, ""},
		"links in a circle": {func(s stack) {
			s.on("macvlan", "m1", "lo")
			s.k.AddLink(hw.Link{Name: "m2", Kind: "macvlan", Peer: s.k.Link("m1").Index + 1, Up: true}) // on itself
			s.route("m2", anywhere)
		}, ""},
		"session on a port of its own": {func(s stack) {
			s.k.AddAddrs("nic", "192.0.2.1/24")
			s.k.Connect("192.0.2.1:8443")
		}, "carries a tcp session (to 192.0.2.1:8443 on nic)"},
		"session over a vlan": {func(s stack) {
			s.on("vlan", "nic.5", "nic")
			s.k.AddAddrs("nic.5", "2001:db8::1/64")
			s.k.Connect("[2001:db8::1]:22")
		}, "carries nic.5 (vlan) and carries a tcp session (to [2001:db8::1]:22 on nic.5)"},
		"session over another": {func(s stack) { s.k.AddAddrs("lo", "192.0.2.1/24"); s.k.Connect("192.0.2.1:22") }, ""},
		"a vf is up": {func(s stack) {
			if err := s.k.SetLink(s.k.Link("nicv1").Index, hw.LinkUp, hw.Link{Up: true}); err != nil {
				s.t.Fatal(err)
			}
		}, "has vfs in use: vf 1 of nic (0000:02:10.2) is up in the host"},
		"a child in a namespace, as of docker's own macvlan driver": {func(s stack) { s.away("macvlan", "mv0", "c1") },
			"carries eth0 (macvlan) in another network namespace"},
		"children in namespaces": {func(s stack) {
			s.away("vlan", "v0", "c1")
			s.away("macvlan", "m0", "c2")
			s.away("macvlan", "m1", "c3")
		},
			"carries eth0 (vlan) in another network namespace, and 2 more"},
		"a child of another in a namespace": {func(s stack) {
			s.on("tun", "t0", "lo")
			s.on("macvlan", "m0", "t0")
			if err := s.k.MoveToNS("c1", "m0", ""); err != nil {
				s.t.Fatal(err)
			}
		}, ""},
		"a vf in a namespace": {func(s stack) {
			if err := s.k.MoveToNS("c1", "nicv0", ""); err != nil {
				s.t.Fatal(err)
			}
		}, "has vfs in use: vf 0 of nic (0000:02:10.0) is in another network namespace"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := hwtest.New(t)
			k.AddPF(hwtest.PF{Name: "nic", PCI: "0000:02:00.0", Up: true, Driver: "igb", TotalVFs: 2, VFs: 2})
			c.build(stack{t, k})
			h := open(t, k)
			n, err := h.Netdev("nic")
			if err != nil {
				t.Fatal(err)
			}
			uses, err := h.HostUse(n)
			if got := strings.Join(uses, " and "); err != nil || got != c.want {
				t.Errorf("%q, %v\nwant %q", got, err, c.want)
			}
		})
	}
}

// TestVLANsOn: the VLANs of a device are those of its own VLAN devices.
func TestVLANsOn(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddLink(hw.Link{Name: "nic", MAC: "02:00:00:00:00:01"})
	k.AddLink(hw.Link{Name: "other", MAC: "02:00:00:00:00:02"})
	for name, l := range map[string]hw.Link{"nic.5": {Kind: "vlan", VLAN: 5}, "storage": {Kind: "vlan", VLAN: 100}, "qinq": {Kind: "vlan"}, "mv0": {Kind: "macvlan"}} {
		l.Name, l.Peer = name, k.Link("nic").Index
		k.AddLink(l)
	}
	k.AddLink(hw.Link{Name: "other.7", Kind: "vlan", VLAN: 7, Peer: k.Link("other").Index})
	got, err := open(t, k).VLANsOn(hw.Netdev{Link: k.Link("nic")})
	if diff := cmp.Diff(map[int]string{5: "nic.5", 100: "storage"}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
