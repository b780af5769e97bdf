package hw_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestSwitchdev: a PF in switchdev mode has a switch ID (net/core/net-sysfs.c; reading it is EOPNOTSUPP otherwise).
func TestSwitchdev(t *testing.T) {
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 7, Up: true})
	h, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	id := filepath.Join(k.Sys, "class/net/ens1f0/phys_switch_id")
	if err := os.WriteFile(id, []byte("506b4b0300c0ffee\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	_, err = h.PF("ens1f0")
	const want = "ens1f0 (0000:01:00.0): the nic is in switchdev mode, in which its vfs are ports of a switch on the host; " +
		"change that with: devlink dev eswitch set pci/0000:01:00.0 mode legacy: not supported by the driver"
	if err == nil || err.Error() != want {
		t.Errorf("error is\n  %v\nwant\n  %s", err, want)
	}
}
