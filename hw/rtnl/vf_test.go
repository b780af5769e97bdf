package rtnl

import (
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// unknown is what rtnetlink reports for a setting of a VF that the driver does not know.
const unknown = 0xffffffff

// vfInfo encodes what rtnetlink says about one VF.
func vfInfo(mac [32]byte, spoofchk, trust uint32) []byte {
	info := nl.NewRtAttr(nl.IFLA_VF_INFO, nil)
	info.AddRtAttr(nl.IFLA_VF_MAC, (&nl.VfMac{Vf: 1, Mac: mac}).Serialize())
	info.AddRtAttr(nl.IFLA_VF_VLAN, (&nl.VfVlan{Vf: 1, Vlan: 100, Qos: 3}).Serialize())
	info.AddRtAttr(nl.IFLA_VF_SPOOFCHK, (&nl.VfSpoofchk{Vf: 1, Setting: spoofchk}).Serialize())
	info.AddRtAttr(nl.IFLA_VF_TRUST, (&nl.VfTrust{Vf: 1, Setting: trust}).Serialize())
	return info.Serialize()[4:]
}

// vfGUIDs encodes what rtnetlink says about a VF of an InfiniBand PF.
func vfGUIDs(node, port uint64) []byte {
	info := nl.NewRtAttr(nl.IFLA_VF_INFO, nil)
	info.AddRtAttr(nl.IFLA_VF_IB_NODE_GUID, (&nl.VfGUID{Vf: 1, GUID: node}).Serialize())
	info.AddRtAttr(nl.IFLA_VF_IB_PORT_GUID, (&nl.VfGUID{Vf: 1, GUID: port}).Serialize())
	return info.Serialize()[4:]
}

// TestParseVF is about what no driver at hand reports; the rest is in the conformance suite.
func TestParseVF(t *testing.T) {
	mac := [32]byte{2, 0, 0, 0, 0, 1}
	vlan := hw.VLAN{ID: 100, QoS: 3}
	tests := []struct {
		name string
		info []byte
		link string
		want hw.VFState
	}{
		{"all known", vfInfo(mac, 1, 1), "ether",
			hw.VFState{MAC: "02:00:00:00:00:01", VLAN: vlan, Spoofchk: true, Trust: true}},
		{"settings that the driver does not know", vfInfo(mac, unknown, unknown), "ether",
			hw.VFState{MAC: "02:00:00:00:00:01", VLAN: vlan}},
		{"no MAC", vfInfo([32]byte{}, 0, 0), "ether", hw.VFState{VLAN: vlan}},
		{"InfiniBand, whose VFs have no MAC and no VLAN", vfInfo(mac, 0, 0), "infiniband", hw.VFState{}},
		{"GUIDs", vfGUIDs(0x0200c90300a1b2c3, 0x0200c90300a1b2c4), "infiniband",
			hw.VFState{NodeGUID: "02:00:c9:03:00:a1:b2:c3", PortGUID: "02:00:c9:03:00:a1:b2:c4"}},
		{"no GUIDs", vfGUIDs(0, ^uint64(0)), "infiniband", hw.VFState{}},
		{"attributes cut short by an older kernel", []byte{12, 0, nl.IFLA_VF_TRUST, 0, 1, 0, 0, 0, 1, 0, 0, 0},
			"ether",
			hw.VFState{Trust: true}},
		{"an attribute too short for its kind", []byte{8, 0, nl.IFLA_VF_TRUST, 0, 1, 0, 0, 0}, "ether", hw.VFState{}},
	}
	for _, tt := range tests {
		index, got, err := parseVF(tt.info, tt.link)
		if err != nil || got != tt.want || index != 1 {
			t.Errorf("%s: vf %d %+v (%v), want vf 1 %+v", tt.name, index, got, err, tt.want)
		}
	}
	if _, _, err := parseVF(nil, "ether"); err == nil {
		t.Error("the settings of no VF in particular were taken for those of one")
	}
	if _, _, err := parseVF([]byte{200, 0, 1, 0}, "ether"); err == nil {
		t.Error("an attribute that is longer than the message was believed")
	}
}

// TestParseVFs: the kernel leaves out VFs that a driver has nothing to say of, and the whole list where it never has.
func TestParseVFs(t *testing.T) {
	link := func(list ...[]byte) []byte {
		answer := nl.NewIfInfomsg(unix.AF_UNSPEC)
		answer.Type = unix.ARPHRD_ETHER
		out := answer.Serialize()
		for _, infos := range list {
			out = append(out, nl.NewRtAttr(unix.IFLA_VFINFO_LIST, infos).Serialize()...)
		}
		return out
	}
	one := nl.NewRtAttr(nl.IFLA_VF_INFO, vfInfo([32]byte{2, 0, 0, 0, 0, 1}, 1, 0)).Serialize()
	if got, err := parseVFs(link(one)); err != nil || len(got) != 1 || got[1].MAC != "02:00:00:00:00:01" {
		t.Errorf("vf 1 alone: %+v (%v)", got, err)
	}
	if got, err := parseVFs(link(nil)); err != nil || got == nil || len(got) != 0 {
		t.Errorf("a driver that has nothing to say just now: %+v (%v), want a list without entries", got, err)
	}
	if got, err := parseVFs(link()); err != nil || got != nil {
		t.Errorf("a driver that never says anything: %+v (%v), want none", got, err)
	}
}

// TestParseVFCounters: each counter is read from its own attribute, and the one for padding is left out.
func TestParseVFCounters(t *testing.T) {
	info := nl.NewRtAttr(nl.IFLA_VF_INFO, nil)
	info.AddRtAttr(nl.IFLA_VF_MAC, (&nl.VfMac{Vf: 3}).Serialize())
	stats := info.AddRtAttr(nl.IFLA_VF_STATS, nil)
	for attr, value := range []byte{10, 11, 12, 13, 14, 15, 0, 17, 18} { // include/uapi/linux/if_link.h, IFLA_VF_STATS_*
		if value > 0 {
			stats.AddRtAttr(attr, []byte{value, 0, 0, 0, 0, 0, 0, 0})
		}
	}
	index, got, err := parseVFCounters(info.Serialize()[4:])
	want := hw.Counters{RxPackets: 10, TxPackets: 11, RxBytes: 12, TxBytes: 13, RxBroadcast: 14, RxMulticast: 15, RxDropped: 17, TxDropped: 18}
	if err != nil || index != 3 || got != want {
		t.Errorf("vf %d %+v (%v), want vf 3 %+v", index, got, err, want)
	}
	if _, _, err := parseVFCounters(nil); err == nil {
		t.Error("the counters of no VF in particular were taken for those of one")
	}
}
