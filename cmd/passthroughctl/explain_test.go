package main

import (
	"slices"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
)

// TestExplainProgram: of a VF that a program drives the file of its IOMMU group is named; that it has no netdev is no problem.
func TestExplainProgram(t *testing.T) {
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens2f0", PCI: "0000:02:00.0", TotalVFs: 7, VFs: 1, Up: true})
	k.LoadDriver("vfio-pci")
	const vf = "0000:02:10.0"
	for _, w := range [][2]string{{"devices/" + vf + "/driver/unbind", vf}, {"devices/" + vf + "/driver_override", "vfio-pci"}, {"drivers_probe", vf}} {
		if err := k.WriteAttr("bus/pci/"+w[0], w[1]); err != nil {
			t.Fatal(err)
		}
	}
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k})
	if err != nil {
		t.Fatal(err)
	}
	var e explanation
	e.explainVF(host, &admin.Device{ID: vf, PF: "0000:02:00.0", State: "lent"})
	e.explainPlace(host.Topology(), "0000:02:00.0", "") // there is no GPU
	k.AddGPU("0000:14:00.0", "pci0000:10/0000:10:01.0", "0x030200", 0)
	k.AddGPU("0000:24:00.0", "pci0000:00/0000:00:02.0", "0x030200", 0)
	e.explainPlace(host.Topology(), "0000:02:00.0", "gpu")
	e.explainPlace(host.Topology(), "0000:02:00.0", "0000:14:00.0")
	near := []fact{{"near", "0000:24:00.0: on the same root complex"}, {"near", "0000:14:00.0: on the same NUMA node"}}
	if !slices.Equal(e.Facts[len(e.Facts)-2:], near) {
		t.Errorf("facts %v", e.Facts)
	}
	if want := (fact{"vf", "driver vfio-pci, for a program, by /dev/vfio/2"}); !slices.Contains(e.Facts, want) || len(e.Problems) > 0 {
		t.Errorf("facts %v, problems %v", e.Facts, e.Problems)
	}
}
