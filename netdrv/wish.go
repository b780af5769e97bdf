package netdrv

import (
	"cmp"

	"github.com/mellanox/passthrough/hw"
)

// wish says how a VF is to be set up: now, with what the user said on top. Spoofchk and trust have defaults; what the
// user has said himself the NIC must be able to do. own is the address that the VF has without anybody's asking.
func wish(c *config, pf hw.PF, now hw.VFState, own hw.MAC) hw.VFSpec {
	w := hw.VFSpec{VFState: now, Policies: map[string]hw.Policy{"mac": hw.BestEffort, "spoofchk": hw.BestEffort, "trust": hw.BestEffort}}
	if pf.InfiniBand() { // its port is down unless it is told to follow the PF's
		w.LinkMode = ""
		w.Policies = map[string]hw.Policy{"node_guid": hw.BestEffort, "port_guid": hw.BestEffort, "link_state": hw.BestEffort}
	}
	w.NodeGUID, w.PortGUID = cmp.Or(c.guid, now.NodeGUID), cmp.Or(c.guid, now.PortGUID)
	if c.guid != "" {
		w.Policies["node_guid"], w.Policies["port_guid"] = hw.Required, hw.Required
	}
	w.MAC = cmp.Or(c.mac, own)
	if c.mac != "" {
		w.Policies["mac"] = hw.Required
	}
	privileged := c.privileged != nil && *c.privileged
	if !pf.InfiniBand() {
		w.Spoofchk, w.Trust = !privileged, privileged
	}
	if c.privileged != nil {
		w.Policies["spoofchk"], w.Policies["trust"] = hw.Required, hw.Required
	}
	must(w.Policies, "spoofchk", c.spoofchk, &w.Spoofchk)
	must(w.Policies, "trust", c.trust, &w.Trust)
	if c.vlan != nil { // without it there is no tag that the rest could be of
		w.VLAN = hw.VLAN{}
		must(w.Policies, "vlan", c.vlan, &w.VLAN.ID)
		must(w.Policies, "vlan", c.vlanQoS, &w.VLAN.QoS)
		must(w.Policies, "vlan", c.vlanProto, &w.VLAN.Proto)
	}
	must(w.Policies, "rate", c.minRate, &w.Rate.Min)
	must(w.Policies, "rate", c.maxRate, &w.Rate.Max)
	must(w.Policies, "link_state", c.linkMode, &w.LinkMode)
	return w
}

// shape says how a netdev is to be lent; now is nil when it is not there yet.
func shape(c *config, now *hw.LinkState) hw.LinkSpec {
	w := hw.LinkSpec{Policies: map[string]hw.Policy{}}
	if now != nil {
		w.LinkState = *now
	}
	must(w.Policies, "mtu", c.mtu, &w.MTU)
	must(w.Policies, "txqueuelen", c.txQLen, &w.TxQLen)
	must(w.Policies, "promisc", c.promisc, &w.Promisc)
	must(w.Policies, "allmulti", c.allMulti, &w.AllMulti)
	return w
}

// must takes over what the user said, if he did, and makes it binding.
func must[T any](need map[string]hw.Policy, name string, said, value *T) {
	if said != nil {
		*value, need[name] = *said, hw.Required
	}
}
