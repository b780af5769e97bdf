package option

import (
	"cmp"

	"github.com/mellanox/passthrough/hw"
)

// VFSpec returns how a VF is to be set up: as it is now, with what the user said on top. Spoofchk and trust have defaults. What the
// user gave is Required, the rest BestEffort. own is the MAC that the VF has if the user gives none.
func (c *Container) VFSpec(pf hw.PF, now hw.VFState, own hw.MAC) hw.VFSpec {
	s := hw.VFSpec{VFState: now, Policies: map[hw.VFAttr]hw.Policy{hw.VFMAC: hw.BestEffort, hw.VFSpoofchk: hw.BestEffort, hw.VFTrust: hw.BestEffort}}
	if pf.InfiniBand() { // its port is down unless it is told to follow the PF's
		s.LinkMode = ""
		s.Policies = map[hw.VFAttr]hw.Policy{hw.VFNodeGUID: hw.BestEffort, hw.VFPortGUID: hw.BestEffort, hw.VFLinkState: hw.BestEffort}
	}
	s.NodeGUID, s.PortGUID = cmp.Or(c.GUID, now.NodeGUID), cmp.Or(c.GUID, now.PortGUID)
	if c.GUID != "" {
		s.Policies[hw.VFNodeGUID], s.Policies[hw.VFPortGUID] = hw.Required, hw.Required
	}
	s.MAC = cmp.Or(c.MAC, own)
	if c.MAC != "" {
		s.Policies[hw.VFMAC] = hw.Required
	}
	privileged := c.Privileged != nil && *c.Privileged
	if !pf.InfiniBand() {
		s.Spoofchk, s.Trust = !privileged, privileged
	}
	if c.Privileged != nil {
		s.Policies[hw.VFSpoofchk], s.Policies[hw.VFTrust] = hw.Required, hw.Required
	}
	require(s.Policies, hw.VFSpoofchk, c.Spoofchk, &s.Spoofchk)
	require(s.Policies, hw.VFTrust, c.Trust, &s.Trust)
	if c.VLAN != nil { // without it there is no tag that the rest could be of
		s.VLAN = hw.VLAN{}
		require(s.Policies, hw.VFVLAN, c.VLAN, &s.VLAN.ID)
		require(s.Policies, hw.VFVLAN, c.VLANQoS, &s.VLAN.QoS)
		require(s.Policies, hw.VFVLAN, c.VLANProto, &s.VLAN.Proto)
	}
	require(s.Policies, hw.VFRate, c.MinRate, &s.Rate.Min)
	require(s.Policies, hw.VFRate, c.MaxRate, &s.Rate.Max)
	require(s.Policies, hw.VFLinkState, c.LinkMode, &s.LinkMode)
	return s
}

// LinkSpec returns how a netdev is to be set up. now is nil if it does not exist yet.
func (c *Container) LinkSpec(now *hw.LinkState) hw.LinkSpec {
	s := hw.LinkSpec{Policies: map[hw.LinkAttr]hw.Policy{}}
	if now != nil {
		s.LinkState = *now
	}
	require(s.Policies, hw.LinkMTU, c.MTU, &s.MTU)
	require(s.Policies, hw.LinkTxQLen, c.TxQLen, &s.TxQLen)
	require(s.Policies, hw.LinkPromisc, c.Promisc, &s.Promisc)
	require(s.Policies, hw.LinkAllMulti, c.AllMulti, &s.AllMulti)
	return s
}

// require takes over a value that the user gave, and makes it Required.
func require[A comparable, T any](policies map[A]hw.Policy, attr A, given, value *T) {
	if given != nil {
		*value, policies[attr] = *given, hw.Required
	}
}

// TuningSpec returns how a device's queues, rings, offloads and interrupts are to be set up.
func (c *Container) TuningSpec() hw.TuningSpec {
	s := hw.TuningSpec{Features: c.Features, Cores: c.Cores}
	for _, n := range []struct{ given, to *int }{{c.Queues, &s.Queues}, {c.RxRing, &s.RxRing}, {c.TxRing, &s.TxRing}} {
		if n.given != nil {
			*n.to = *n.given
		}
	}
	return s
}

// ChildSpec returns how a child of the network's device is to be made. The caller fills in its key and its parent.
func (n *Network) ChildSpec() hw.ChildSpec {
	return hw.ChildSpec{Kind: n.Mode, Mode: cmp.Or(n.ChildMode, defaultChildMode[n.Mode]), MAC: n.MAC, PKey: n.PKey}
}
