package netdrv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
)

// asked is an option for a VF, and whether a make of NIC supports it.
func asked(pf hwtest.PF) map[string]bool {
	return map[string]bool{
		"vlan=100": pf.VFOps, "spoofchk=off": pf.VFOps, "trust=on": pf.VFOps, "max_tx_rate=1000": pf.VFOps,
		"vlan_qos=3": pf.VFOps && pf.VLANQoS, "min_tx_rate=100": pf.MinRate, "link_state=enable": pf.LinkState,
		"vlan_proto=802.1ad": pf.Dot1AD,
	}
}

// TestMakes attaches and releases a VF of each make of NIC: what its driver supports is set, and restored afterwards.
func TestMakes(t *testing.T) {
	for _, make := range hwtest.Makes(t) {
		t.Run(make.Name, func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddPF(make.PF)
				before := m.kernel.String()
				options := []string{"netdevice=ens1f0", "numvfs=4", "mtu=1400"}
				want := hw.VFState{}
				for o, done := range asked(make.PF) {
					if done {
						options = append(options, o)
					}
				}
				if done := asked(make.PF); done["vlan=100"] {
					want = hw.VFState{MAC: "02:00:00:00:00:42", VLAN: hw.VLAN{ID: 100}, Trust: true, Rate: hw.Rate{Max: 1000}}
					if done["vlan_qos=3"] {
						want.VLAN.QoS = 3
					}
					if done["min_tx_rate=100"] {
						want.Rate.Min = 100
					}
					if done["link_state=enable"] {
						want.LinkMode = hw.LinkEnable
					}
				}
				m.mustCreate("n", options...)
				shared := m.kernel.String()
				for range 2 {
					_, mac := m.mustRun("a", "n", "02:00:00:00:00:42")
					if l := m.kernel.InNS("a").Links()[0]; mac != "02:00:00:00:00:42" || l.MAC != "02:00:00:00:00:42" || l.MTU != 1400 || !l.Carrier {
						t.Errorf("answered %s, in the container: %+v", mac, l)
					}
					states := m.vfStates("ens1f0")
					if len(states) > 0 && states[0] != want || len(states) == 0 && want != (hw.VFState{}) {
						t.Errorf("vfs are %+v, want the first to be %+v", states, want)
					}
					m.end("a")
				}
				if states, _ := m.kernel.VFs(m.kernel.Link("ens1f0").Index); len(states) > 0 && states[0] == want {
					t.Errorf("still set: %+v; it was\n%s", states[0], shared)
				}
				m.mustRemove("n")
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// makeThat returns the first make of which is returns true.
func makeThat(t *testing.T, is func(hwtest.PF) bool) hwtest.PF {
	t.Helper()
	for _, make := range hwtest.Makes(t) {
		if is(make.PF) {
			return make.PF
		}
	}
	t.Fatal("there is no such make")
	return hwtest.PF{}
}

// TestMakesRefuse: the error about what a make does not support names the driver. The VF is restored then.
func TestMakesRefuse(t *testing.T) {
	for _, make := range hwtest.Makes(t) {
		for option, done := range asked(make.PF) {
			if done {
				continue
			}
			t.Run(make.Name+"/"+option, func(t *testing.T) {
				story(t, func(m *machine) {
					pf := make.PF
					pf.Up, pf.VFs = true, 2
					m.kernel.AddPF(pf)
					m.settled()
					before := m.kernel.String()
					options := []string{"netdevice=ens1f0", option}
					if strings.HasPrefix(option, "vlan_") {
						options = append(options, "vlan=100")
					}
					err := m.create("n", options...)
					if err == nil {
						_, _, err = m.run("a", "n")
						m.mustRemove("n")
					}
					pfDriver := m.kernel.Driver("0000:01:00.0")
					if err == nil || !strings.Contains(err.Error(), " of ens1f0 (") && !strings.Contains(err.Error(), "ens1f0 (0000:01:00.0)") ||
						!strings.Contains(err.Error(), pfDriver) {
						t.Errorf("error is %v, want one that names ens1f0 and %s", err, pfDriver)
					}
					m.settled()
					m.wantHost(before)
					m.wantKeys()
				})
			})
		}
	}
	story(t, func(m *machine) { // word for word
		m.kernel.AddPF(makeThat(t, func(pf hwtest.PF) bool { return pf.Virtio }))
		before := m.kernel.String()
		wantError(t, m.create("n", "netdevice=ens1f0", "vlan=100"),
			"ens1f0 (0000:01:00.0): set vlan: driver virtio-pci can set nothing for its vfs")
		m.wantHost(before)
	})
	story(t, func(m *machine) {
		m.kernel.AddPF(makeThat(t, func(pf hwtest.PF) bool { return pf.IgnoresLinkState }))
		wantError(t, m.create("n", "netdevice=ens1f0", "link_state=disable"),
			"ens1f0 (0000:01:00.0): set link_state disable: driver ixgbe does not support it; leave link_state out")
	})
	story(t, func(m *machine) { // a driver of which nothing is known: what it has done without reporting it is undone
		m.kernel.AddPF(unknownDriver(hwtest.IXGBE()))
		const why = "vf 0 of ens1f0 (0000:01:10.0): set link_state disable with enic: the device says auto"
		wantError(t, m.create("n", "netdevice=ens1f0", "link_state=disable"), "option link_state: "+why+"; leave it out, or use a nic that can")
		m.mustCreate("m", "netdevice=ens1f0")
		wantError(t, m.runWith("a", "m", map[string]any{"link_state": "disable"}), why)
		m.mustRun("b", "m")
		if l := m.kernel.InNS("b").Links()[0]; !l.Carrier {
			t.Errorf("its link is still off: %+v", l)
		}
		m.end("b")
	})
}

// makeStories are stories with containers on VFs that any NIC can play: nothing in them depends on what its driver supports. The PF has two
// VFs, which the plugin has not made, and they are as before afterwards.
var makeStories = map[string]func(m *machine){
	"a container changes its device": func(m *machine) {
		m.mustRun("a", "n")
		mtu, promisc, mac, alias := 1300, true, hw.MAC("02:66:66:66:66:66"), "mine now"
		m.must(m.kernel.InNS("a").SetLink("eth0", hw.Link{MTU: mtu, Promisc: promisc, Alias: alias}, hw.LinkMTU, hw.LinkPromisc, hw.LinkAlias))
		_ = m.kernel.InNS("a").SetLink("eth0", hw.Link{MAC: mac}, hw.LinkMAC) // not every make lets it
		m.end("a")
	},
	"a VF comes home late": func(m *machine) {
		m.mustRun("a", "n")
		m.leave("a")
		m.kernel.KillNS("a", 20*time.Second)
		m.delete("a")
	},
	"the process is restarted while a container runs": func(m *machine) {
		_, mac := m.mustRun("a", "n", "02:00:00:00:00:42")
		m.restart()
		m.settled()
		if l := m.kernel.InNS("a").Links(); len(l) != 1 || string(l[0].MAC) != mac || mac != "02:00:00:00:00:42" {
			m.t.Errorf("the container has %+v", l)
		}
		m.end("a")
	},
	"all VFs are in use": func(m *machine) {
		m.mustRun("a", "n")
		m.mustRun("b", "n")
		if _, _, err := m.run("c", "n"); err == nil || !strings.Contains(err.Error(), "ens1f0 (0000:01:00.0): all 2 vfs are in use: ") {
			m.t.Errorf("a third container: %v", err)
		}
		m.end("a")
		m.mustRun("c", "n")
		m.end("b")
		m.end("c")
	},
	"an administrator takes a VF out of use": func(m *machine) {
		m.mustRun("a", "n")
		free := ""
		for _, pci := range m.vfsOf("ens1f0") {
			if ns, _, _ := m.kernel.Netdev(pci); ns != "a" {
				free = pci
			}
		}
		operate := func(action string) {
			ctx, cancel := m.call()
			defer cancel()
			_, err := m.driver.Operate(ctx, &admin.DeviceRequest{Action: action, Device: free})
			m.must(err)
		}
		operate(admin.QuarantineDevice)
		if _, _, err := m.run("b", "n"); err == nil || !strings.Contains(err.Error(), "is quarantined: by an administrator") {
			m.t.Errorf("a container: %v", err)
		}
		operate(admin.RetryDevice)
		m.mustRun("b", "n")
		m.end("b")
		m.end("a")
	},
}

// vfsOf returns the PCI addresses of a PF's VFs.
func (m *machine) vfsOf(name string) (all []string) {
	m.t.Helper()
	host, err := hw.Open(hw.Config{Sys: m.kernel.Sys, Kernel: m.kernel, Boot: m.boot, Booted: m.booted})
	m.must(err)
	pf, err := host.PF(name)
	m.must(err)
	vfs, err := host.VFs(pf)
	m.must(err)
	for _, vf := range vfs {
		all = append(all, vf.PCI)
	}
	return all
}

// TestMakeStories plays the stories on each make of NIC, and on each that was recorded.
func TestMakeStories(t *testing.T) {
	t.Parallel()
	for _, make := range hwtest.Makes(t) {
		for name, play := range makeStories {
			t.Run(make.Name+"/"+name, func(t *testing.T) {
				story(t, func(m *machine) {
					pf := make.PF
					pf.Up, pf.VFs = true, 2
					m.kernel.AddPF(pf)
					m.settled()
					before := m.kernel.String()
					m.mustCreate("n", "netdevice=ens1f0")
					play(m)
					m.settled()
					m.mustRemove("n")
					m.settled()
					m.wantHost(before)
					m.wantKeys()
				})
			})
		}
	}
}

// unknownDriver is a PF whose driver the plugin knows nothing about.
func unknownDriver(b hwtest.Behaviour) hwtest.PF {
	pf := igb()
	pf.Up, pf.VFs, pf.Behaviour, pf.Driver, pf.VFDriver, pf.ProbeTakes, pf.VFCarrierAfter, pf.VFDriverAfter = true, 2, b, "enic", "enic", 0, 0, 0
	return pf
}
