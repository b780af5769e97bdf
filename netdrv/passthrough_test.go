package netdrv_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// ens2 is a plain NIC.
func ens2() hwtest.PF {
	return hwtest.PF{Name: "ens2", PCI: "0000:02:00.0", MAC: "52:54:00:bb:00:00", Driver: "e1000e", Up: true}
}

// nic adds a plain NIC with an address and routes.
func nic(m *machine) {
	m.kernel.AddPF(ens2())
	m.kernel.AddAddrs("ens2", "192.0.2.10/24", "2001:db8::10/64")
	m.kernel.AddRoutes("ens2", hw.Route{Dst: "198.51.100.0/24", Gateway: "192.0.2.1", Table: 254, Metric: 50, Protocol: 4})
}

// TestWholeDevice: a whole device is restored with its addresses and routes, whatever the container did.
func TestWholeDevice(t *testing.T) {
	for name, die := range map[string]func(m *machine){
		"stopped": func(m *machine) { m.end("a") },
		"killed with the engine": func(m *machine) {
			m.leave("a")
			m.kernel.KillNS("a", 2*time.Second)
			m.delete("a")
		},
		"killed, and late": func(m *machine) {
			m.leave("a")
			m.kernel.KillNS("a", 5*time.Second)
			m.delete("a")
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				nic(m)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "prefix=hw")
				if _, mac := m.mustRun("a", "n"); mac != "52:54:00:bb:00:00" {
					t.Errorf("mac %s, want the device's own", mac)
				}
				mtu, mac := 9000, hw.MAC("02:66:66:66:66:66")
				if err := m.kernel.InNS("a").SetLink("hw0", hw.Link{MTU: mtu, MAC: mac}, hw.LinkMTU, hw.LinkMAC); err != nil {
					t.Fatal(err)
				}
				_, _, err := m.run("b", "n")
				wantError(t, err, "ens2 is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; "+
					"a device that is handed over whole serves one container at a time")
				die(m)
				m.settled()
				m.wantHost(before)
			})
		})
	}
}

// TestWholeDeviceWithMAC: a user's MAC is set, not answered, and the original restored afterwards.
func TestWholeDeviceWithMAC(t *testing.T) {
	story(t, func(m *machine) {
		nic(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=0000:02:00.0", "mode=passthrough")
		m.mustRun("a", "n", "02:00:00:00:00:42")
		if l := m.kernel.InNS("a").Links()[0]; l.MAC != "02:00:00:00:00:42" {
			t.Errorf("in the container: %s", l.MAC)
		}
		m.end("a")
		m.wantHost(before)
	})
}

// TestVeth: a device without a PCI address is found by the alias that the plugin sets, and removes when the device is restored.
func TestVeth(t *testing.T) {
	story(t, func(m *machine) {
		m.kernel.AddVeth("tap0", "tap1")
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=tap0", "mode=passthrough")
		m.mustRun("a", "n")
		m.end("a")
		m.wantHost(before)
		// The engine is killed: a veth is removed with its namespace, and the network can be deleted all the same.
		m.mustRun("a", "n")
		m.leave("a")
		m.kernel.KillNS("a", time.Second)
		m.delete("a")
		m.settled()
		_, _, err := m.run("b", "n")
		wantError(t, err, "tap0 is quarantined: has not come back; it may have died with its container; "+
			"a device that is handed over whole serves one container at a time")
		m.mustRemove("n")
		m.settled()
		if keys := m.keys(); len(keys) > 0 {
			t.Errorf("left in the ledger: %v", keys)
		}
	})
}

// TestPortOfOpenVSwitch: a port of Open vSwitch comes home under its name, by which the switch adds it again.
func TestPortOfOpenVSwitch(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(ens2())
		for _, name := range []string{"ovs-system", "br-ex"} {
			m.kernel.AddLink(hw.Link{Name: name, Kind: "openvswitch", Up: true})
		}
		m.kernel.AddPort("ovs-system", "ens2")
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "force=yes")
		m.mustRun("a", "n")
		m.end("a")
		m.settled()
		m.wantKeys("net/n")
		m.kernel.AddPort("ovs-system", "ens2") // as ovs-vswitchd does
		m.wantHost(before)
	})
}

// TestSubfunction: a netdev of a subfunction moves itself, and not that of its PF. A port of a NIC's switch, which could be mistaken for the
// PF's netdev, is refused, and so is the PF beside it.
func TestSubfunction(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		part := m.kernel.AddSubfunction("0000:02:00.0", 4, 88, hw.Link{Name: "ens2s88"})
		before := m.kernel.String()
		const use = ": it is a sub-function of 0000:02:00.0, which has no vfs; hand over its netdev ens2s88 with mode=passthrough, " +
			"or have macvlans on that with mode=macvlan"
		wantError(t, m.create("n", "netdevice=ens2s88"), "option netdevice: ens2s88"+use)
		wantError(t, m.create("n", "netdevice="+part, "mode=passthrough"), "option netdevice: "+part+use)
		m.mustCreate("n", "netdevice=ens2s88", "mode=passthrough")
		if source, _ := m.mustRun("a", "n"); source != "ens2s88" {
			t.Errorf("%s went into the container", source)
		}
		alias := "not what it is found by"
		m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{Alias: alias}, hw.LinkAlias))
		m.leave("a")
		m.kernel.KillNS("a", 0)
		m.delete("a")
		m.settled()
		m.wantHost(before)
		m.mustCreate("whole", "netdevice=ens2", "mode=passthrough")
		m.kernel.AddOn("0000:02:00.0", "", 0, hw.Link{Name: "ens2r0"})
		const why = ", on the same pci function; ports of a nic in switchdev mode are not lent"
		_, _, err := m.run("b", "whole")
		wantError(t, err, "ens2: cannot be told from ens2r0"+why)
		m.mustRemove("whole")
		wantError(t, m.create("x", "netdevice=ens2", "mode=passthrough"), "option netdevice: ens2: cannot be told from ens2r0"+why)
		for _, mode := range []string{"passthrough", "macvlan"} {
			wantError(t, m.create("x", "netdevice=ens2r0", "mode="+mode), "option netdevice: ens2r0: cannot be told from ens2"+why)
		}
		m.mustCreate("children", "netdevice=ens2", "mode=macvlan")
		m.mustRun("c", "children")
		m.end("c")
	})
}

// TestNotMovable: devices that must not or cannot move into a container are refused when the network is created, and nothing changes.
func TestNotMovable(t *testing.T) {
	story(t, func(m *machine) {
		nic(m)
		m.kernel.AddPF(igb())
		for _, kind := range []string{"bridge", "vrf"} {
			m.kernel.AddLink(hw.Link{Name: kind + "0", Kind: kind, Type: "ether", MTU: 1500})
		}
		m.kernel.AddVeth("mgmt0", "mgmt1")
		m.kernel.AddAddrs("mgmt0", "203.0.113.2/24")
		up := true
		if err := m.kernel.SetLink(m.kernel.Link("mgmt0").Index, hw.LinkUp, hw.Link{Up: up}); err != nil {
			t.Fatal(err)
		}
		m.kernel.AddRoutes("mgmt0", hw.Route{Dst: "0.0.0.0/0", Gateway: "203.0.113.1", Table: 254})
		m.mustCreate("vfs", "netdevice=ens1f0")
		m.mustCreate("whole", "netdevice=ens2", "mode=passthrough")
		m.mustRun("a", "vfs")
		before := m.kernel.String()
		for _, c := range []struct{ device, want string }{
			{"bridge0", "option netdevice: bridge0: a bridge cannot leave its network namespace; " +
				"use mode=macvlan on it, or hand over one of its ports"},
			{"vrf0", "option netdevice: vrf0: a vrf cannot leave its network namespace; " +
				"hand over one of its ports"},
			{"lo", "option netdevice: lo: a loopback cannot leave its network namespace"},
			{"mgmt0", "option netdevice: mgmt0 carries the host's default route (through mgmt0); the host would lose that; if that is meant, say force=yes"},
			{"ens1f0", "option netdevice: ens1f0 is used by network vfs" + left("vfs")},
			{"ens2", "option netdevice: ens2 is used by network whole" + left("whole")},
			{"0000:01:10.0", "option netdevice: 0000:01:10.0: device is in another network namespace"},
			{"nosuch0", "option netdevice: nosuch0: no such device; the NICs of this host are ens1f0, ens2"},
		} {
			wantError(t, m.create("x", "mode=passthrough", "netdevice="+c.device), c.want)
		}
		wantError(t, m.create("x", "netdevice=ens2"), "option netdevice: ens2 (0000:02:00.0): sr-iov is off or missing "+
			"(no sriov_totalvfs); switch it on in the firmware of the nic and of the machine")
		wantError(t, m.create("x", "netdevice=mgmt0"),
			"option netdevice: mgmt0: it is not a PCI device, so it has no vfs; use another mode, such as passthrough")
		m.wantHost(before)
		m.end("a")
	})
}

// TestInUseByHost: a device that the host uses is refused, naming what uses it, when the network is created and when a container
// starts. With force=yes a container gets it.
func TestInUseByHost(t *testing.T) {
	t.Parallel()
	setUp := func(m *machine, name string, up bool) {
		m.must(m.kernel.SetLink(m.kernel.Link(name).Index, hw.LinkUp, hw.Link{Up: up}))
	}
	port := func(m *machine, kind string) {
		master := m.kernel.AddLink(hw.Link{Name: kind + "0", Kind: kind, Up: true})
		setUp(m, "ens2", false)
		m.must(m.kernel.SetLink(m.kernel.Link("ens2").Index, hw.LinkMaster, hw.Link{Master: master}))
		setUp(m, "ens2", true)
	}
	for name, c := range map[string]struct {
		want  string
		begin func(m *machine)
	}{
		"vlan": {want: "carries ens2.30 (vlan)", begin: func(m *machine) {
			m.kernel.AddLink(hw.Link{Name: "ens2.30", Kind: "vlan", Peer: m.kernel.Link("ens2").Index, Up: true})
			m.kernel.AddAddrs("ens2.30", "10.30.0.5/24")
			m.kernel.AddRoutes("ens2.30", hw.Route{Dst: "10.31.0.0/16", Gateway: "10.30.0.1", Table: 254, Protocol: 4})
		}},
		"macvlan": {want: "carries mv0 (macvlan)", begin: func(m *machine) {
			m.kernel.AddLink(hw.Link{Name: "mv0", Kind: hw.Macvlan, Peer: m.kernel.Link("ens2").Index})
		}},
		"bond port":   {want: "is a port of bond0 (bond)", begin: func(m *machine) { port(m, "bond") }},
		"bridge port": {want: "is a port of bridge0 (bridge)", begin: func(m *machine) { port(m, "bridge") }},
		"vrf": {want: "is a port of vrf0 (vrf) and carries the default route of table 10 (through ens2)", begin: func(m *machine) {
			port(m, "vrf")
			m.kernel.AddRoutes("ens2", hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.2.1", Table: 10})
		}},
		"another table": {want: "carries the default route of table 10 (through ens2)", begin: func(m *machine) {
			m.kernel.AddRoutes("ens2", hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.2.1", Table: 10})
		}},
		"session on another port": {want: "carries a tcp session (to 192.0.2.10:8443 on ens2)", begin: func(m *machine) {
			m.kernel.Connect("192.0.2.10:8443")
		}},
		"vf that is up": {want: "has vfs in use: vf 0 of ens2 (0000:02:10.0) is up in the host", begin: func(m *machine) {
			setUp(m, "ens2v0", true)
			m.kernel.AddAddrs("ens2v0", "10.44.0.1/24")
		}},
	} {
		refusal := "ens2 " + c.want + "; the host would lose that; if that is meant, say force=yes"
		host := func(m *machine) {
			pf := ens2()
			pf.Driver, pf.TotalVFs, pf.VFs = "igb", 2, 2
			m.kernel.AddPF(pf)
			m.kernel.AddAddrs("ens2", "192.0.2.10/24")
			m.settled()
		}
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				host(m)
				m.mustCreate("early", "netdevice=ens2", "mode=passthrough")
				c.begin(m)
				before := m.kernel.String()
				_, _, err := m.run("a", "early")
				wantError(t, err, refusal)
				m.mustRemove("early")
				wantError(t, m.create("n", "netdevice=ens2", "mode=passthrough"), "option netdevice: "+refusal)
				m.wantHost(before)
				m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "force=yes")
				m.mustRun("a", "n")
				m.end("a")
			})
		})
	}
}

// TestAddressesAreNamed: a device with addresses is handed over, and the log names what the host is without meanwhile: in a warning when
// the network is created, and again for each container.
func TestAddressesAreNamed(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		logged := m.logTo(zapcore.InfoLevel)
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
		m.mustRun("a", "n")
		m.end("a")
		var got []string
		for _, e := range logged.FilterMessageSnippet("the host uses the device").All() {
			got = append(got, fmt.Sprintf("%s %s %s", e.Level, e.ContextMap()["device"], e.ContextMap()["addresses"]))
		}
		if want := "[warn ens2 [192.0.2.10/24 2001:db8::10/64] info ens2 [192.0.2.10/24 2001:db8::10/64]]"; fmt.Sprint(got) != want {
			t.Errorf("%v\nwant %s", got, want)
		}
	})
}

// TestGateways: which gateway a container gets, and that the engine never adds a second interface for one.
func TestGateways(t *testing.T) {
	const pool, gw = "10.0.0.0/24", "10.0.0.1/24"
	for name, c := range map[string]struct {
		gateway  string
		options  []string
		internal bool
		invented bool
		want     string
		route    string
	}{
		"none given":                 {want: ""},
		"given by the user":          {gateway: gw, want: "10.0.0.1"},
		"invented by an old engine":  {gateway: gw, invented: true, want: ""},
		"invented, and wanted":       {gateway: gw, invented: true, options: []string{"gateway=auto"}, want: "10.0.0.1"},
		"wanted, but there is none":  {gateway: pool, invented: true, options: []string{"gateway=auto"}, want: ""},
		"not wanted":                 {gateway: gw, options: []string{"gateway=none"}, want: ""},
		"of an internal network":     {gateway: gw, internal: true, want: ""},
		"outside the network's pool": {gateway: "10.9.9.1/24", want: "10.9.9.1", route: "10.9.9.1/32"},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				nic(m)
				m.inventedGateway = func(_ context.Context, p, g string) bool { return c.invented && p == pool && g == c.gateway }
				r := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: pool, Gateway: c.gateway}}}
				if c.internal {
					r.Options = map[string]any{"com.docker.network.internal": true}
				}
				if err := m.createWith("n", r, append(c.options, "netdevice=ens2", "mode=passthrough")...); err != nil {
					t.Fatal(err)
				}
				m.restart() // the gateway is in the ledger
				join, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"})
				m.must(err)
				if join.Gateway != c.want || join.DisableGatewayService != (c.want == "") {
					t.Errorf("gateway %q, gateway service disabled: %v; want %q", join.Gateway, join.DisableGatewayService, c.want)
				}
				if got := len(join.StaticRoutes); c.route == "" && got != 0 || c.route != "" && (got != 1 ||
					join.StaticRoutes[0].Destination != c.route || join.StaticRoutes[0].RouteType != 1) {
					t.Errorf("static routes %+v, want %q", join.StaticRoutes, c.route)
				}
			})
		})
	}
}

// TestIPv6GatewayOnly: a container with an IPv6 gateway alone gets its IPv6 default route, and no second interface: engines before 28,
// which invent an IPv4 gateway, look at that alone when they decide about docker_gwbridge and about default routes.
func TestIPv6GatewayOnly(t *testing.T) {
	for name, invents := range map[string]bool{"engine before 28": true, "engine 28": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				nic(m)
				m.inventedGateway = func(_ context.Context, _, g string) bool { return g == "10.0.0.1/24" }
				r := &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/24"}},
					IPv6Data: []*plugin.IPAMData{{Pool: "fd00::/64", Gateway: "fd00::1/64"}}}
				if invents {
					r.IPv4Data[0].Gateway = "10.0.0.1/24"
				}
				m.must(m.createWith("n", r, "netdevice=ens2", "mode=passthrough"))
				m.restart() // what the engine does is in the ledger
				join, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24", AddressIPv6: "fd00::2/64"})
				m.must(err)
				got := fmt.Sprintf("%q %q %v", join.Gateway, join.GatewayIPv6, join.DisableGatewayService)
				for _, route := range join.StaticRoutes {
					got += fmt.Sprintf(" %s %d %s", route.Destination, route.RouteType, route.NextHop)
				}
				want := `"" "fd00::1" true`
				if invents {
					want = `"" "" true ::/0 0 fd00::1`
				}
				if got != want {
					t.Errorf("%s\nwant %s", got, want)
				}
			})
		})
	}
}

// TestEngineLabels: the labels that the engine acts on itself pass, and the driver obeys the one about the MTU.
func TestEngineLabels(t *testing.T) {
	const v4, v6, mtu = "com.docker.network.enable_ipv4=", "com.docker.network.enable_ipv6=", "com.docker.network.driver.mtu="
	dual := func() *plugin.CreateNetworkRequest {
		return &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/24"}},
			IPv6Data: []*plugin.IPAMData{{Pool: "fd00::/64"}}}
	}
	for _, c := range []struct {
		options []string
		mtu     int
		refusal string
	}{
		{options: []string{v4 + "true", v6 + "1", "com.docker.network.advertise_addr_ms=100"}},
		{options: []string{mtu + "1400"}, mtu: 1400},
		{options: []string{mtu + "1400", "mtu=1300"}, mtu: 1300},
		{options: []string{v4 + "false"}, refusal: "option com.docker.network.enable_ipv4=false: this engine does not act on it, as " +
			"engines before 28; say it with docker network create --ipv4=false"},
		{options: []string{v6 + "false"}, refusal: "option com.docker.network.enable_ipv6=false: this engine does not act on it, as " +
			"engines before 28; say it with docker network create --ipv6"},
		{options: []string{v6 + "maybe"}, refusal: `option com.docker.network.enable_ipv6: "maybe" is not allowed; allowed: true, false`},
		{options: []string{mtu + "9"}, refusal: `option mtu: "9" is not allowed; allowed: 68 to 65535`},
		{options: []string{"com.docker.network.host_ipv4=192.0.2.1"}, refusal: `option "com.docker.network.host_ipv4": unknown`},
	} {
		t.Run(strings.Join(c.options, " "), func(t *testing.T) {
			story(t, func(m *machine) {
				nic(m)
				err := m.createWith("n", dual(), append(c.options, "netdevice=ens2", "mode=passthrough")...)
				if c.refusal != "" {
					if err == nil || !strings.HasPrefix(err.Error(), c.refusal) {
						t.Fatalf("%v\nwant %s", err, c.refusal)
					}
					return
				}
				m.must(err)
				m.mustRun("a", "n")
				if got := m.kernel.InNS("a").Links()[0].MTU; c.mtu != 0 && got != c.mtu {
					t.Errorf("mtu %d in the container, want %d", got, c.mtu)
				}
			})
		})
	}
}

// TestGatewaysOfSeveralSubnets: a container gets the gateway of its subnet, and one of another subnet only with a route to it.
func TestGatewaysOfSeveralSubnets(t *testing.T) {
	pools := []*plugin.IPAMData{{Pool: "10.0.0.0/24", Gateway: "10.0.0.1/24"}, {Pool: "10.1.0.0/24", Gateway: "10.1.0.1/24"},
		{Pool: "10.2.0.0/24"}}
	pools6 := []*plugin.IPAMData{{Pool: "fd00::/64", Gateway: "fd00::1/64"}}
	for _, c := range []struct{ address, want, route string }{
		{"10.0.0.2/24", "10.0.0.1", ""}, {"10.1.0.2/24", "10.1.0.1", ""}, {"10.2.0.2/24", "10.0.0.1", "10.0.0.1/32"},
	} {
		t.Run(c.address, func(t *testing.T) {
			story(t, func(m *machine) {
				nic(m)
				r := &plugin.CreateNetworkRequest{IPv4Data: pools, IPv6Data: pools6}
				if err := m.createWith("n", r, "netdevice=ens2", "mode=passthrough"); err != nil {
					t.Fatal(err)
				}
				m.restart()
				join, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: c.address, AddressIPv6: "fd00::2/64"})
				m.must(err)
				var routes []string
				for _, r := range join.StaticRoutes {
					routes = append(routes, r.Destination)
				}
				if join.Gateway != c.want || join.GatewayIPv6 != "fd00::1" || strings.Join(routes, " ") != c.route {
					t.Errorf("gateways %s and %s with routes %q, want %s with %q", join.Gateway, join.GatewayIPv6, routes, c.want, c.route)
				}
			})
		})
	}
}

// TestManagementNIC: the NIC over which an administrator is logged in is refused without force=yes.
func TestManagementNIC(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.kernel.Connect("192.0.2.10:22")
		const refusal = "ens2 carries a tcp session (to 192.0.2.10:22 on ens2); the host would lose that; if that is meant, say force=yes"
		wantError(t, m.create("n", "netdevice=ens2", "mode=passthrough"), "option netdevice: "+refusal)
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "force=yes")
		m.mustRun("a", "n")
		m.end("a")
	})
	story(t, func(m *machine) { // the administrator logs in after the network was created
		nic(m)
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
		m.kernel.Connect("[2001:db8::10]:22")
		_, _, err := m.run("a", "n")
		wantError(t, err, "ens2 carries a tcp session (to [2001:db8::10]:22 on ens2); the host would lose that; if that is meant, "+
			"say force=yes")
	})
	story(t, func(m *machine) { // the administrator is logged in to an internal port of the switch that the NIC is a port of
		m.kernel.AddPF(ens2())
		for _, name := range []string{"ovs-system", "br-ex"} {
			m.kernel.AddLink(hw.Link{Name: name, Kind: "openvswitch", Up: true})
		}
		m.kernel.AddPort("ovs-system", "ens2")
		m.kernel.AddAddrs("br-ex", "192.0.2.10/24")
		m.kernel.Connect("192.0.2.10:22")
		wantError(t, m.create("n", "netdevice=ens2", "mode=passthrough"), "option netdevice: ens2 is a port of ovs-system (openvswitch) and "+
			"carries a tcp session (to 192.0.2.10:22 on br-ex); the host would lose that; if that is meant, say force=yes")
	})
}
