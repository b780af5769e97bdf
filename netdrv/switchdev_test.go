package netdrv_test

import (
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// switchdev returns a PF in switchdev mode, as mlx5 presents it.
func switchdev() hwtest.PF {
	pf := igb()
	pf.Behaviour, pf.Driver, pf.VFDriver, pf.PortName, pf.Switchdev, pf.Up = hwtest.MLX5(), "mlx5_core", "mlx5_core", "p0", true, true
	return pf
}

// representors are the VFs' ports of switchdev.
const rep0, rep1 = "ens1f0npf0vf0", "ens1f0npf0vf1"

// TestRepresentorFollowsVF: the representor of a container's VF is up while the container has the VF, and named in the status. One that was up
// before stays up. A NIC of either driver, VFs that were there, and VFs of the plugin's.
func TestRepresentorFollowsVF(t *testing.T) {
	t.Parallel()
	for name, pf := range map[string]hwtest.PF{"mlx5": switchdev(), "ice": switchdev()} {
		if name == "ice" {
			pf.Behaviour, pf.Driver, pf.VFDriver = hwtest.ICE(), "ice", "iavf"
		}
		t.Run(name, func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddPF(pf)
				before := m.kernel.String()
				m.mustCreate("n", "netdevice=ens1f0", "numvfs=2")
				m.must(m.kernel.SetLink(m.kernel.Link(rep1).Index, hw.LinkUp, hw.Link{Up: true}))
				for range 2 {
					m.mustRun("a", "n", "02:00:00:00:00:42")
					m.mustRun("b", "n")
					m.settled()
					for _, c := range []string{"a", "b"} {
						if l := m.kernel.InNS(c).Links()[0]; !l.Carrier {
							t.Errorf("in container %s: %+v", c, l)
						}
					}
					if states := m.vfStates("ens1f0"); states[0].MAC != "02:00:00:00:00:42" {
						t.Errorf("vfs are %+v", states)
					}
					status, err := m.driver.Status(m.ctx, &admin.StatusRequest{})
					m.must(err)
					if d := status.Devices; len(d) != 2 || d[0].Representor != rep0 || d[1].Representor != rep1 {
						t.Errorf("status has %+v", d)
					}
					m.restart()
					m.settled()
					m.end("a")
					m.end("b")
					m.settled()
					if m.kernel.Link(rep0).Up || !m.kernel.Link(rep1).Up {
						t.Errorf("afterwards: %+v %+v", m.kernel.Link(rep0), m.kernel.Link(rep1))
					}
				}
				m.mustRemove("n")
				m.settled()
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestSwitchdevRefuses: what a PF in switchdev mode does not do for its VFs is refused when the network is created, or for the container that
// asks for it; so is a VF whose representor is in another namespace.
func TestSwitchdevRefuses(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pf := switchdev()
		pf.VFs = 2
		m.kernel.AddPF(pf)
		m.settled()
		before := m.kernel.String()
		const vlan = "option vlan: ens1f0 (0000:01:00.0) is in switchdev mode, in which the nic tags nothing for its vfs; give bridge=NAME as well, or leave " +
			"vlan out and have Open vSwitch tag what comes from the representor"
		wantError(t, m.create("n", "netdevice=ens1f0", "vlan=5"), vlan)
		wantError(t, m.createHosted("n", "netdevice=ens1f0"), "option host_access: ens1f0 (0000:01:00.0) is in switchdev mode, in which its netdev is the "+
			"nic's uplink and does not reach the vfs; reach containers through a bridge that has the representors of their vfs")
		for _, option := range []string{"trust", "spoofchk"} {
			if err := m.create("n", "netdevice=ens1f0", option+"=yes"); err == nil || !strings.HasPrefix(err.Error(), "option "+option+": ") {
				t.Errorf("%s: %v", option, err)
			}
		}
		m.mustCreate("n", "netdevice=ens1f0")
		wantError(t, m.runWith("a", "n", map[string]any{"vlan": "5"}), vlan)
		m.must(m.kernel.MoveToNS("elsewhere", rep0, "eth0"))
		wantError(t, m.runWith("a", "n", map[string]any{"vf": "0"}), "vf 0 of ens1f0 (0000:01:00.0): its representor is not in the host")
		m.must(m.kernel.MoveHome("elsewhere", "eth0", rep0))
		m.kernel.KillNS("elsewhere", 0)
		m.mustRemove("n")
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestRepresentorOfProgram: the representor of a VF that a program drives is up meanwhile, too.
func TestRepresentorOfProgram(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pf := switchdev()
		pf.Behaviour, pf.Driver, pf.VFDriver = hwtest.ICE(), "ice", "iavf"
		m.kernel.AddPF(pf)
		m.kernel.LoadDriver("vfio-pci")
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2", "driver=vfio-pci")
		m.startProgram("a")
		if !m.kernel.Link(rep0).Up {
			t.Errorf("%+v", m.kernel.Link(rep0))
		}
		m.must(m.deleteFrom("a", "n"))
		m.settled()
		if m.kernel.Link(rep0).Up {
			t.Errorf("afterwards %+v", m.kernel.Link(rep0))
		}
		m.mustRemove("n")
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// filteringBridge adds a bridge that filters VLANs.
func filteringBridge(m *machine, name string) {
	m.t.Helper()
	m.kernel.AddLink(hw.Link{Name: name, Kind: "bridge", Up: true})
	m.must(m.kernel.WriteAttr("class/net/"+name+"/bridge/vlan_filtering", "1"))
}

// switched adds a PF in switchdev mode that has two VFs, and the bridge br0, which filters VLANs.
func switched(m *machine) {
	pf := switchdev()
	pf.VFs = 2
	m.kernel.AddPF(pf)
	filteringBridge(m, "br0")
	m.settled()
}

// portOf returns what the representor of a VF is a port of, and its VLANs.
func (m *machine) portOf(name string) string {
	m.t.Helper()
	l := m.kernel.Link(name)
	if l.Master == 0 {
		return "none"
	}
	master, err := m.kernel.LinkAt(l.Master)
	m.must(err)
	vlans, err := m.kernel.PortVLANs(l.Index)
	m.must(err)
	return master.Name + ": " + vlans.String()
}

// TestRepresentorInBridge: while a container has a VF, its representor is a port of the network's bridge, in the VLANs of the network or of the
// container. One that an administrator has moved to another bridge meanwhile stays there.
func TestRepresentorInBridge(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		switched(m)
		logged := m.logTo(zapcore.InfoLevel)
		before := m.kernel.String()
		for options, want := range map[string]string{
			"":                           "br0: 1 untagged",
			"vlan=0":                     "br0: 1 untagged",
			"vlan=100":                   "br0: 100 untagged",
			"vlan=100 trunk=200-202,300": "br0: 100 untagged, 200-202, 300",
			"trunk=7":                    "br0: 7",
		} {
			m.mustCreate("n", append([]string{"netdevice=ens1f0", "bridge=br0"}, strings.Fields(options)...)...)
			m.mustRun("a", "n")
			m.settled()
			if got := m.portOf(rep0); got != want || !m.kernel.Link(rep0).Up {
				t.Errorf("%s: %s, want %s", options, got, want)
			}
			if l := m.kernel.InNS("a").Links()[0]; !l.Carrier {
				t.Errorf("%s: in the container: %+v", options, l)
			}
			m.restart()
			m.end("a")
			m.settled()
			if got := m.portOf(rep0); got != "none" {
				t.Errorf("%s: afterwards %s", options, got)
			}
			m.mustRemove("n")
		}
		m.wantHost(before)
		if attached := logged.FilterMessage("attached").All(); len(attached) != 5 || attached[0].ContextMap()["representor"] != rep0 {
			t.Errorf("log: %v", attached)
		}
		page := docs.Commands(t, "../docs/switchdev.md", "A bridge")
		m.mustCreate("n", optionsIn(strings.ReplaceAll(page[len(page)-1], "ens1f0np0", "ens1f0"))...)
		m.must(m.runWith("b", "n", map[string]any{"vlan": "101"}))
		if got := m.portOf(rep0); got != "br0: 101 untagged, 200-202" {
			t.Errorf("of a container: %s", got)
		}
		filteringBridge(m, "br1")
		m.must(m.kernel.SetLink(m.kernel.Link(rep0).Index, hw.LinkMaster, hw.Link{Master: m.kernel.Link("br1").Index}))
		m.end("b")
		m.settled()
		if got := m.portOf(rep0); got != "br1: 1 untagged" {
			t.Errorf("moved by an administrator: %s", got)
		}
		m.mustRun("c", "n")
		if got := m.portOf(rep1); got != "br0: 100 untagged, 200-202" {
			t.Errorf("beside that: %s", got)
		}
		_, _, err := m.run("d", "n")
		if want := "vf 0 of ens1f0 (0000:01:10.0) has the representor " + rep0 + ", which the host has made a port of br1"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error is %v, want one with %s", err, want)
		}
		m.end("c")
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestBridgeRefused: what cannot be a network with a bridge is refused when it is created, with the reason.
func TestBridgeRefused(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		switched(m)
		m.kernel.AddLink(hw.Link{Name: "br2", Kind: "bridge"})
		m.kernel.AddLink(hw.Link{Name: "br-int", Kind: "openvswitch"})
		legacy := igb()
		legacy.Name, legacy.PCI, legacy.MAC = "ens2f0", "0000:02:00.0", ""
		m.kernel.AddPF(legacy)
		for options, want := range map[string]string{
			"netdevice=ens2f0 bridge=br0": "option bridge: ens2f0 (0000:02:00.0) is in legacy mode, in which its vfs have no ports on the host; leave bridge out, or " +
				"change that with: devlink dev eswitch set pci/0000:02:00.0 mode switchdev",
			"bridge=br9": "option bridge: br9: no such device",
			"bridge=lo":  "option bridge: lo: it is no bridge",
			"bridge=br2 vlan=5": "option bridge: bridge br2 does not filter vlans, so its ports have none; change that with: " +
				"ip link set br2 type bridge vlan_filtering 1",
			"bridge=br-int": "option bridge: br-int: it is of Open vSwitch, whose ports are made with its own tools",
			"bridge=ovs:br-int": "option bridge: the plugin does not talk to Open vSwitch; leave bridge out, and add the representors that passthroughctl vfs names " +
				"once, with ovs-vsctl add-port br-int REPRESENTOR: they stay its ports while containers come and go",
			"trunk=5": "option trunk: ens1f0 (0000:01:00.0) is in switchdev mode, in which the nic tags nothing for its vfs; give bridge=NAME as well, or leave trunk " +
				"out and have Open vSwitch tag what comes from the representor",
			"bridge=br0 vlan=keep":                 "option vlan: keep is not for bridge: the port of a bridge has the vlans that the network says",
			"bridge=br0 vlan=5 vlan_qos=3":         "option vlan_qos: not with bridge, whose ports set no priority",
			"bridge=br0 vlan=5 trunk=4-6":          "option trunk: vlan 5 is the one of vlan=5, which the container has untagged; leave it out of one of them",
			"bridge=br0 vlan=5 vlan_proto=802.1ad": "option vlan_proto: not with bridge, which has one protocol for all its ports",
		} {
			all := strings.Fields(options)
			if !strings.HasPrefix(options, "netdevice=") {
				all = append(all, "netdevice=ens1f0")
			}
			if err := m.create("n", all...); err == nil || err.Error() != want {
				t.Errorf("%s:\n  %v\nwant\n  %s", options, err, want)
			}
		}
		m.must(m.create("n", "netdevice=ens1f0", "bridge=br2"))
		m.mustRemove("n")
		m.wantKeys()
	})
}
