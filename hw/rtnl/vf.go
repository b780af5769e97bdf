package rtnl

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

const (
	// unknown is what rtnetlink reports for a setting of a VF that the driver does not know.
	unknown = 0xffffffff
	// attrType takes the flags off an attribute's type (NLA_TYPE_MASK).
	attrType = 0x3fff
)

// VFs implements [hw.Kernel]. It parses the attributes itself, because the library takes "unknown" for "on" in spoofchk.
//
// Counters are left out: with them 220 VFs do not fit into the 64 KiB of the attribute (Linux 6.5 and later leave them out). Before
// 6.15 the kernel makes too small an answer for the GUIDs of a dozen VFs (net/core/rtnetlink.c, rtnl_vfinfo_size), EMSGSIZE;
// in a listing there is more room.
func (k *Kernel) VFs(pf int) (map[int]hw.VFState, error) {
	const filter = nl.RTEXT_FILTER_VF | skipStats
	answer, err := k.ask(pf, filter)
	if errors.Is(err, unix.EMSGSIZE) {
		answer, err = k.findListed(pf, filter)
	}
	if err != nil {
		return nil, tooMany(err)
	}
	return parseVFs(answer)
}

// tooMany says what to do where the kernel cannot tell of all VFs at once.
func tooMany(err error) error {
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the kernel cannot tell of so many vfs at once; make fewer (numvfs): %w", err)
	}
	return err
}

// findListed is the answer about one link in the listing of all.
func (k *Kernel) findListed(index int, filter uint32) ([]byte, error) {
	all, err := dump(func() ([][]byte, error) { return k.askAll(filter) })
	if err != nil {
		return nil, err
	}
	for _, answer := range all {
		if int(nl.DeserializeIfInfomsg(answer).Index) == index {
			return answer, nil
		}
	}
	return nil, hw.FromErrno(unix.ENODEV)
}

// parseVFs reads the IFLA_VFINFO_LIST of a link, nil where there is none. Entries are in order of the VFs' indexes, but a VF
// that the driver has nothing to say of has none (net/core/rtnetlink.c, rtnl_fill_vfinfo, Linux 6.12): ice and i40e while they
// reset it.
func parseVFs(answer []byte) (map[int]hw.VFState, error) {
	msg := nl.DeserializeIfInfomsg(answer)
	attrs, err := nl.ParseRouteAttr(answer[msg.Len():])
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	var states map[int]hw.VFState
	for _, a := range attrs {
		if a.Attr.Type&attrType != unix.IFLA_VFINFO_LIST {
			continue
		}
		states = map[int]hw.VFState{}
		infos, err := nl.ParseRouteAttr(a.Value)
		if err != nil {
			return nil, fmt.Errorf("rtnetlink: list of vfs: %w", err)
		}
		for i, info := range infos {
			index, s, err := parseVF(info.Value, msg.Type)
			if err != nil {
				return nil, fmt.Errorf("rtnetlink: entry %d of the list of vfs: %w", i, err)
			}
			states[index] = s
		}
	}
	return states, nil
}

// saysWhich are attributes that begin with the number of the VF (include/uapi/linux/if_link.h). The first is there for each VF.
var saysWhich = []uint16{nl.IFLA_VF_MAC, nl.IFLA_VF_VLAN, nl.IFLA_VF_RATE, nl.IFLA_VF_LINK_STATE, nl.IFLA_VF_SPOOFCHK, nl.IFLA_VF_TRUST,
	nl.IFLA_VF_IB_NODE_GUID, nl.IFLA_VF_IB_PORT_GUID}

// parseVF reads one IFLA_VF_INFO of a PF with the given link type (ARPHRD_*): what is set, and for which VF.
func parseVF(info []byte, linkType uint16) (index int, s hw.VFState, _ error) {
	attrs, err := nl.ParseRouteAttr(info)
	if err != nil {
		return 0, hw.VFState{}, err
	}
	index = -1
	for _, a := range attrs {
		if slices.Contains(saysWhich, a.Attr.Type&attrType) && len(a.Value) >= 4 {
			index = int(binary.NativeEndian.Uint32(a.Value))
		}
		switch t := a.Attr.Type & attrType; {
		case t == nl.IFLA_VF_MAC && len(a.Value) >= nl.SizeofVfMac && linkType == unix.ARPHRD_ETHER:
			mac := nl.DeserializeVfMac(a.Value).Mac[:6]
			if !bytes.Equal(mac, make([]byte, 6)) {
				s.MAC = hw.MAC(net.HardwareAddr(mac).String())
			}
		case t == nl.IFLA_VF_IB_NODE_GUID && len(a.Value) >= nl.SizeofVfGUID:
			s.NodeGUID = guid(nl.DeserializeVfGUID(a.Value).GUID)
		case t == nl.IFLA_VF_IB_PORT_GUID && len(a.Value) >= nl.SizeofVfGUID:
			s.PortGUID = guid(nl.DeserializeVfGUID(a.Value).GUID)
		case t == nl.IFLA_VF_VLAN && len(a.Value) >= nl.SizeofVfVlan:
			v := nl.DeserializeVfVlan(a.Value)
			s.VLAN.ID, s.VLAN.QoS = int(v.Vlan), int(v.Qos)
		case t == nl.IFLA_VF_VLAN_LIST:
			if s.VLAN.Proto, err = parseVLANProto(a.Value); err != nil {
				return 0, hw.VFState{}, err
			}
		case t == nl.IFLA_VF_RATE && len(a.Value) >= nl.SizeofVfRate:
			r := nl.DeserializeVfRate(a.Value)
			s.Rate = hw.Rate{Min: int(r.MinTxRate), Max: int(r.MaxTxRate)}
		case t == nl.IFLA_VF_LINK_STATE && len(a.Value) >= nl.SizeofVfLinkState:
			s.LinkMode = linkMode(nl.DeserializeVfLinkState(a.Value).LinkState)
		case t == nl.IFLA_VF_SPOOFCHK && len(a.Value) >= nl.SizeofVfSpoofchk:
			s.Spoofchk = isOn(nl.DeserializeVfSpoofchk(a.Value).Setting)
		case t == nl.IFLA_VF_TRUST && len(a.Value) >= nl.SizeofVfTrust:
			s.Trust = isOn(nl.DeserializeVfTrust(a.Value).Setting)
		}
	}
	if index < 0 {
		return 0, hw.VFState{}, errors.New("it does not say which vf it is of")
	}
	return index, s, nil
}

// parseVLANProto reads the protocol of the first tag in an IFLA_VF_VLAN_LIST.
func parseVLANProto(list []byte) (hw.VLANProto, error) {
	tags, err := nl.ParseRouteAttr(list)
	if err != nil {
		return "", err
	}
	for _, t := range tags {
		if t.Attr.Type&attrType == nl.IFLA_VF_VLAN_INFO && len(t.Value) >= nl.SizeofVfVlanInfo &&
			nl.DeserializeVfVlanInfo(t.Value).VlanProto == unix.ETH_P_8021AD {
			return hw.Dot1AD, nil
		}
	}
	return "", nil
}

// linkMode is an IFLA_VF_LINK_STATE_* in our words.
func linkMode(state uint32) hw.LinkMode {
	switch state {
	case nl.IFLA_VF_LINK_STATE_ENABLE:
		return hw.LinkEnable
	case nl.IFLA_VF_LINK_STATE_DISABLE:
		return hw.LinkDisable
	}
	return ""
}

// linkModeNumber is the inverse of linkMode.
func linkModeNumber(m hw.LinkMode) uint32 {
	switch m {
	case hw.LinkEnable:
		return nl.IFLA_VF_LINK_STATE_ENABLE
	case hw.LinkDisable:
		return nl.IFLA_VF_LINK_STATE_DISABLE
	}
	return nl.IFLA_VF_LINK_STATE_AUTO
}

func isOn(setting uint32) bool { return setting != 0 && setting != unknown }

// SetVF implements [hw.Kernel].
func (k *Kernel) SetVF(pf, vf int, c hw.VFChange) error {
	if pf <= 0 {
		return hw.FromErrno(unix.ENODEV)
	}
	return k.changers.use(func(h *netlink.Handle) error {
		return c.Each(func(_ string, one hw.VFChange) error { return hw.FromErrno(setVF(h, pf, vf, one)) })
	})
}

// setVF applies a change of one field.
func setVF(h *netlink.Handle, pf, vf int, c hw.VFChange) error {
	switch {
	case c.NodeGUID != nil:
		return setGUID(h, pf, vf, *c.NodeGUID, nl.IFLA_VF_IB_NODE_GUID)
	case c.PortGUID != nil:
		return setGUID(h, pf, vf, *c.PortGUID, nl.IFLA_VF_IB_PORT_GUID)
	case c.MAC != nil:
		mac := net.HardwareAddr(make([]byte, 6)) // all zero: the VF may choose
		if *c.MAC != "" {
			var err error
			if mac, err = net.ParseMAC(string(*c.MAC)); err != nil {
				return fmt.Errorf("%w: %w", hw.ErrInvalid, err)
			}
		}
		return h.LinkSetVfHardwareAddr(at(pf), vf, mac)
	case c.VLAN != nil:
		if c.VLAN.Proto == hw.Dot1AD {
			return h.LinkSetVfVlanQosProto(at(pf), vf, c.VLAN.ID, c.VLAN.QoS, unix.ETH_P_8021AD)
		}
		return h.LinkSetVfVlanQos(at(pf), vf, c.VLAN.ID, c.VLAN.QoS)
	case c.Rate != nil:
		return h.LinkSetVfRate(at(pf), vf, c.Rate.Min, c.Rate.Max)
	case c.LinkMode != nil:
		return h.LinkSetVfState(at(pf), vf, linkModeNumber(*c.LinkMode))
	case c.Spoofchk != nil:
		return h.LinkSetVfSpoofchk(at(pf), vf, *c.Spoofchk)
	case c.Trust != nil:
		return h.LinkSetVfTrust(at(pf), vf, *c.Trust)
	}
	return nil
}

// noGUID is what is set for a GUID that is taken back: a port without one is none for a subnet manager, and all zero is
// what a fabric has for "unknown".
const noGUID = ^uint64(0)

// guid is a GUID of rtnetlink (struct ifla_vf_guid), the first octet the highest, in our words.
func guid(n uint64) hw.GUID {
	if n == 0 || n == noGUID {
		return ""
	}
	return hw.GUID(net.HardwareAddr(binary.BigEndian.AppendUint64(nil, n)).String())
}

// setGUID sets one of a VF's GUIDs; which is an IFLA_VF_IB_*.
func setGUID(h *netlink.Handle, pf, vf int, g hw.GUID, which int) error {
	octets := net.HardwareAddr(binary.BigEndian.AppendUint64(nil, noGUID))
	if g != "" {
		var err error
		if octets, err = net.ParseMAC(string(g)); err != nil || len(octets) != 8 {
			return hw.FromErrno(unix.EINVAL)
		}
	}
	return h.LinkSetVfGUID(at(pf), vf, octets, which)
}
