package netdrv_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"

	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store"
)

// routed makes a network in mode l3 on a device.
func (m *machine) routed(id, device string, options ...string) {
	m.t.Helper()
	m.mustCreate(id, append([]string{"netdevice=" + device, "mode=ipvlan", "ipvlan_mode=l3"}, options...)...)
}

// runAt starts a container with these addresses.
func (m *machine) runAt(container, network string, addresses ...string) {
	m.t.Helper()
	join, _, err := m.attach(container, network, both(addresses...))
	m.must(err)
	m.must(m.kernel.MoveToNS(container, join.InterfaceName.SrcName, "eth0"))
	m.where[container] = place{network, join.InterfaceName.SrcName, "eth0"}
}

// both are the addresses of an endpoint, IPv4 first.
func both(addresses ...string) plugin.EndpointInterface {
	return plugin.EndpointInterface{Address: addresses[0], AddressIPv6: strings.Join(addresses[1:], "")}
}

// wantAnnounced compares the announced routes, each as "DESTINATION DEVICE".
func (m *machine) wantAnnounced(want ...string) {
	m.t.Helper()
	routes, err := m.kernel.RoutesIn(hw.AnnounceTable, hw.AnnounceProtocol)
	m.must(err)
	var got []string
	for _, r := range routes {
		l, err := m.kernel.LinkAt(r.Index)
		m.must(err)
		got = append(got, r.Dst+" "+l.Name)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("announced are %q, want %q", got, want)
	}
}

// TestAnnounced: which routes the host has for a container on a network in mode l3, and that they go with it.
func TestAnnounced(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		options  []string
		internal bool
		want     []string
	}{
		"by default":             {nil, false, []string{"10.1.1.2/32 ens2", "fd00:1::2/128 ens2"}},
		"each container":         {[]string{"announce=container"}, false, []string{"10.1.1.2/32 ens2", "fd00:1::2/128 ens2"}},
		"the subnet":             {[]string{"announce=subnet"}, false, []string{"10.1.1.0/24 ens2", "fd00:1::/64 ens2"}},
		"none":                   {[]string{"announce=none"}, false, nil},
		"l3s":                    {[]string{"ipvlan_mode=l3s"}, false, []string{"10.1.1.2/32 ens2", "fd00:1::2/128 ens2"}},
		"l2":                     {[]string{"ipvlan_mode=l2"}, false, nil},
		"of an internal network": {nil, true, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				nic(m)
				before := m.kernel.String()
				options := append([]string{"netdevice=ens2", "mode=ipvlan"}, c.options...)
				if !strings.Contains(strings.Join(options, " "), "ipvlan_mode") {
					options = append(options, "ipvlan_mode=l3")
				}
				r := &plugin.CreateNetworkRequest{}
				if c.internal {
					r.Options = map[string]any{"com.docker.network.internal": true}
				}
				m.must(m.createWith("n", r, options...))
				m.wantAnnounced()
				_, err := m.createEndpoint("a", "n", both("10.1.1.2/24", "fd00:1::2/64"))
				m.must(err)
				m.wantAnnounced() // no container has it yet
				for range 2 {     // the engine may join twice
					_, err = m.join("a", "n")
					m.must(err)
					m.wantAnnounced(c.want...)
				}
				m.runAt("a", "n", "10.1.1.2/24", "fd00:1::2/64")
				m.restart()
				m.settled()
				m.wantAnnounced(c.want...)
				m.end("a")
				m.wantAnnounced()
				m.settled()
				m.wantHost(before)
			})
		})
	}
	story(t, func(m *machine) {
		nic(m)
		wantError(t, m.create("n", "netdevice=ens2", "mode=ipvlan", "announce=subnet"),
			"option announce: only for ipvlan_mode=l3 and l3s; in l2 containers are on the device's own network")
		wantError(t, m.create("n", "netdevice=ens2", "mode=macvlan", "announce=none"),
			"option announce: not for mode=macvlan, only for mode=ipvlan")
	})
}

// TestAnnouncedSubnet: the route of a subnet stays until the last container of all its networks on the device ends.
func TestAnnouncedSubnet(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.routed("n", "ens2", "announce=subnet")
		m.routed("same", "ens2", "announce=subnet")
		m.runAt("a", "n", "10.1.1.2/24")
		m.runAt("b", "same", "10.1.1.3/24")
		m.runAt("c", "same", "10.1.2.3/24")
		m.wantAnnounced("10.1.1.0/24 ens2", "10.1.2.0/24 ens2")
		m.end("a")
		m.end("c")
		m.wantAnnounced("10.1.1.0/24 ens2")
		m.end("b")
		m.wantAnnounced()
	})
}

// TestAnnouncedRepaired: a route that is missing is added again and one of a container that has ended is removed, within a minute and with
// the plugin's start. Routes of others are left alone, also in the plugin's table or with its protocol.
func TestAnnouncedRepaired(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.routed("n", "ens2")
		m.runAt("a", "n", "10.1.1.2/24", "fd00:1::2/64")
		m.settled()
		ours := []string{"10.1.1.2/32 ens2", "fd00:1::2/128 ens2"}
		others := []hw.Route{{Dst: "10.9.0.0/16", Scope: 253, Table: hw.AnnounceTable, Protocol: 4},
			{Dst: "10.9.0.0/16", Scope: 253, Protocol: hw.AnnounceProtocol}}
		m.kernel.AddRoutes("ens2", others...)
		m.leaveRoute("b", "10.1.1.77/24")
		m.kernel.DelRoutes("10.1.1.2/32")
		m.after(time.Minute + time.Second)
		m.wantAnnounced(ours...)
		m.leaveRoute("b", "10.1.1.77/24")
		m.wantAnnounced(append(ours, "10.1.1.77/32 ens2")...)
		m.stop()
		m.kernel.DelRoutes("fd00:1::2/128")
		m.start(m.store)
		m.after(time.Second)
		m.wantAnnounced(ours...)
		if n := m.counted("routes_repaired"); n != 1 {
			t.Errorf("%d repairs, want 1", n)
		}
		if all, err := m.kernel.Routes(0); err != nil || len(all) != len(ours)+len(others)+1 { // nic has one
			t.Errorf("routes %v, %v", all, err)
		}
		index := m.kernel.Link("ens2").Index
		m.must(m.kernel.SetLink(index, hw.LinkUp, hw.Link{})) // the kernel drops the routes, and BIRD withdraws them
		m.after(2 * time.Minute)
		m.wantAnnounced()
		m.must(m.kernel.SetLink(index, hw.LinkUp, hw.Link{Up: true}))
		m.after(time.Second)
		m.wantAnnounced(ours...)
	})
}

// leaveRoute starts and ends a container whose route cannot be removed then.
func (m *machine) leaveRoute(container, address string) {
	m.t.Helper()
	m.runAt(container, "n", address)
	m.kernel.OnCall(func(_ int, what string) error {
		if strings.HasPrefix(what, "remove route") {
			return hw.ErrBusy
		}
		return nil
	})
	m.end(container)
	m.kernel.OnCall(nil)
}

// TestAnnouncedByLostLedger: a plugin that has lost its ledger leaves the routes of containers that still run, and its log says what to do.
// A container that is started again at such an address has the route, and it goes with that container.
func TestAnnouncedByLostLedger(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.routed("n", "ens2")
		m.runAt("a", "n", "10.1.1.2/24")
		m.runAt("b", "n", "10.1.1.3/24")
		m.store = store.NewMemory()
		logged := m.logTo(zapcore.WarnLevel)
		m.after(3 * time.Minute)
		m.wantAnnounced("10.1.1.2/32 ens2", "10.1.1.3/32 ens2")
		const warning = "the route to 10.1.1.2/32 is of no container that the ledger has, and stays; if there is none: ip route del 10.1.1.2/32 table 117"
		if !slices.ContainsFunc(logged.All(), func(e observer.LoggedEntry) bool {
			err, _ := e.ContextMap()["err"].(string)
			return strings.Contains(err, warning)
		}) {
			t.Errorf("the log has no warning: %v", logged.All())
		}
		m.kernel.KillNS("a", 0)
		delete(m.where, "a")
		m.routed("n", "ens2")
		m.runAt("a", "n", "10.1.1.2/24")
		m.end("a")
		m.wantAnnounced("10.1.1.3/32 ens2")
		m.kernel.KillNS("b", 0)
		delete(m.where, "b")
		m.kernel.DelRoutes("10.1.1.3/32")
	})
}

// TestAnnouncedOfForgotten: the routes of a container that the engine has forgotten go with its endpoint.
func TestAnnouncedOfForgotten(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.routed("n", "ens2")
		m.mustRun("a", "n")
		m.kernel.KillNS("a", 0)
		m.stop()
		m.start(m.store)
		m.after(30 * time.Minute)
		m.mustRemove("n")
		m.wantAnnounced()
		m.wantKeys()
	})
}

// TestAnnouncedWithoutIPv6: a container starts on a device that has no IPv6; its IPv4 address is announced.
func TestAnnouncedWithoutIPv6(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.routed("n", "ens2")
		m.kernel.OnCall(func(_ int, what string) error {
			if strings.HasPrefix(what, "add route fd00") {
				return hw.FromErrno(syscall.EACCES)
			}
			return nil
		})
		m.runAt("a", "n", "10.1.1.2/24", "fd00:1::2/64")
		m.wantAnnounced("10.1.1.2/32 ens2")
		m.kernel.OnCall(nil)
		m.after(time.Minute + time.Second)
		m.wantAnnounced("10.1.1.2/32 ens2", "fd00:1::2/128 ens2")
		m.end("a")
	})
}

// TestAnnouncedTwice: a destination can be announced for one device only; for the other the container does not start.
func TestAnnouncedTwice(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.kernel.AddVeth("tap0", "tap1")
		m.must(m.kernel.SetLink(m.kernel.Link("tap0").Index, hw.LinkUp, hw.Link{Up: true}))
		m.routed("n", "ens2")
		m.routed("other", "tap0")
		m.routed("quiet", "tap0", "announce=none")
		m.runAt("a", "n", "10.1.1.2/24")
		_, _, err := m.attach("b", "other", both("10.1.1.2/24"))
		wantError(t, err, "ipvlan on tap0: 10.1.1.2/32 is announced for another device already; use another address or subnet, or announce=none "+
			"for one of the networks")
		m.must(m.deleteFrom("b", "other"))
		m.runAt("c", "quiet", "10.1.1.2/24")
		m.wantAnnounced("10.1.1.2/32 ens2")
		m.kernel.AddRoutes("ens2", hw.Route{Dst: "10.1.1.5/32", Scope: 253, Table: hw.AnnounceTable, Protocol: 4})
		_, _, err = m.attach("d", "n", both("10.1.1.5/24"))
		wantError(t, err, "ens2: announce 10.1.1.5/32: another program has a route to it in table 117: file already exists")
		m.kernel.OnCall(func(_ int, what string) error {
			if strings.HasPrefix(what, "remove route") {
				return hw.ErrBusy
			}
			return nil
		})
		m.end("a") // a route that cannot be removed now is removed later
		m.wantAnnounced("10.1.1.2/32 ens2")
		m.kernel.OnCall(nil)
		m.after(2 * time.Minute)
		m.wantAnnounced()
	})
}
