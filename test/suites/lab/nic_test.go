//go:build lab && !hardware

package lab

// The guest's first NIC.
const (
	pf    = "enp1s0"
	pfPCI = "0000:01:00.0"
)

// few returns the options of a network.
func few(options []string) []string { return options }
