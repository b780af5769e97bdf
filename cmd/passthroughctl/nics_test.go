package main

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/hw/rdma"
)

// TestDerivedRows: nics lists the sub-functions and vDPA devices of a NIC after it, by the name that the option netdevice takes.
func TestDerivedRows(t *testing.T) {
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "enp3s0f0np0", PCI: "0000:03:00.0", Driver: "mlx5_core", TotalVFs: 4})
	k.AddSubfunction("0000:03:00.0", 4, 88, hw.Link{Name: "enp3s0f0s88"})
	k.AddVDPA("0000:03:00.0", "vdpa0", "vhost_vdpa", hw.Link{})
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k})
	if err != nil {
		t.Fatal(err)
	}
	rows, err := nicRows(host, rdma.New(k.Sys, k.RDMA()))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rows {
		got = append(got, fmt.Sprintf("%s|%s|%s|%s|%s|%s|%s", r.Name, r.PCI, r.Kind, r.Driver, r.Link, r.vfs(), r.note()))
	}
	want := []string{"enp3s0f0np0|0000:03:00.0||mlx5_core|down|0/4|",
		"enp3s0f0s88|0000:03:00.0|sub-function|mlx5_core.sf|down|no|it is a sub-function of 0000:03:00.0, which has no vfs; hand over its netdev " +
			"enp3s0f0s88 with mode=passthrough, or have macvlans on that with mode=macvlan",
		"vdpa0|0000:03:00.0|vdpa device|vhost_vdpa||no|it is a vdpa device of 0000:03:00.0, which has no vfs; it is bound to vhost_vdpa, for a " +
			"virtual machine, and has no netdev; use a vf of the nic"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
