package netdrv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// divided adds a PF with VFs that the plugin did not create: the second one has a VLAN and no spoof check.
func divided(m *machine) {
	pf := igb()
	pf.Up, pf.VFs, pf.TotalVFs = true, 3, 3
	m.kernel.AddPF(pf)
	m.settled()
	for _, a := range []hw.VFAttr{hw.VFVLAN, hw.VFSpoofchk} {
		m.must(m.kernel.SetVF(m.kernel.Link("ens1f0").Index, 1, a, hw.VFState{VLAN: hw.VLAN{ID: 7}}))
	}
}

// TestVFBeingReset: drivers report nothing about a VF while they reset it. It is not used, and what they report about the others is not
// mistaken for it.
func TestVFBeingReset(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		divided(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0")
		m.kernel.ResetVFs(pfPCI, 0)
		m.mustRun("a", "n")
		m.wantIn("0000:01:10.2", "a")
		m.kernel.ResetVFs(pfPCI)
		m.end("a")
		m.mustRemove("n")
		m.wantHost(before)
	})
}

// TestAllVFsBeingReset: a PF that is reset reports nothing about any VF. A container waits for it, and its VF is restored afterwards.
func TestAllVFsBeingReset(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		divided(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "vfs=1")
		m.kernel.ResetVFs(pfPCI, 0, 1, 2)
		over := time.AfterFunc(2*time.Second, func() { m.kernel.ResetVFs(pfPCI) })
		defer over.Stop()
		m.mustRun("a", "n")
		m.wantIn("0000:01:10.2", "a")
		m.end("a")
		m.mustRemove("n")
		m.wantHost(before)
	})
}

// TestResetThatDoesNotEnd: the error is for users, and no VF is quarantined.
func TestResetThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		divided(m)
		m.mustCreate("n", "netdevice=ens1f0", "vfs=1")
		m.kernel.ResetVFs(pfPCI, 1)
		wantError(t, m.runWith("a", "n", nil), "ens1f0 (0000:01:00.0): all 1 vfs of the network are in use: "+
			"vf 1 of ens1f0 (0000:01:10.2) is being reset by the driver of its pf (waited 6s)")
		if strings.Contains(m.ledger(), "quarantined") {
			t.Errorf("a vf is quarantined:\n%s", m.ledger())
		}
		m.kernel.ResetVFs(pfPCI)
		m.mustRun("a", "n")
	})
}

// TestResetForItsMAC: a driver that resets a VF when its MAC is set refuses the next attribute meanwhile.
func TestResetForItsMAC(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		divided(m)
		m.mustCreate("n", "netdevice=ens1f0", "vlan=9")
		var over *time.Timer
		m.kernel.OnCall(func(_ int, what string) error {
			if over == nil && strings.Contains(what, "vlan") {
				m.kernel.ResetVFs(pfPCI, 0)
				over = time.AfterFunc(time.Second, func() { m.kernel.ResetVFs(pfPCI) })
			}
			return nil
		})
		m.mustRun("a", "n")
		if m.wantIn("0000:01:10.0", "a"); over == nil {
			t.Error("no vf was reset")
		}
	})
}

// TestNoEswitch: a PF that does not manage its eswitch reports nothing about its VFs, and may set nothing for them. It is refused after one
// wait, however many VFs it has, also if an administrator has created them, and is left as it was.
func TestNoEswitch(t *testing.T) {
	t.Parallel()
	for _, vfs := range []int{0, 16} {
		story(t, func(m *machine) {
			m.kernel.AddPF(hwtest.PF{Name: "ens1f0", PCI: pfPCI, TotalVFs: 16, VFs: vfs, Behaviour: hwtest.MLX5NoEswitch(), Driver: "mlx5_core",
				VFDriver: "mlx5_core"})
			m.settled()
			m.unplanned = true // which would wait, too
			before, start := m.kernel.String(), time.Now()
			wantError(t, m.create("n", "netdevice=ens1f0"), "ens1f0 (0000:01:00.0): driver mlx5_core reports nothing about any of its vfs, "+
				"and can set nothing for them; a nic whose eswitch is managed elsewhere is like that, such as a bluefield in dpu mode; "+
				"change it to nic mode")
			if d := time.Since(start); d > 4*time.Second {
				t.Errorf("took %v", d)
			}
			m.settled()
			m.wantHost(before)
			m.wantKeys()
		})
	}
}

// TestNewVFsBeingReset: VFs are created while the driver resets one of them for longer than that takes. The error names that VF, after one
// wait.
func TestNewVFsBeingReset(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.kernel.OnCall(func(_ int, what string) error {
			if strings.HasSuffix(what, "sriov_numvfs 4") {
				time.AfterFunc(time.Millisecond, func() { m.kernel.ResetVFs(pfPCI, 1, 2) })
			}
			return nil
		})
		start := time.Now()
		err := m.create("n", "netdevice=ens1f0", "numvfs=4")
		if err == nil || !strings.Contains(err.Error(), "vf 1 of ens1f0 (0000:01:10.2): read: driver igb does not say what is set for it") {
			t.Errorf("error is %v", err)
		}
		if d := time.Since(start); d > 7*time.Second { // 3 s of them are the link of the pf
			t.Errorf("took %v", d)
		}
	})
}
