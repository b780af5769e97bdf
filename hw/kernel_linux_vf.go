package hw

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	// unknown is what rtnetlink reports for a setting of a VF that the driver does not know.
	unknown = 0xffffffff
	// attrType takes the flags off an attribute's type (NLA_TYPE_MASK).
	attrType = 0x3fff
)

// VFs implements Kernel. It parses the attributes itself, because the library takes "unknown" for "on" in spoofchk.
func (k *netlinkKernel) VFs(pf int) ([]VFState, error) {
	answer, err := k.ask(pf, nl.RTEXT_FILTER_VF)
	if err != nil {
		return nil, err
	}
	msg := nl.DeserializeIfInfomsg(answer)
	attrs, err := nl.ParseRouteAttr(answer[msg.Len():])
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: %w", err)
	}
	var states []VFState
	for _, a := range attrs {
		if a.Attr.Type&attrType != unix.IFLA_VFINFO_LIST {
			continue
		}
		infos, err := nl.ParseRouteAttr(a.Value)
		if err != nil {
			return nil, fmt.Errorf("rtnetlink: list of vfs: %w", err)
		}
		for _, info := range infos {
			s, err := parseVF(info.Value, msg.Type)
			if err != nil {
				return nil, fmt.Errorf("rtnetlink: vf %d: %w", len(states), err)
			}
			states = append(states, s)
		}
	}
	return states, nil
}

// parseVF reads one IFLA_VF_INFO of a PF with the given link type (ARPHRD_*).
func parseVF(info []byte, linkType uint16) (VFState, error) {
	attrs, err := nl.ParseRouteAttr(info)
	if err != nil {
		return VFState{}, err
	}
	var s VFState
	for _, a := range attrs {
		switch t := a.Attr.Type & attrType; {
		case t == nl.IFLA_VF_MAC && len(a.Value) >= nl.SizeofVfMac && linkType == unix.ARPHRD_ETHER:
			mac := nl.DeserializeVfMac(a.Value).Mac[:6]
			if !bytes.Equal(mac, make([]byte, 6)) {
				s.MAC = MAC(net.HardwareAddr(mac).String())
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
				return VFState{}, err
			}
		case t == nl.IFLA_VF_RATE && len(a.Value) >= nl.SizeofVfRate:
			r := nl.DeserializeVfRate(a.Value)
			s.Rate = Rate{Min: int(r.MinTxRate), Max: int(r.MaxTxRate)}
		case t == nl.IFLA_VF_LINK_STATE && len(a.Value) >= nl.SizeofVfLinkState:
			s.LinkMode = linkMode(nl.DeserializeVfLinkState(a.Value).LinkState)
		case t == nl.IFLA_VF_SPOOFCHK && len(a.Value) >= nl.SizeofVfSpoofchk:
			s.Spoofchk = isOn(nl.DeserializeVfSpoofchk(a.Value).Setting)
		case t == nl.IFLA_VF_TRUST && len(a.Value) >= nl.SizeofVfTrust:
			s.Trust = isOn(nl.DeserializeVfTrust(a.Value).Setting)
		}
	}
	return s, nil
}

// parseVLANProto reads the protocol of the first tag in an IFLA_VF_VLAN_LIST.
func parseVLANProto(list []byte) (VLANProto, error) {
	tags, err := nl.ParseRouteAttr(list)
	if err != nil {
		return "", err
	}
	for _, t := range tags {
		if t.Attr.Type&attrType == nl.IFLA_VF_VLAN_INFO && len(t.Value) >= nl.SizeofVfVlanInfo &&
			nl.DeserializeVfVlanInfo(t.Value).VlanProto == unix.ETH_P_8021AD {
			return Dot1AD, nil
		}
	}
	return "", nil
}

// linkMode is an IFLA_VF_LINK_STATE_* in our words.
func linkMode(state uint32) LinkMode {
	switch state {
	case nl.IFLA_VF_LINK_STATE_ENABLE:
		return LinkEnable
	case nl.IFLA_VF_LINK_STATE_DISABLE:
		return LinkDisable
	}
	return ""
}

// number is linkMode's inverse.
func (m LinkMode) number() uint32 {
	switch m {
	case LinkEnable:
		return nl.IFLA_VF_LINK_STATE_ENABLE
	case LinkDisable:
		return nl.IFLA_VF_LINK_STATE_DISABLE
	}
	return nl.IFLA_VF_LINK_STATE_AUTO
}

func isOn(setting uint32) bool { return setting != 0 && setting != unknown }

// SetVF implements Kernel.
func (k *netlinkKernel) SetVF(pf, vf int, c VFChange) error {
	if pf <= 0 {
		return FromErrno(unix.ENODEV)
	}
	return k.changers.use(func(h *netlink.Handle) error {
		return c.Each(func(_ string, one VFChange) error { return FromErrno(setVF(h, pf, vf, one)) })
	})
}

// setVF applies a change of one field.
func setVF(h *netlink.Handle, pf, vf int, c VFChange) error {
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
				return fmt.Errorf("%w: %w", ErrInvalid, err)
			}
		}
		return h.LinkSetVfHardwareAddr(at(pf), vf, mac)
	case c.VLAN != nil:
		if c.VLAN.Proto == Dot1AD {
			return h.LinkSetVfVlanQosProto(at(pf), vf, c.VLAN.ID, c.VLAN.QoS, unix.ETH_P_8021AD)
		}
		return h.LinkSetVfVlanQos(at(pf), vf, c.VLAN.ID, c.VLAN.QoS)
	case c.Rate != nil:
		return h.LinkSetVfRate(at(pf), vf, c.Rate.Min, c.Rate.Max)
	case c.LinkMode != nil:
		return h.LinkSetVfState(at(pf), vf, c.LinkMode.number())
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
func guid(n uint64) GUID {
	if n == 0 || n == noGUID {
		return ""
	}
	return GUID(net.HardwareAddr(binary.BigEndian.AppendUint64(nil, n)).String())
}

// setGUID sets one of a VF's GUIDs; which is an IFLA_VF_IB_*.
func setGUID(h *netlink.Handle, pf, vf int, g GUID, which int) error {
	octets := net.HardwareAddr(binary.BigEndian.AppendUint64(nil, noGUID))
	if g != "" {
		var err error
		if octets, err = net.ParseMAC(string(g)); err != nil || len(octets) != 8 {
			return FromErrno(unix.EINVAL)
		}
	}
	return h.LinkSetVfGUID(at(pf), vf, octets, which)
}
