package netdrv_test

import (
	"strings"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
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
		const vlan = "option vlan: ens1f0 (0000:01:00.0) is in switchdev mode, in which the nic tags nothing for its vfs: that is done where the vf's " +
			"representor is a port; leave vlan out"
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
