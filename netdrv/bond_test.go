package netdrv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// bond adds a bond of two NICs to the host, with an address.
func bond(m *machine, up bool) {
	m.kernel.AddPF(hwtest.PF{Name: "ens3", PCI: "0000:03:00.0"})
	m.kernel.AddPF(hwtest.PF{Name: "ens4", PCI: "0000:04:00.0"})
	index := m.kernel.AddLink(hw.Link{Name: "bond0", Kind: hw.Bond, Alias: "mine"})
	for _, port := range []string{"ens3", "ens4"} {
		m.must(m.kernel.SetLink(m.kernel.Link(port).Index, hw.LinkMaster, hw.Link{Master: index}))
	}
	m.must(m.kernel.SetLink(index, hw.LinkUp, hw.Link{Up: up}))
	m.kernel.AddAddrs("bond0", "192.0.2.30/24")
	if up {
		m.kernel.AddRoutes("bond0", hw.Route{Dst: "198.51.100.0/24", Gateway: "192.0.2.1", Table: 254, Protocol: 4})
	}
}

// TestBond: a bond stays in the host while a macvlan with its MAC is in the container. It is as before afterwards, whatever the container did
// and however it ended.
func TestBond(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(m *machine){
		"stopped": func(m *machine) { m.end("a") },
		"killed with the engine": func(m *machine) {
			m.leave("a")
			m.kernel.KillNS("a", time.Second) // the next container does not wait for the end of the namespace
			m.delete("a")
		},
	} {
		for _, mac := range []string{"", "02:00:00:00:00:42"} {
			t.Run(name+" "+mac, func(t *testing.T) {
				story(t, func(m *machine) {
					bond(m, true)
					before := m.kernel.String()
					m.mustCreate("n", "netdevice=bond0", "mode=passthrough", "mtu=9000")
					was := m.kernel.Link("bond0")
					m.mustRun("a", "n", mac)
					want := was.MAC
					if mac != "" {
						want = hw.MAC(mac)
					}
					if l := m.kernel.InNS("a").Links()[0]; l.Kind != hw.Macvlan || l.MAC != want || !l.Carrier || l.MTU != 9000 {
						t.Errorf("in the container: %+v, want mac %s", l, want)
					}
					if l := m.kernel.Link("bond0"); l.MAC != want || !l.Up {
						t.Errorf("in the host: %+v", l)
					}
					_, _, err := m.run("b", "n")
					wantError(t, err, "bond0 is held by endpoint a-endpoint-0 ("+ipOf("a")+") of network n; "+
						"a device that is handed over whole serves one container at a time")
					for _, mode := range []string{"passthrough", "macvlan"} {
						if err := m.create("x", "netdevice=bond0", "mode="+mode); err == nil ||
							!strings.Contains(err.Error(), "by network n") {
							t.Errorf("mode=%s: %v", mode, err)
						}
					}
					other := hw.MAC("02:66:66:66:66:66")
					m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{MAC: other}, hw.LinkMAC))
					m.restart()
					end(m)
					m.mustRun("b", "n")
					m.end("b")
					m.settled()
					m.wantHost(before)
					m.mustRemove("n")
					m.wantHost(before)
					m.wantKeys()
				})
			})
		}
	}
}

// TestBondKept: a bond over which the host is managed is refused, and so is one with a port that a container has.
func TestBondKept(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		bond(m, true)
		m.kernel.Connect("192.0.2.30:22")
		wantError(t, m.create("n", "netdevice=bond0", "mode=passthrough"), "option netdevice: bond0 carries a tcp session "+
			"(to 192.0.2.30:22 on bond0); the host would lose that; if that is meant, say force=yes")
		m.mustCreate("n", "netdevice=bond0", "mode=passthrough", "force=yes")
	})
	story(t, func(m *machine) { // the host has created a child of it
		bond(m, true)
		m.mustCreate("other", "netdevice=bond0", "mode=passthrough")
		m.kernel.AddLink(hw.Link{Name: "mv0", Kind: hw.Macvlan, Peer: m.kernel.Link("bond0").Index})
		before := m.kernel.String()
		_, _, err := m.run("a", "other")
		wantError(t, err, "bond0 carries mv0 (macvlan); the host would lose that; if that is meant, say force=yes")
		m.mustRemove("other")
		m.mustCreate("n", "netdevice=bond0", "mode=passthrough", "force=yes")
		_, _, err = m.run("a", "n")
		wantError(t, err, "bond0: make a child (macvlan, passthru): invalid argument; "+
			"a macvlan in mode passthru is the only one on its device, and there is another")
		m.settled()
		m.wantHost(before)
		m.wantKeys("net/n")
	})
}

// TestBondGone: the host removes the bond while a container uses it, or the machine is rebooted. There is nothing to restore.
func TestBondGone(t *testing.T) {
	t.Parallel()
	for name, go_ := range map[string]func(m *machine){
		"removed": func(m *machine) { m.kernel.DelLink("bond0") },
		"reboot":  func(m *machine) { m.kernel.KillNS("a", 0); m.boot = "boot-2" },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				bond(m, true)
				m.mustCreate("n", "netdevice=bond0", "mode=passthrough")
				m.mustRun("a", "n")
				go_(m)
				m.restart()
				m.leave("a")
				m.delete("a")
				m.settled()
				m.wantKeys("net/n")
				m.mustRemove("n")
				m.wantKeys()
			})
		})
	}
}
