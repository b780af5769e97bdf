package card

import (
	"strings"

	"github.com/mellanox/passthrough/hw"
)

// The settings of a VF of a record, by their names.
const (
	MAC           = "mac"
	MACMulticast  = "mac, multicast"
	MACNone       = "mac, none"
	VLAN          = "vlan"
	VLANQoS       = "vlan, priority 3"
	VLANDot1AD    = "vlan, 802.1ad"
	VLANReserved  = "vlan 4095"
	VLANNone      = "vlan, none"
	SpoofchkOff   = "spoofchk off"
	SpoofchkOn    = "spoofchk on"
	TrustOn       = "trust on"
	TrustOff      = "trust off"
	LinkEnable    = "link_state enable"
	LinkDisable   = "link_state disable"
	LinkAuto      = "link_state auto"
	RateMax       = "max_tx_rate"
	RateMin       = "min_tx_rate"
	RateNone      = "rates, none"
	NodeGUID      = "node_guid"
	PortGUID      = "port_guid"
	VFMAC         = "mac of its netdev, while its pf has set another"
	MACWhileBound = "mac, read at its netdev without binding it again"
	MACDrawn      = "mac that its netdev has drawn, read at its pf"
	MTUAbovePF    = "mtu above that of its pf"
	NumVFsMade    = "numvfs, from none"
	NumVFsOther   = "numvfs, another number"
	NumVFsSame    = "numvfs, the same"
	NumVFsTooMany = "numvfs, more than there can be"
)

// Made-up values of a record. The MACs and GUIDs are locally administered.
const (
	macA, macB, macC = hw.MAC("02:00:00:00:ca:0a"), hw.MAC("02:00:00:00:ca:0b"), hw.MAC("02:00:00:00:ca:0c")
	guidA            = hw.GUID("02:00:00:00:00:00:ca:0a")
	tag              = 100
	limit, least     = 100, 10 // Mbit/s
)

// A setting is one setting of a VF through its PF.
type setting struct {
	name string
	attr hw.VFAttr
	want hw.VFState
}

// series returns the settings in the order of a record. Those of one attribute follow each other: it is restored after the last.
func series() []setting {
	return []setting{
		{NodeGUID, hw.VFNodeGUID, hw.VFState{NodeGUID: guidA}},
		{PortGUID, hw.VFPortGUID, hw.VFState{PortGUID: guidA}},
		{MAC, hw.VFMAC, hw.VFState{MAC: macA}},
		{MACMulticast, hw.VFMAC, hw.VFState{MAC: "01:00:5e:00:00:01"}},
		{MACNone, hw.VFMAC, hw.VFState{}},
		{VLAN, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: tag}}},
		{VLANQoS, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: tag, QoS: 3}}},
		{VLANDot1AD, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: tag, Proto: hw.Dot1AD}}},
		{VLANReserved, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 4095}}},
		{VLANNone, hw.VFVLAN, hw.VFState{}},
		{RateMax, hw.VFRate, hw.VFState{Rate: hw.Rate{Max: limit}}},
		{RateMin, hw.VFRate, hw.VFState{Rate: hw.Rate{Min: least, Max: limit}}},
		{RateNone, hw.VFRate, hw.VFState{}},
		{LinkEnable, hw.VFLinkState, hw.VFState{LinkMode: hw.LinkEnable}},
		{LinkDisable, hw.VFLinkState, hw.VFState{LinkMode: hw.LinkDisable}},
		{LinkAuto, hw.VFLinkState, hw.VFState{}},
		{SpoofchkOff, hw.VFSpoofchk, hw.VFState{}},
		{SpoofchkOn, hw.VFSpoofchk, hw.VFState{Spoofchk: true}},
		{TrustOn, hw.VFTrust, hw.VFState{Trust: true}},
		{TrustOff, hw.VFTrust, hw.VFState{}},
	}
}

// NameOf returns which of the series a setting of a VF is like; "" for one that is like none.
func NameOf(a hw.VFAttr, want hw.VFState) string {
	switch a {
	case hw.VFNodeGUID:
		return NodeGUID
	case hw.VFPortGUID:
		return PortGUID
	case hw.VFMAC:
		return nameOfMAC(want.MAC)
	case hw.VFVLAN:
		return nameOfVLAN(want.VLAN)
	case hw.VFRate:
		return pick(want.Rate == hw.Rate{}, RateNone, pick(want.Rate.Min > 0, RateMin, RateMax))
	case hw.VFLinkState:
		return pick(want.LinkMode == "", LinkAuto, pick(want.LinkMode == hw.LinkEnable, LinkEnable, LinkDisable))
	case hw.VFSpoofchk:
		return pick(want.Spoofchk, SpoofchkOn, SpoofchkOff)
	case hw.VFTrust:
		return pick(want.Trust, TrustOn, TrustOff)
	}
	return ""
}

func nameOfMAC(mac hw.MAC) string {
	const multicast = "13579bdf" // the second digit, if it is odd
	switch {
	case mac == "" || mac == noMAC:
		return MACNone
	case len(mac) > 1 && strings.IndexByte(multicast, mac[1]) >= 0:
		return MACMulticast
	}
	return MAC
}

func nameOfVLAN(v hw.VLAN) string {
	switch {
	case v.ID > 4095 || v.ID < 0 || v.QoS > 7 || v.QoS < 0:
		return ""
	case v.ID == 4095:
		return VLANReserved
	case v.Proto != "":
		return VLANDot1AD
	case v.QoS > 0:
		return VLANQoS
	case v.ID > 0:
		return VLAN
	}
	return VLANNone
}

// pick returns yes or no.
func pick(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}
