package hw_test

import (
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestSwitchdev: a PF in switchdev mode is refused, however it is selected. A switch ID does not imply the mode: mlx5
// and ice have one in legacy mode, too.
func TestSwitchdev(t *testing.T) {
	for _, c := range []struct {
		pf      hwtest.PF
		refused bool
	}{
		{hwtest.PF{Behaviour: hwtest.ICE()}, false},
		{hwtest.PF{Switchdev: true}, true},
	} {
		k := hwtest.New(t)
		c.pf.Name, c.pf.PCI, c.pf.TotalVFs, c.pf.Up = "ens1f0", "0000:01:00.0", 7, true
		k.AddPF(c.pf)
		h, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "boot"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = h.LegacyPF("ens1f0")
		pfs, errAll := h.PFs("driver:igb")
		if !c.refused {
			if err != nil || errAll != nil || len(pfs) != 1 {
				t.Errorf("in legacy mode: %v, %v, %v", err, pfs, errAll)
			}
			continue
		}
		const want = "ens1f0 (0000:01:00.0): the nic is in switchdev mode, in which its vfs are ports of a switch on the host; " +
			"change that with: devlink dev eswitch set pci/0000:01:00.0 mode legacy"
		wantError(t, err, want)
		wantError(t, errAll, "driver:igb: "+want)
		if _, err := h.PF("ens1f0"); err != nil {
			t.Errorf("a device that was attached before cannot be restored: %v", err)
		}
	}
}
