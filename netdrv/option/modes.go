package option

import (
	"slices"

	"github.com/mellanox/passthrough/hw"
)

// Values of the option mode. The last three are also the kinds of the links that they make.
const (
	ModeSRIOV       = "sriov"
	ModePassthrough = "passthrough"
	ModeMacvlan     = hw.Macvlan
	ModeIPVlan      = hw.IPVlan
	ModeIPoIB       = hw.IPoIB
)

// Modes returns the names of all modes.
func Modes() []string {
	return []string{ModeSRIOV, ModePassthrough, ModeMacvlan, ModeIPVlan, ModeIPoIB}
}

// Passthru is the mode of a macvlan that takes its device's place. Users cannot ask for it: such a macvlan is the only one on its device.
const Passthru = "passthru"

// defaultChildMode is the mode of children if the user names none.
var defaultChildMode = map[string]string{ModeMacvlan: "bridge", ModeIPVlan: "l2", ModeIPoIB: "datagram"}

// HasChildren reports whether containers of the network get a child of its device.
func (n *Network) HasChildren() bool { return defaultChildMode[n.Mode] != "" }

// UsesVFs reports whether containers of the network get VFs of its devices.
func (n *Network) UsesVFs() bool { return n.Mode == ModeSRIOV }

// Routed returns true if the host routes to the containers, whose devices resolve no neighbour.
func (n *Network) Routed() bool {
	return n.Mode == ModeIPVlan && slices.Contains([]string{"l3", "l3s"}, n.ChildMode)
}
