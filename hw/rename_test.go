package hw_test

import (
	"strings"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestAltnameInBetween: a device comes home as eth0, and udev gives it its old name as an alternative one at the very
// moment at which it is to be renamed.
func TestAltnameInBetween(t *testing.T) {
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens1", PCI: "0000:01:00.0", Up: true})
	h, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	n, err := h.Netdev("ens1")
	if err != nil {
		t.Fatal(err)
	}
	snap, err := h.SnapshotNetdev(n)
	if err != nil {
		t.Fatal(err)
	}
	before := k.String()
	if err := k.MoveToNS("c", "ens1", "eth0"); err != nil {
		t.Fatal(err)
	}
	k.KillNS("c", 0)
	once := false
	k.OnCall(func(_ int, what string) error {
		if !once && strings.HasSuffix(what, "set name ens1") {
			once = true
			k.AddAltName("eth0", "ens1")
		}
		return nil
	})
	if err := h.RestoreNetdev(n.ID, snap); err != nil || !once {
		t.Errorf("restore: %v; altname in between: %v", err, once)
	}
	if after := k.String(); after != before {
		t.Errorf("the host is\n%s\nbut was\n%s", after, before)
	}
}
