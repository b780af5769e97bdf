package netdrv_test

import (
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
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
