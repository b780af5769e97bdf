package main

import (
	"slices"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/internal/admin"
)

// TestRepresentorsShown: VFs, networks and explanations have the representors of VFs of a NIC in switchdev mode; one that is down under a container, or
// that is gone, is a problem. A NIC has one row, whatever ports its switch has.
func TestRepresentorsShown(t *testing.T) {
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens1f0np0", PCI: "0000:01:00.0", Behaviour: hwtest.MLX5(), Driver: "mlx5_core", VFDriver: "mlx5_core", TotalVFs: 2, VFs: 2,
		Up: true, Switchdev: true})
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if pfs, err := allPFs(host); err != nil || len(pfs) != 1 {
		t.Fatalf("pfs %v, %v", pfs, err)
	}
	pf, err := host.PF("ens1f0np0")
	if err != nil {
		t.Fatal(err)
	}
	v := &view{status: admin.Status{Networks: []admin.Network{{ID: "n"}}, Devices: []admin.Device{
		{ID: "0000:01:10.0", Network: "n", Endpoint: "e", PF: "0000:01:00.0", State: "lent", Representor: "ens1f0npf0vf0"}}}}
	rows, err := v.vfsOf(host, pf)
	if err != nil || len(rows) != 2 || rows[0].Representor != "ens1f0npf0vf0" || rows[1].Representor != "ens1f0npf0vf1" {
		t.Errorf("%+v, %v", rows, err)
	}
	if r := v.report(nil, nil); !slices.Equal(r.Networks[0].Representors, []string{"ens1f0npf0vf0"}) {
		t.Errorf("%+v", r.Networks)
	}
	explained := func(want fact, problem string) {
		t.Helper()
		var e explanation
		e.explainVF(host, &v.status.Devices[0])
		if want.Text != "" && !slices.Contains(e.Facts, want) || problem != "" && !slices.Contains(e.Problems, problem) {
			t.Errorf("facts %v, problems %v", e.Facts, e.Problems)
		}
	}
	explained(fact{"representor", "ens1f0npf0vf0, down, in no bridge"},
		"the VF's representor is down, and so is the VF's link: ip link set ens1f0npf0vf0 up")
	br := k.AddLink(hw.Link{Name: "br0", Kind: "bridge"})
	index := k.Link("ens1f0npf0vf0").Index
	for _, err := range []error{k.SetLink(index, hw.LinkMaster, hw.Link{Master: br}), k.SetLink(index, hw.LinkUp, hw.Link{Up: true})} {
		if err != nil {
			t.Fatal(err)
		}
	}
	explained(fact{"representor", "ens1f0npf0vf0, up, a port of br0, vlans 1 untagged"}, "")
	if err := k.MoveToNS("elsewhere", "ens1f0npf0vf0", "eth0"); err != nil {
		t.Fatal(err)
	}
	explained(fact{}, "the VF's representor, ens1f0npf0vf0, is not in the host any more")
}
