package netdrv_test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// refuse has the kernel refuse the calls that begin with prefix.
func (m *machine) refuse(prefix string, err error) {
	m.kernel.OnCall(func(_ int, what string) error {
		if strings.HasPrefix(what, prefix) {
			return err
		}
		return nil
	})
}

// has reports whether the state of the host has a line with a text.
func (m *machine) has(text string) bool { return strings.Contains(m.kernel.String(), text) }

// TestRouteThatIsRefused: a device whose route the kernel refuses is free at once. It is not set down, and what an administrator adds
// afterwards stays.
func TestRouteThatIsRefused(t *testing.T) {
	t.Parallel()
	for name, returns := range map[string]func(m *machine){
		"stopped": func(m *machine) { m.end("a") },
		"late": func(m *machine) {
			m.leave("a")
			m.kernel.KillNS("a", time.Minute)
			m.delete("a")
			m.after(time.Minute + time.Second)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				nic(m)
				m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
				m.mustRun("a", "n")
				m.refuse("add route 198.51.100.0/24", syscall.ENETUNREACH)
				returns(m)
				m.wantKeys("net/n")
				m.kernel.AddAddrs("ens2", "2001:db8:77::1/64")
				m.kernel.AddRoutes("ens2", hw.Route{Dst: "203.0.113.0/24", Gateway: "192.0.2.1", Table: 254, Protocol: 4})
				m.after(48 * time.Hour)
				if n := m.kernel.Downs("ens2"); n > 0 {
					t.Errorf("set down %d times", n)
				}
				for _, want := range []string{"192.0.2.10/24", "2001:db8::10/64", "2001:db8:77::1/64", "Dst:203.0.113.0/24"} {
					if !m.has(want) {
						t.Errorf("%s is missing:\n%s", want, m.kernel)
					}
				}
				if n := m.counted("devices_quarantined"); n > 0 {
					t.Errorf("quarantined %d times", n)
				}
			})
		})
	}
}

// TestBridgeThatIsGone: a port whose bridge was removed meanwhile comes home without it.
func TestBridgeThatIsGone(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		bridge := m.kernel.AddLink(hw.Link{Name: "br0", Kind: "bridge", Up: true})
		m.must(m.kernel.SetLink(m.kernel.Link("ens2").Index, hw.LinkMaster, hw.Link{Master: bridge}))
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "force=yes")
		m.mustRun("a", "n")
		m.kernel.DelLink("br0")
		m.end("a")
		m.wantKeys("net/n")
		if !m.kernel.Link("ens2").Up || !m.has("192.0.2.10/24") {
			t.Errorf("the host is %s", m.kernel)
		}
	})
}

// TestDriversThatChangeNothingWhileUp: a device that something has set up before it is restored is set down once, if its driver demands
// that for what differs, and is up afterwards.
func TestDriversThatChangeNothingWhileUp(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stubborn bool
		downs    int
	}{"as it is": {false, 0}, "only while it is down": {true, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				nic(m)
				m.kernel.NoLiveRename, m.kernel.NoLiveMAC = c.stubborn, c.stubborn
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
				m.mustRun("a", "n")
				downs := m.kernel.DownsOf("a", "eth0") // for the name under which it is handed over
				m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{}, hw.LinkUp))
				m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{MAC: "02:66:66:66:66:66"}, hw.LinkMAC))
				m.leave("a")
				m.kernel.KillNS("a", 0)
				m.after(0)
				m.must(m.kernel.SetLink(m.kernel.Link("eth0").Index, hw.LinkUp, hw.Link{Up: true})) // as NetworkManager does
				m.delete("a")
				m.settled()
				m.wantHost(before)
				if n := m.kernel.Downs("ens2") - downs; n != c.downs {
					t.Errorf("set down %d times, want %d", n, c.downs)
				}
			})
		})
	}
}

// TestChangesOfOtherLinks: a device that cannot be restored is tried at its times, whatever else links do.
func TestChangesOfOtherLinks(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		nic(m)
		m.kernel.AddVeth("tap0", "tap1")
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
		m.mustRun("a", "n")
		m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{MTU: 9000}, hw.LinkMTU))
		tries := 0
		m.kernel.OnCall(func(_ int, what string) error {
			if what == "set ens2: set mtu 1500" {
				tries++
				return hw.ErrBusy
			}
			return nil
		})
		m.end("a")
		other := m.kernel.Link("tap0").Index
		for range 400 { // a minute
			m.after(150 * time.Millisecond)
			m.must(m.kernel.SetLink(other, hw.LinkPromisc, hw.Link{Promisc: true}))
		}
		if tries > 12 {
			t.Errorf("tried %d times in a minute", tries)
		}
		if n := m.counted("devices_quarantined"); n != 1 {
			t.Errorf("quarantined %d times", n)
		}
		m.must(m.kernel.SetLink(m.kernel.Link("ens2").Index, hw.LinkUp, hw.Link{Up: true})) // as its administrator does
		m.after(48 * time.Hour)
		if n := m.kernel.Downs("ens2"); n > 1 {
			t.Errorf("set down %d times", n)
		}
	})
}

// TestPortOfBondKeepsItsMAC: a port of a bond has its own MAC again when the bond lets it go, also after it was in a container.
func TestPortOfBondKeepsItsMAC(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(ens2())
		m.kernel.AddPF(hwtest.PF{Name: "ens3", PCI: "0000:03:00.0", MAC: "52:54:00:cc:00:00", Driver: "e1000e"})
		bond := m.kernel.AddLink(hw.Link{Name: "bond0", Kind: "bond", MAC: "52:54:00:cc:00:00"})
		port := m.kernel.Link("ens2").Index
		m.must(m.kernel.SetLink(port, hw.LinkUp, hw.Link{}))
		for _, port := range []int{m.kernel.Link("ens3").Index, port} {
			m.must(m.kernel.SetLink(port, hw.LinkMaster, hw.Link{Master: bond}))
		}
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "force=yes")
		m.mustRun("a", "n")
		m.end("a")
		m.settled()
		m.wantHost(before)
		m.must(m.kernel.SetLink(m.kernel.Link("ens2").Index, hw.LinkMaster, hw.Link{}))
		if mac := m.kernel.Link("ens2").MAC; mac != "52:54:00:bb:00:00" {
			t.Errorf("its mac is %s outside of the bond", mac)
		}
	})
}

// TestLeaseGoesOn: the lease of an address goes on while its device is in a container. One that has expired does not come back, nor do
// routes with that source.
func TestLeaseGoesOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		away time.Duration
		want string
	}{
		"expired":       {2 * time.Hour, "192.0.2.10/24"},
		"still valid":   {20 * time.Minute, "192.0.2.10/24 192.0.2.50/24 valid 2400 preferred 1200 source"},
		"not preferred": {50 * time.Minute, "192.0.2.10/24 192.0.2.50/24 valid 600 preferred -1 source"},
		"at once":       {0, "192.0.2.10/24 192.0.2.50/24 valid 3600 preferred 2400 source"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				m.kernel.AddPF(ens2())
				m.kernel.AddAddrs("ens2", "192.0.2.10/24")
				index := m.kernel.Link("ens2").Index
				m.must(m.kernel.AddAddr(index, hw.Addr{CIDR: "192.0.2.50/24", ValidSec: 3600, PrefSec: 2400}))
				m.kernel.AddRoutes("ens2", hw.Route{Dst: "203.0.113.0/24", Gateway: "192.0.2.1", Src: "192.0.2.50"})
				m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
				m.mustRun("a", "n")
				m.restart() // the process that takes it back is another
				m.after(c.away)
				m.end("a")
				m.wantKeys("net/n")
				var got []string
				addrs, err := m.kernel.Addrs(index)
				m.must(err)
				for _, a := range addrs {
					got = append(got, a.CIDR)
					if a.ValidSec > 0 {
						got = append(got, fmt.Sprintf("valid %d preferred %d", a.ValidSec, a.PrefSec))
					}
				}
				routes, err := m.kernel.Routes(index)
				m.must(err)
				for range routes {
					got = append(got, "source")
				}
				if got := strings.Join(got, " "); got != c.want {
					t.Errorf("the host has %s, want %s", got, c.want)
				}
			})
		})
	}
}

// configured adds a NIC with one thing of each kind that an administrator can configure on it.
func configured(m *machine) {
	m.kernel.AddPF(ens2())
	bridge := m.kernel.AddLink(hw.Link{Name: "br0", Kind: "bridge", Up: true})
	index := m.kernel.Link("ens2").Index
	m.must(m.kernel.SetLink(index, hw.LinkMaster, hw.Link{Master: bridge}))
	m.must(m.kernel.AddAddr(index, hw.Addr{CIDR: "192.0.2.10/24", Flags: 0x200})) // noprefixroute, as NetworkManager
	m.kernel.AddRoutes("ens2", hw.Route{Dst: "192.0.2.0/24", Src: "192.0.2.10", Protocol: 2, Metric: 100},
		hw.Route{Dst: "0.0.0.0/0", Gateway: "192.0.2.1", Metric: 100})
	m.kernel.Configure("ens2", hw.Entry{Kind: hw.EntryBridgePort, Text: "pvid 100, isolated"},
		hw.Entry{Kind: hw.EntryFDB, Text: "fdb entry 02:00:00:00:00:99"}, hw.Entry{Kind: hw.EntryQdisc, Text: "qdisc pfifo 8001:"},
		hw.Entry{Kind: hw.EntryNeighbour, Text: "neighbour 192.0.2.77"})
	m.kernel.WriteSysctl("ens2", "net.ipv4.conf.*.rp_filter", "2")
}

// TestEverythingComesBack: what an administrator has configured on a device is there again, whatever it is.
func TestEverythingComesBack(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		configured(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens2", "mode=passthrough", "force=yes")
		m.mustRun("a", "n")
		m.end("a")
		m.settled()
		m.wantHost(before)
	})
}

// TestSysctlsComeBack: sysctls that a device had of its own are there again, as far as they can be written; network create warns of the
// others, and of filters.
func TestSysctlsComeBack(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		writable bool
		lost     []string
		after    string // accept_ra
	}{
		"in a container": {false, []string{"filters of qdisc clsact ffff:",
			"net.ipv6.conf.ens2.accept_ra = 0 (will be 1: read-only file system)"}, "1"},
		"on the host": {true, []string{"filters of qdisc clsact ffff:"}, "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				m.kernel.ProcSys = c.writable
				m.kernel.AddPF(ens2())
				own := map[string]string{"net.ipv4.conf.*.rp_filter": "2", "net.ipv6.neigh.*.gc_stale_time": "90",
					"net.ipv6.conf.*.addr_gen_mode": "1", "net.ipv6.conf.*.accept_ra": "0"}
				for sysctl, value := range own {
					m.kernel.WriteSysctl("ens2", sysctl, value)
				}
				m.kernel.AddFilter("ens2", "filters of qdisc clsact ffff:")
				host, err := hw.Open(hw.Config{Sys: m.kernel.Sys, Kernel: m.kernel, Boot: m.boot, Booted: m.booted})
				m.must(err)
				n, err := host.Netdev("ens2")
				m.must(err)
				lost, err := host.NotRestored(n)
				if diff := cmp.Diff(c.lost, lost); err != nil || diff != "" {
					t.Errorf("lost (%v): %s", err, diff)
				}
				m.mustCreate("n", "netdevice=ens2", "mode=passthrough")
				m.mustRun("a", "n")
				m.end("a")
				m.wantKeys("net/n")
				now, err := m.kernel.Sysctls(n.Index)
				m.must(err)
				own["net.ipv6.conf.*.accept_ra"] = c.after
				for sysctl, value := range own {
					if now[sysctl] != value {
						t.Errorf("%s is %s, want %s", sysctl, now[sysctl], value)
					}
				}
			})
		})
	}
}
