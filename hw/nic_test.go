package hw_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestNICs: the NICs are listed with what they can have of VFs, and why not; VFs, links without a PCI function and devices in containers
// are not among them.
func TestNICs(t *testing.T) {
	onBench(t, hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", Vendor: "0x8086", Device: "0x10c9", TotalVFs: 7, VFs: 2, NUMANode: 1, Up: true}, func(b *bench) {
		b.k.AddPF(hwtest.PF{Name: "ens2f0", PCI: "0000:02:00.0", Vendor: "0x15b3", Device: "0x1017", NUMANode: -1})
		b.k.AddVeth("v0", "v1")
		nics, err := b.h.NICs()
		b.must(err)
		var got []string
		for _, n := range nics {
			got = append(got, fmt.Sprintf("%s %s %s:%s node %d, %d of %d vfs, %v", n.Name, n.ID, n.Vendor, n.Device, n.Node, n.NumVFs, n.TotalVFs, n.NoVFs))
			if (n.TotalVFs == 0) != errors.Is(n.NoVFs, hw.ErrUnsupported) {
				t.Errorf("%s: %v", n.Name, n.NoVFs)
			}
		}
		want := []string{"ens1f0 0000:01:00.0 8086:10c9 node 1, 2 of 7 vfs, <nil>",
			"ens2f0 0000:02:00.0 15b3:1017 node -1, 0 of 0 vfs, ens2f0 (0000:02:00.0): sr-iov is off or missing (no sriov_totalvfs); " +
				"switch it on in the firmware of the nic and of the machine"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
