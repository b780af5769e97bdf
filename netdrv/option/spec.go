package option

import (
	"cmp"

	"github.com/mellanox/passthrough/hw"
)

// VFSpec returns how a VF is to be set up: as it is now, with what the user gave on top. What the user gave is Required; what has a
// default is BestEffort, but for the VLAN: a container must not get into one that the VF still has from another. own is the MAC that
// the VF has if the user gives none.
func (c *Container) VFSpec(pf hw.PF, now hw.VFState, own hw.MAC) hw.VFSpec {
	s := hw.VFSpec{VFState: now, Policies: map[hw.VFAttr]hw.Policy{}}
	s.MAC = own
	if pf.InfiniBand() {
		s.LinkMode = "" // a port is down unless it follows the PF's
		s.Policies[hw.VFNodeGUID], s.Policies[hw.VFPortGUID], s.Policies[hw.VFLinkState] = hw.BestEffort, hw.BestEffort, hw.BestEffort
	} else {
		if !c.KeepVLAN {
			s.VLAN, s.Policies[hw.VFVLAN] = hw.VLAN{}, hw.Required
		}
		s.Spoofchk, s.Trust = true, false
		s.Policies[hw.VFMAC], s.Policies[hw.VFSpoofchk], s.Policies[hw.VFTrust] = hw.BestEffort, hw.BestEffort, hw.BestEffort
	}
	for _, o := range options {
		if o.vf != nil {
			o.vf(c, &s)
		}
	}
	return s
}

// VFSpec is that of the network's containers. With bridge the VLANs are not the VF's, but those of its representor's port.
func (n *Network) VFSpec(pf hw.PF, now hw.VFState, own hw.MAC) hw.VFSpec {
	c := n.Container
	if n.Bridge != "" {
		c.VLAN, c.VLANQoS, c.VLANProto, c.Trunk = nil, nil, nil, ""
	}
	return c.VFSpec(pf, now, own)
}

// LinkSpec returns how a netdev is to be set up. now is nil if it does not exist yet.
func (c *Container) LinkSpec(now *hw.LinkState) hw.LinkSpec {
	s := hw.LinkSpec{Policies: map[hw.LinkAttr]hw.Policy{}}
	if now != nil {
		s.LinkState = *now
	}
	for _, o := range options {
		if o.link != nil {
			o.link(c, &s)
		}
	}
	return s
}

// TuningSpec returns how a device's queues, rings, offloads and interrupts are to be set up.
func (c *Container) TuningSpec() hw.TuningSpec {
	return hw.TuningSpec{Queues: c.Queues, RxRing: c.RxRing, TxRing: c.TxRing, Features: c.Features, Cores: c.Cores, PrivateFlags: c.Flags}
}

// ChildSpec returns how a child of the network's device is to be made. The caller fills in its key and its parent.
func (n *Network) ChildSpec() hw.ChildSpec {
	return hw.ChildSpec{Kind: n.Mode, Mode: cmp.Or(n.ChildMode, defaultChildMode[n.Mode]), MAC: n.MAC, PKey: n.PKey,
		Flag: n.flag()}
}

// HostChildSpec returns how the host's own child is to be made: one like those of the containers, or a macvlan of the PF. The caller fills
// in its key and its parent.
func (n *Network) HostChildSpec() hw.ChildSpec {
	if n.UsesVFs() {
		return hw.ChildSpec{Kind: hw.Macvlan, Mode: defaultChildMode[hw.Macvlan]}
	}
	return n.ChildSpec()
}

// flag returns the flag of the children; only ipvlans have one.
func (n *Network) flag() string {
	if n.Mode != ModeIPVlan {
		return ""
	}
	return cmp.Or(n.IPVlanFlag, "bridge")
}

// require takes a value that the user gave into a spec, and makes the attribute Required.
func require[A comparable, T any](policies map[A]hw.Policy, attr A, given, value *T) {
	if given != nil {
		*value, policies[attr] = *given, hw.Required
	}
}

// setVLAN sets the whole tag. Without the option vlan there is none that a priority or a protocol could be of.
func setVLAN(c *Container, s *hw.VFSpec) {
	if c.VLAN == nil {
		return
	}
	s.VLAN = hw.VLAN{}
	require(s.Policies, hw.VFVLAN, c.VLAN, &s.VLAN.ID)
	require(s.Policies, hw.VFVLAN, c.VLANQoS, &s.VLAN.QoS)
	require(s.Policies, hw.VFVLAN, c.VLANProto, &s.VLAN.Proto)
}

func setTrunk(c *Container, s *hw.VFSpec) {
	if c.Trunk != "" {
		s.Trunk, s.Policies[hw.VFTrunk] = c.Trunk, hw.Required
	}
}

// setPrivileged sets spoofchk and trust; the options of these names override it.
func setPrivileged(c *Container, s *hw.VFSpec) {
	if c.Privileged == nil {
		return
	}
	s.Spoofchk, s.Trust = !*c.Privileged, *c.Privileged
	s.Policies[hw.VFSpoofchk], s.Policies[hw.VFTrust] = hw.Required, hw.Required
}

func setMAC(c *Container, s *hw.VFSpec) {
	if c.MAC != "" {
		s.MAC, s.Policies[hw.VFMAC] = c.MAC, hw.Required
	}
}

func setGUID(c *Container, s *hw.VFSpec) {
	if c.GUID != "" {
		s.NodeGUID, s.PortGUID = c.GUID, c.GUID
		s.Policies[hw.VFNodeGUID], s.Policies[hw.VFPortGUID] = hw.Required, hw.Required
	}
}
