//go:build lab

package rtnl_test

import (
	"bytes"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest/conformance"
	"github.com/mellanox/passthrough/test/harness/sandbox"
)

// TestSRIOVConformance creates VFs on the first igb of the guest, which is down and without VFs before and afterwards; see test/suites/lab.
func TestSRIOVConformance(t *testing.T) {
	const nic = "0000:01:00.0"
	t.Cleanup(func() { setDown(t, nic) })
	conformance.SRIOV(t, func(t *testing.T) conformance.TestPF {
		k := openKernel(t, "/sys", "/proc/irq")
		return conformance.TestPF{Kernel: k, Sys: k.Sysfs(), PCI: nic, VFDriver: "igbvf"}
	})
}

// setDown sets a NIC down, as the guest has it from boot.
func setDown(t *testing.T, pci string) {
	t.Helper()
	h := openHost(t)
	n, err := h.Netdev(pci)
	if err != nil {
		t.Fatal(err)
	}
	k, down := openKernel(t, "/sys", "/proc/irq"), false
	if err := k.SetLink(n.Index, hw.LinkUp, hw.Link{Up: down}); err != nil {
		t.Error(err)
	}
}

// TestNewLinksConformance needs modules, and for bridges a kernel, that not every machine has. It runs in namespaces of its own.
func TestNewLinksConformance(t *testing.T) {
	if !sandbox.Inside() {
		var out bytes.Buffer
		if code, err := sandbox.RunInside([]string{"-test.run=^TestNewLinksConformance$", "-test.v"}, &out); code != 0 || err != nil {
			t.Errorf("in private namespaces: exit code %d, %v\n%s", code, err, out.String())
		}
		return
	}
	if err := mountSys(); err != nil {
		t.Fatal(err)
	}
	conformance.NewLinks(t, []string{hw.Macvlan, hw.IPVlan, hw.Bond, hw.VLANDevice}, func(t *testing.T) (hw.Kernel, conformance.Env) {
		return openKernel(t, sys, "/proc/irq"), newWorld(t)
	})
	conformance.PortVLANs(t, func(t *testing.T) (hw.Kernel, conformance.Env) {
		return openKernel(t, sys, "/proc/irq"), newWorld(t)
	})
}
