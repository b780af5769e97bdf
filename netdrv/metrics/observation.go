package metrics

import (
	"time"

	"github.com/mellanox/passthrough/hw"
)

// An Observation is what the driver's devices are like at one time.
type Observation struct {
	Networks map[string]int // how many there are of each mode
	Devices  []Device       // those that are not free
	PFs      []PF           // those of networks, and those of VFs that are not free
	Links    []Link         // devices of networks that are in the host, PFs among them
}

// Device is a device that is not free.
type Device struct {
	ID, Label, Mode, State string
	Since                  time.Time // when it got into its state
	Network, Endpoint      string
	PF                     string   // PCI address of the PF of a VF, "" for another device
	VF                     int      // index of the VF
	VLAN                   int      // that the PF sets for the VF; 0 for none
	Addresses              []string // with prefix lengths
}

// PF is a PF that has VFs.
type PF struct {
	PCI, Name string
	VFs       int                 // how many there are
	Counters  map[int]hw.Counters // of VFs by their index, as far as the PF's driver counts
	Unread    error               // why there are no counters; nil if they were read
}

// Link is a netdev in the host.
type Link struct {
	Name        string
	Up, Carrier bool
	Counters    hw.Counters
	Counted     bool // the kernel has counters of it
	Driver      hw.DriverInfo
	// Rings are zero if the driver has none.
	Rings, MaxRings hw.Rings
}
