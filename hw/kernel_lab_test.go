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
		return hwtest.Division{Kernel: hw.RunningKernel(t, "/sys", "/proc/irq"), Sys: "/sys", PCI: "0000:01:00.0", VFDriver: "igbvf"}
	})
}
