package netdrv_test

import (
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// trunking adds a PF with two VFs whose driver is of the NIC's vendor, and has trunks. An administrator has set one for VF 0.
func trunking(form hwtest.TrunkForm) func(m *machine) {
	return func(m *machine) {
		pf := igb()
		pf.Behaviour, pf.Driver, pf.VFDriver = hwtest.I40E(), "i40e", "iavf"
		if form == hwtest.TrunkRange {
			pf.Behaviour, pf.Driver, pf.VFDriver = hwtest.MLX5(), "mlx5_core", "mlx5_core"
		}
		pf.Trunks, pf.Up, pf.VFs, pf.ResetForgets = form, true, 2, true
		m.kernel.AddPF(pf)
		m.settled()
		add := map[hwtest.TrunkForm]string{hwtest.TrunkList: "add 7,200", hwtest.TrunkRange: "add 7 7"}[form]
		m.must(m.kernel.WriteAttr("bus/pci/devices/0000:01:00.0/sriov/0/trunk", add))
	}
}

// TestTrunk: a VF has the trunk of its network, and afterwards the one that it had before. That of a network without the option is left alone.
func TestTrunk(t *testing.T) {
	t.Parallel()
	for form, want := range map[hwtest.TrunkForm]string{
		hwtest.TrunkList:  "100-102,300",
		hwtest.TrunkRange: "Allowed 802.1Q VLANs: 100 101 102 300",
	} {
		t.Run(string(form), func(t *testing.T) {
			story(t, func(m *machine) {
				trunking(form)(m)
				before := m.kernel.String()
				file := func() string {
					text, err := fs.ReadFile(m.kernel.Sys, "bus/pci/devices/0000:01:00.0/sriov/0/trunk")
					m.must(err)
					return strings.TrimSpace(string(text))
				}
				was := file()
				for options, want := range map[string]string{"trunk=300, 100-101,102": want, "mtu=1500": was} {
					m.mustCreate("n", "netdevice=ens1f0", options)
					for range 2 {
						m.mustRun("a", "n")
						if got := file(); got != want {
							t.Errorf("%s: it is %q, want %q", options, got, want)
						}
						m.restart()
						m.settled()
						m.end("a")
						m.settled()
						if got := file(); got != was {
							t.Errorf("%s: afterwards it is %q, want %q", options, got, was)
						}
					}
					m.mustRemove("n")
				}
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestTrunkRefused: a NIC whose driver has no trunks is refused when the network is created, and so are a VLAN beside the trunk and a list that is none.
func TestTrunkRefused(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		pf := igb()
		pf.Up, pf.VFs = true, 2
		m.kernel.AddPF(pf)
		m.settled()
		before := m.kernel.String()
		wantError(t, m.create("n", "netdevice=ens1f0", "trunk=100-200,300"), "option trunk: vf 0 of ens1f0 (0000:01:10.0): set trunk 100-200,300 with igb: "+
			"it has no trunks for vfs; have vlan devices in the container instead, see docs/how-to.md; leave it out, or use a nic that can")
		wantError(t, m.create("n", "netdevice=ens1f0", "trunk=100", "vlan=5"),
			"option trunk: not beside vlan=5: ens1f0 (0000:01:00.0) is in legacy mode, in which a vf is in one vlan or has a trunk")
		for _, value := range []string{"0", "0-5", "4095", "5-4", "x", "all"} {
			wantError(t, m.create("n", "netdevice=ens1f0", "trunk="+value), "option trunk: \""+value+"\" is not allowed; allowed: VLANs and ranges of them, such as 100-200,300")
		}
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestTrunkLost: a trunk that a reset of the PF has lost is set again.
func TestTrunkLost(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		trunking(hwtest.TrunkList)(m)
		m.mustCreate("n", "netdevice=ens1f0", "trunk=100")
		m.mustRun("a", "n")
		m.settled()
		m.kernel.Reset("0000:01:00.0", 300*time.Millisecond)
		m.after(2 * time.Minute)
		host, err := hw.Open(hw.Config{Sys: m.kernel.Sys, Kernel: m.kernel, Boot: m.boot, Booted: m.booted})
		m.must(err)
		p, err := host.PF("ens1f0")
		m.must(err)
		states, err := host.VFStates(p)
		m.must(err)
		if states[0].Trunk != "100" {
			t.Errorf("it is %q", states[0].Trunk)
		}
		m.end("a")
		m.mustRemove("n")
		m.wantKeys()
	})
}
