//go:build lab

package hw_test

import (
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestVFContract divides the first igb of the guest; see test/lab.
func TestVFContract(t *testing.T) {
	hwtest.VFContract(t, func(t *testing.T) hwtest.Division {
		k, _ := hw.RunningKernel(t, "/sys")
		return hwtest.Division{Kernel: k, Sys: "/sys", PCI: "0000:01:00.0", VFDriver: "igbvf"}
	})
}
