package option

import (
	"errors"
	"fmt"
	"net/netip"
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

// Announced returns the destinations of the routes that the host is to have for a container with these addresses, which have prefix
// lengths.
func (n *Network) Announced(addresses []string) (routes []string) {
	if !n.Routed() || n.Announce == AnnounceNone {
		return nil
	}
	for _, text := range addresses {
		p, err := netip.ParsePrefix(text)
		if err != nil { // the engine's, which it has checked
			continue
		}
		if n.Announce != AnnounceSubnet {
			p = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
		}
		routes = append(routes, p.Masked().String())
	}
	return routes
}

// checkAnnounce refuses the option announce where the host does not route to the containers.
func (n *Network) checkAnnounce() error {
	if n.Announce != "" && !n.Routed() {
		return errors.New("option announce: only for ipvlan_mode=l3 and l3s; in l2 containers are on the device's own network")
	}
	return nil
}

// checkHostAccess refuses host access where children do not reach each other.
func (n *Network) checkHostAccess() error {
	spec := n.ChildSpec()
	switch {
	case !n.HostAccess:
		return nil
	case n.Bond != "":
		return fmt.Errorf("option host_access: not with bond=%s: containers send by any of the pfs, and the host's child is on one", n.Bond)
	case n.KeepVLAN:
		return errors.New("option host_access: not with vlan=keep: the host is in one vlan; say which")
	case n.Mode == ModeMacvlan && spec.Mode != "bridge":
		return fmt.Errorf("option host_access: needs macvlan_mode=bridge; in mode %s the host is not reached either", spec.Mode)
	case n.Mode == ModeIPVlan && spec.Mode != "l2":
		return fmt.Errorf("option host_access: needs ipvlan_mode=l2, not %s", spec.Mode)
	case n.Mode == ModeIPVlan && spec.Flag != "bridge":
		return fmt.Errorf("option host_access: needs ipvlan_flag=bridge, not %s", spec.Flag)
	}
	return nil
}

// Routed returns true if the host routes to the containers, whose devices resolve no neighbour.
func (n *Network) Routed() bool {
	return n.Mode == ModeIPVlan && slices.Contains([]string{"l3", "l3s"}, n.ChildMode)
}
