//go:build kernel

package rtnl_test

import (
	"slices"
	"testing"

	"github.com/mellanox/passthrough/hw/card"
	"github.com/mellanox/passthrough/hw/rtnl"
)

// TestKernelCardReader: what a record has of a device that is no NIC.
func TestKernelCardReader(t *testing.T) {
	newWorld(t).Add(t, "veth", "veth0", "veth1")
	k := openKernel(t, sys, "")
	l, err := k.LinkNamed("veth0")
	if err != nil {
		t.Fatal(err)
	}
	r := rtnl.CardReader{Kernel: k}
	if d, err := r.DriverInfo(l.Index); err != nil || d.Name != "veth" || d.Firmware != "" {
		t.Errorf("the driver is %+v, %v", d, err)
	}
	if names, err := r.Statistics(l.Index); err != nil || !slices.Contains(names, "peer_ifindex") || !slices.IsSorted(names) {
		t.Errorf("the statistics are %q, %v", names, err)
	}
	lo, err := k.LinkNamed("lo")
	if err != nil {
		t.Fatal(err)
	}
	if names, err := r.Statistics(lo.Index); err != nil || len(names) != 0 {
		t.Errorf("the statistics of lo are %q, %v", names, err)
	}
	if d, err := r.Devlink("0000:ff:1f.7"); err != nil || d.Eswitch != "" || len(d.Versions) != 0 {
		t.Errorf("devlink says %+v, %v of a device that there is not", d, err)
	}
	if vfs, err := r.VFInfos(l.Index); err != nil || len(vfs) != 0 {
		t.Errorf("vfs are %v, %v", vfs, err)
	}
	var _ card.Kernel = r
}
