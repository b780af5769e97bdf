package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Numbers of include/uapi/linux/if_bridge.h and rtnetlink.h.
const (
	vlansCompressed = 1 << 2 // RTEXT_FILTER_BRVLAN_COMPRESSED
	afSpecFlags     = 0      // IFLA_BRIDGE_FLAGS
	afSpecVLAN      = 2      // IFLA_BRIDGE_VLAN_INFO
	afSpecTunnel    = 3      // IFLA_BRIDGE_VLAN_TUNNEL_INFO
	vlanPVID        = 1 << 1
	vlanUntagged    = 1 << 2
	vlanRangeBegin  = 1 << 3
	vlanRangeEnd    = 1 << 4
)

// portState are the attributes of a bridge port that cannot be set, or that the bridge decides: the state and numbers of the
// spanning tree, timers, counters.
var portState = []int{unix.IFLA_BRPORT_STATE, unix.IFLA_BRPORT_ROOT_ID, unix.IFLA_BRPORT_BRIDGE_ID,
	unix.IFLA_BRPORT_DESIGNATED_PORT, unix.IFLA_BRPORT_DESIGNATED_COST, unix.IFLA_BRPORT_ID, unix.IFLA_BRPORT_NO,
	unix.IFLA_BRPORT_TOPOLOGY_CHANGE_ACK, unix.IFLA_BRPORT_CONFIG_PENDING, unix.IFLA_BRPORT_MESSAGE_AGE_TIMER,
	unix.IFLA_BRPORT_FORWARD_DELAY_TIMER, unix.IFLA_BRPORT_HOLD_TIMER, unix.IFLA_BRPORT_FLUSH, unix.IFLA_BRPORT_PAD,
	unix.IFLA_BRPORT_MRP_RING_OPEN, unix.IFLA_BRPORT_MRP_IN_OPEN, unix.IFLA_BRPORT_MCAST_EHT_HOSTS_CNT, mcastGroups}

// mcastGroups is IFLA_BRPORT_MCAST_N_GROUPS.
const mcastGroups = 41

// bridgePort lists the settings and VLANs of a port of a bridge as one entry; nothing for another link.
func bridgePort(p pool, l hw.Link) ([]hw.Entry, error) {
	if l.Master == 0 {
		return nil, nil
	}
	m, err := readPort(p, l.Index)
	if err != nil || m == nil {
		return nil, err
	}
	return []hw.Entry{{Kind: hw.EntryBridgePort, Text: "bridge port settings", Body: m.body()}}, nil
}

// readPort reads what a bridge says of its port, nil if the link is the port of none. The driver of a NIC with a switch of its
// own answers as well, and says that it does (IFLA_BRIDGE_FLAGS).
func readPort(p pool, index int) (*message, error) {
	head := make([]byte, unix.SizeofIfInfomsg)
	head[0] = unix.AF_BRIDGE
	answers, err := listMessages(p, unix.RTM_GETLINK, unix.RTM_NEWLINK, appendAttr(head, unix.IFLA_EXT_MASK, u32(vlansCompressed)))
	if err != nil {
		return nil, err
	}
	for _, answer := range answers {
		m, err := split(answer, unix.SizeofIfInfomsg)
		if err != nil {
			return nil, err
		}
		settings, vlans := nested(m.get(unix.IFLA_PROTINFO)), nested(m.get(unix.IFLA_AF_SPEC))
		if indexAt(m.head, 4) != index || len(settings.attrs) == 0 || vlans.get(afSpecFlags) != nil {
			continue
		}
		settings.without(portState...)
		vlans.attrs = slices.DeleteFunc(vlans.attrs, func(a syscall.NetlinkRouteAttr) bool {
			return kindOf(a) != afSpecVLAN && kindOf(a) != afSpecTunnel
		})
		port := &message{head: head}
		port.set(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, settings.body())
		port.set(unix.IFLA_AF_SPEC, vlans.body())
		return port, nil
	}
	return nil, nil
}

// nested reads the attributes in the value of another.
func nested(value []byte) message {
	attrs, err := nl.ParseRouteAttr(value)
	if err != nil {
		return message{}
	}
	return message{attrs: attrs}
}

// setBridgePort sets the settings of a bridge port that differ, and makes its VLANs those of the entry: a bridge puts a new
// port into its default VLAN.
func setBridgePort(p pool, index int, e hw.Entry) error {
	want, err := split(e.Body, unix.SizeofIfInfomsg)
	if err != nil {
		return err
	}
	now, err := readPort(p, index)
	if err != nil {
		return err
	}
	if now == nil {
		return hw.FromErrno(unix.EOPNOTSUPP)
	}
	send := func(msgType int, attr uint16, value message) error { return sendPort(p, index, msgType, attr, value) }
	settings, vlans := nested(want.get(unix.IFLA_PROTINFO)), nested(want.get(unix.IFLA_AF_SPEC))
	has, hasVLANs := nested(now.get(unix.IFLA_PROTINFO)), nested(now.get(unix.IFLA_AF_SPEC))
	settings.attrs = slices.DeleteFunc(settings.attrs, func(a syscall.NetlinkRouteAttr) bool {
		return bytes.Equal(a.Value, has.get(kindOf(a)))
	})
	gone, added := changedVLANs(vlansOf(hasVLANs), vlansOf(vlans))
	more := vlanMessage(added)
	for _, a := range vlans.attrs {
		if kindOf(a) == afSpecTunnel {
			more.attrs = append(more.attrs, a)
		}
	}
	return errors.Join(send(unix.RTM_SETLINK, unix.IFLA_PROTINFO|unix.NLA_F_NESTED, settings),
		send(unix.RTM_DELLINK, unix.IFLA_AF_SPEC, vlanMessage(gone)), send(unix.RTM_SETLINK, unix.IFLA_AF_SPEC, more))
}

// sendPort sends a change of a bridge port; nothing if there is none.
func sendPort(p pool, index, msgType int, attr uint16, value message) error {
	if len(value.attrs) == 0 {
		return nil
	}
	head := make([]byte, unix.SizeofIfInfomsg)
	head[0] = unix.AF_BRIDGE
	putIndex(head, 4, index)
	return sendMessage(p, msgType, 0, appendAttr(head, attr, value.body()))
}

// changedVLANs returns which VLANs a port has to lose, and which it has to be given, to have those of want.
func changedVLANs(has, want map[uint16]uint16) (gone, added map[uint16]uint16) {
	gone, added = maps.Clone(has), maps.Clone(want)
	for vid, flags := range want {
		if was, ok := has[vid]; ok {
			delete(gone, vid)
			if was == flags {
				delete(added, vid)
			}
		}
	}
	return gone, added
}

// PortVLANs implements [hw.Kernel].
func (k *Kernel) PortVLANs(index int) (hw.PortVLANs, error) {
	flags, err := portVLANs(k.sockets, index)
	if err != nil {
		return nil, err
	}
	vlans := hw.PortVLANs{}
	for vid, f := range flags {
		vlans[int(vid)] = hw.PortVLAN{PVID: f&vlanPVID != 0, Untagged: f&vlanUntagged != 0}
	}
	return vlans, nil
}

// SetPortVLANs implements [hw.Kernel].
func (k *Kernel) SetPortVLANs(index int, want hw.PortVLANs) error {
	has, err := portVLANs(k.changers, index)
	if err != nil {
		return err
	}
	wanted := map[uint16]uint16{}
	for vid, v := range want {
		if vid < 1 || vid > 4094 {
			return hw.FromErrno(unix.EINVAL)
		}
		flags := uint16(0)
		if v.PVID {
			flags |= vlanPVID
		}
		if v.Untagged {
			flags |= vlanUntagged
		}
		wanted[uint16(vid)] = flags
	}
	gone, added := changedVLANs(has, wanted)
	if err := sendPort(k.changers, index, unix.RTM_DELLINK, unix.IFLA_AF_SPEC, vlanMessage(gone)); err != nil {
		return err
	}
	return sendPort(k.changers, index, unix.RTM_SETLINK, unix.IFLA_AF_SPEC, vlanMessage(added))
}

// portVLANs returns the VLANs of a port with their flags.
func portVLANs(p pool, index int) (map[uint16]uint16, error) {
	m, err := readPort(p, index)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, hw.FromErrno(unix.EOPNOTSUPP)
	}
	return vlansOf(nested(m.get(unix.IFLA_AF_SPEC))), nil
}

// vlansOf returns the VLANs of a port with their flags.
func vlansOf(m message) map[uint16]uint16 {
	vlans := map[uint16]uint16{}
	begin := uint16(0)
	for _, a := range m.attrs {
		if kindOf(a) != afSpecVLAN || len(a.Value) < 4 {
			continue
		}
		flags, vid := binary.NativeEndian.Uint16(a.Value), binary.NativeEndian.Uint16(a.Value[2:])
		if flags&vlanRangeBegin != 0 {
			begin = vid
			continue
		}
		if flags&vlanRangeEnd == 0 {
			begin = vid
		}
		for v := begin; v <= vid; v++ {
			vlans[v] = flags & (vlanPVID | vlanUntagged)
		}
	}
	return vlans
}

// vlanMessage is the inverse of vlansOf, without ranges.
func vlanMessage(vlans map[uint16]uint16) (m message) {
	for vid, flags := range vlans {
		value := binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, flags), vid)
		m.attrs = append(m.attrs, syscall.NetlinkRouteAttr{Attr: syscall.RtAttr{Type: afSpecVLAN}, Value: value})
	}
	return m
}
