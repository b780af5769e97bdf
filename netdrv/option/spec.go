package option

import (
	"cmp"

	"github.com/mellanox/passthrough/hw"
)

// VFSpec returns how a VF is to be set up: as it is now, with what the user said on top. Spoofchk and trust have defaults. What the
// user gave is Required, the rest BestEffort. own is the MAC that the VF has if the user gives none.
func (c *Container) VFSpec(pf hw.PF, now hw.VFState, own hw.MAC) hw.VFSpec {
	s := hw.VFSpec{VFState: now, Policies: map[string]hw.Policy{"mac": hw.BestEffort, "spoofchk": hw.BestEffort, "trust": hw.BestEffort}}
	if pf.InfiniBand() { // its port is down unless it is told to follow the PF's
		s.LinkMode = ""
		s.Policies = map[string]hw.Policy{"node_guid": hw.BestEffort, "port_guid": hw.BestEffort, "link_state": hw.BestEffort}
	}
	s.NodeGUID, s.PortGUID = cmp.Or(c.GUID, now.NodeGUID), cmp.Or(c.GUID, now.PortGUID)
	if c.GUID != "" {
		s.Policies["node_guid"], s.Policies["port_guid"] = hw.Required, hw.Required
	}
	s.MAC = cmp.Or(c.MAC, own)
	if c.MAC != "" {
		s.Policies["mac"] = hw.Required
	}
	privileged := c.Privileged != nil && *c.Privileged
	if !pf.InfiniBand() {
		s.Spoofchk, s.Trust = !privileged, privileged
	}
	if c.Privileged != nil {
		s.Policies["spoofchk"], s.Policies["trust"] = hw.Required, hw.Required
	}
	require(s.Policies, "spoofchk", c.Spoofchk, &s.Spoofchk)
	require(s.Policies, "trust", c.Trust, &s.Trust)
	if c.VLAN != nil { // without it there is no tag that the rest could be of
		s.VLAN = hw.VLAN{}
		require(s.Policies, "vlan", c.VLAN, &s.VLAN.ID)
		require(s.Policies, "vlan", c.VLANQoS, &s.VLAN.QoS)
		require(s.Policies, "vlan", c.VLANProto, &s.VLAN.Proto)
	}
	require(s.Policies, "rate", c.MinRate, &s.Rate.Min)
	require(s.Policies, "rate", c.MaxRate, &s.Rate.Max)
	require(s.Policies, "link_state", c.LinkMode, &s.LinkMode)
	return s
}

// LinkSpec returns how a netdev is to be set up. now is nil if it does not exist yet.
func (c *Container) LinkSpec(now *hw.LinkState) hw.LinkSpec {
	s := hw.LinkSpec{Policies: map[string]hw.Policy{}}
	if now != nil {
		s.LinkState = *now
	}
	require(s.Policies, "mtu", c.MTU, &s.MTU)
	require(s.Policies, "txqueuelen", c.TxQLen, &s.TxQLen)
	require(s.Policies, "promisc", c.Promisc, &s.Promisc)
	require(s.Policies, "allmulti", c.AllMulti, &s.AllMulti)
	return s
}

// require takes over a value that the user gave, and makes it Required.
func require[T any](policies map[string]hw.Policy, attr string, given, value *T) {
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
