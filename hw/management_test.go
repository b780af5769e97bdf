package hw_test

import (
	"fmt"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestMovable: links that cannot leave their namespace are refused by their kind.
func TestMovable(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(igb())
	h := open(t, k)
	for kind, movable := range map[string]bool{"bond": false, "bridge": false, "team": false, "vrf": false,
		"openvswitch": false, "batadv": false, "veth": true, "macvlan": true, "vlan": true, "tun": true, "vxlan": true} {
		k.AddLink(hw.Link{Name: kind + "0", Kind: kind})
		n, err := h.Netdev(kind + "0")
		if err != nil {
			t.Fatal(err)
		}
		if movable {
			if err := n.Movable(); err != nil {
				t.Error(err)
			}
			continue
		}
		wantError(t, n.Movable(), kind+"0: a "+kind+" cannot leave its network namespace: not supported by the driver")
	}
	for name, want := range map[string]string{"ens1f0": "", "ens1f0v0": "",
		"lo": "lo: a loopback cannot leave its network namespace: not supported by the driver"} {
		n, err := h.Netdev(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Movable(); want != "" || err != nil {
			wantError(t, err, want)
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

// TestCarriesDefaultRoute: a device carries the default route also if a link above it has the route.
func TestCarriesDefaultRoute(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		build func(s stack)
		via   string // "" for no
	}{
		"itself":             {func(s stack) { s.route("nic", anywhere) }, "nic"},
		"itself, over ipv6":  {func(s stack) { s.route("nic", anywhere6) }, "nic"},
		"of another table":   {func(s stack) { s.route("nic", anywhere, 100) }, ""},
		"not a default":      {func(s stack) { s.route("nic", "10.0.0.0/8") }, ""},
		"none":               {func(stack) {}, ""},
		"of another device":  {func(s stack) { s.on("tun", "t0", "lo"); s.route("t0", anywhere) }, ""},
		"vlan":               {func(s stack) { s.on("vlan", "nic.5", "nic"); s.route("nic.5", anywhere) }, "nic.5"},
		"macsec":             {func(s stack) { s.on("macsec", "ms", "nic"); s.route("ms", anywhere) }, "ms"},
		"macvlan":            {func(s stack) { s.on("macvlan", "mv", "nic"); s.route("mv", anywhere) }, "mv"},
		"ipvlan, over ipv6":  {func(s stack) { s.on("ipvlan", "iv", "nic"); s.route("iv", anywhere6) }, "iv"},
		"a veth is no child": {func(s stack) { s.on("veth", "v0", "nic"); s.route("v0", anywhere) }, ""},
		"port of a bridge":   {func(s stack) { s.under("bridge", "br0", "nic"); s.route("br0", anywhere) }, "br0"},
		"port of a bond":     {func(s stack) { s.under("bond", "bond0", "nic"); s.route("bond0", anywhere) }, "bond0"},
		"macvlan on a bridge over a vlan on a bond": {func(s stack) {
			s.under("bond", "bond0", "nic")
			s.on("vlan", "bond0.7", "bond0")
			s.under("bridge", "br7", "bond0.7")
			s.on("macvlan", "mv7", "br7")
			s.route("mv7", anywhere)
		}, "mv7"},
		"port of open vswitch": {func(s stack) { s.switched("nic"); s.route("br-ex", anywhere) }, "br-ex"},
		"open vswitch over a bond, with a vlan on it": {func(s stack) {
			s.under("bond", "bond0", "nic")
			s.switched("bond0")
			s.on("vlan", "br-ex.9", "br-ex")
			s.route("br-ex.9", anywhere6)
		}, "br-ex.9"},
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
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := hwtest.New(t)
			k.AddPF(hwtest.PF{Name: "nic", PCI: "0000:02:00.0", Up: true})
			c.build(stack{t, k})
			h := open(t, k)
			n, err := h.Netdev("nic")
			if err != nil {
				t.Fatal(err)
			}
			via, yes, err := h.CarriesDefaultRoute(n)
			if err != nil || yes != (c.via != "") || via != c.via {
				t.Errorf("%v through %q, %v; want through %q", yes, via, err, c.via)
			}
		})
	}
}
