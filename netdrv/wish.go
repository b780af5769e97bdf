package netdrv

import (
	"cmp"

	"github.com/mellanox/passthrough/hw"
)

// wish says how a VF is to be set up: now, with what the user said on top. Spoofchk and trust have defaults; what the
// user has said himself the NIC must be able to do. own is the address that the VF has without anybody's asking.
func wish(c *config, pf hw.PF, now hw.VFState, own hw.MAC) hw.VFWish {
	w := hw.VFWish{VFState: now, Need: map[string]hw.Need{"mac": hw.Try, "spoofchk": hw.Try, "trust": hw.Try}}
	if pf.InfiniBand() { // its port is down unless it is told to follow the PF's
		w.LinkMode = ""
		w.Need = map[string]hw.Need{"node_guid": hw.Try, "port_guid": hw.Try, "link_state": hw.Try}
	}
	w.NodeGUID, w.PortGUID = cmp.Or(c.guid, now.NodeGUID), cmp.Or(c.guid, now.PortGUID)
	if c.guid != "" {
		w.Need["node_guid"], w.Need["port_guid"] = hw.Must, hw.Must
	}
	w.MAC = cmp.Or(c.mac, own)
	if c.mac != "" {
		w.Need["mac"] = hw.Must
	}
	privileged := c.privileged != nil && *c.privileged
	if !pf.InfiniBand() {
		w.Spoofchk, w.Trust = !privileged, privileged
	}
	if c.privileged != nil {
		w.Need["spoofchk"], w.Need["trust"] = hw.Must, hw.Must
	}
	must(w.Need, "spoofchk", c.spoofchk, &w.Spoofchk)
	must(w.Need, "trust", c.trust, &w.Trust)
	if c.vlan != nil { // without it there is no tag that the rest could be of
		w.VLAN = hw.VLAN{}
		must(w.Need, "vlan", c.vlan, &w.VLAN.ID)
		must(w.Need, "vlan", c.vlanQoS, &w.VLAN.QoS)
		must(w.Need, "vlan", c.vlanProto, &w.VLAN.Proto)
	}
	must(w.Need, "rate", c.minRate, &w.Rate.Min)
	must(w.Need, "rate", c.maxRate, &w.Rate.Max)
	must(w.Need, "link_state", c.linkMode, &w.LinkMode)
	return w
}

// shape says how a netdev is to be lent; now is nil when it is not there yet.
func shape(c *config, now *hw.LinkState) hw.LinkWish {
	w := hw.LinkWish{Need: map[string]hw.Need{}}
	if now != nil {
		w.LinkState = *now
	}
	must(w.Need, "mtu", c.mtu, &w.MTU)
	must(w.Need, "txqueuelen", c.txQLen, &w.TxQLen)
	must(w.Need, "promisc", c.promisc, &w.Promisc)
	must(w.Need, "allmulti", c.allMulti, &w.AllMulti)
	return w
}

// must takes over what the user said, if he did, and makes it binding.
func must[T any](need map[string]hw.Need, name string, said, value *T) {
	if said != nil {
		*value, need[name] = *said, hw.Must
	}
}
