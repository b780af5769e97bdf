package hw

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/internal/number"
)

// VFState is what a PF has set for one VF.
type VFState struct {
	NodeGUID GUID `json:",omitempty"` // of a VF of an InfiniBand PF
	PortGUID GUID `json:",omitempty"` // likewise; its netdev's address ends in it
	MAC      MAC  // "" if the PF has set none (all zero in the message)
	VLAN     VLAN
	Trunk    string `json:",omitempty"` // VLANs that it sends and receives tagged, in the form of VLANRanges; "" if that is not restricted
	Rate     Rate
	LinkMode LinkMode
	Spoofchk bool
	Trust    bool
}

// Describe returns the state as an operator reads it: "mac 02:00:00:00:00:01, vlan 100, spoofchk on, trust off, link auto, rate not limited".
func (s VFState) Describe() string {
	vlan, rate := "none", "not limited"
	if s.VLAN.ID != 0 {
		vlan = fmt.Sprint(s.VLAN.ID)
		if s.VLAN.QoS != 0 {
			vlan += fmt.Sprintf(" qos %d", s.VLAN.QoS)
		}
		if s.VLAN.Proto != "" {
			vlan += " " + string(s.VLAN.Proto)
		}
	}
	if s.Rate != (Rate{}) {
		rate = s.Rate.String()
	}
	if s.Trunk != "" {
		vlan += ", trunk " + s.Trunk
	}
	onOff := map[bool]string{true: "on", false: "off"}
	return fmt.Sprintf("mac %s, vlan %s, spoofchk %s, trust %s, link %s, rate %s", cmp.Or(string(s.MAC), "none"), vlan, onOff[s.Spoofchk], onOff[s.Trust],
		s.LinkMode, rate)
}

// VFSpec is how a VF is to be set up: the values, and how much each attribute matters. An attribute without a policy is left
// as it is.
type VFSpec struct {
	VFState
	Policies map[VFAttr]Policy `json:"Need"`
}

// A VFAttr is one attribute that a PF sets for its VFs. The zero value is not an attribute.
type VFAttr struct{ *vfRow }

// A vfRow is everything that is known of an attribute. To add an attribute: a field of VFState, a row here and its place in
// vfAttrs.
type vfRow struct {
	attrRow[VFState]
	links   string // type of the links whose VFs have it, such as "infiniband"; "" for all
	netlink uint16 // the attribute of rtnetlink that carries it (IFLA_VF_*)
	decode  func(info VFInfo, s *VFState)
	encode  func(vf uint32, s *VFState) (attr uint16, value []byte, err error)

	// The file of mlx5's vendor driver that sets it as well, see vfDir; "" for none.
	file      string
	parseFile func(text string, s *VFState) error
	fileText  func(s *VFState) string
}

// The attributes of a VF.
var (
	VFNodeGUID  = newVFAttr("node_guid", "infiniband", func(s *VFState) *GUID { return &s.NodeGUID }, guidCodec(unix.IFLA_VF_IB_NODE_GUID, "node"))
	VFPortGUID  = newVFAttr("port_guid", "infiniband", func(s *VFState) *GUID { return &s.PortGUID }, guidCodec(unix.IFLA_VF_IB_PORT_GUID, "port"))
	VFMAC       = newVFAttr("mac", "ether", func(s *VFState) *MAC { return &s.MAC }, macCodec())
	VFVLAN      = newVFAttr("vlan", "ether", func(s *VFState) *VLAN { return &s.VLAN }, vlanCodec())
	VFRate      = newVFAttr("rate", "ether", func(s *VFState) *Rate { return &s.Rate }, rateCodec())
	VFLinkState = newVFAttr("link_state", "", func(s *VFState) *LinkMode { return &s.LinkMode }, linkModeCodec())
	VFSpoofchk  = newVFAttr("spoofchk", "ether", func(s *VFState) *bool { return &s.Spoofchk }, boolCodec(unix.IFLA_VF_SPOOFCHK))
	VFTrunk     = newTrunkAttr()
	VFTrust     = newVFAttr("trust", "ether", func(s *VFState) *bool { return &s.Trust }, boolCodec(unix.IFLA_VF_TRUST))
)

// vfAttrs lists the attributes in the order of setting.
//
// The MAC comes first because i40e, ice and igb reset the VF for it, which must not undo what follows; the VLAN next,
// because i40e resets for it as well; then what only the PF acts on; spoofchk before trust, because a trusted VF may change
// its MAC at once. Restoring goes in reverse: trust is withdrawn before the MAC that it protected is restored.
var vfAttrs = []VFAttr{VFNodeGUID, VFPortGUID, VFMAC, VFVLAN, VFTrunk, VFRate, VFLinkState, VFSpoofchk, VFTrust}

// A vfCodec translates one attribute from and to messages of rtnetlink (include/uapi/linux/if_link.h).
type vfCodec[T any] struct {
	attr   uint16 // IFLA_VF_*
	size   int    // of the value in bytes, at least, with the number of the VF that it begins with
	decode func(value []byte, info VFInfo) T
	encode func(vf uint32, v T) (attr uint16, value []byte, err error)

	file      string
	parseFile func(text string) (T, error)
	fileText  func(v T) string
}

// newVFAttr returns the attribute whose value is at field.
func newVFAttr[T comparable](name, links string, field func(*VFState) *T, c vfCodec[T]) VFAttr {
	return VFAttr{&vfRow{
		attrRow: rowOf(name, field),
		links:   links,
		netlink: c.attr,
		decode: func(info VFInfo, s *VFState) {
			if value := info[c.attr]; len(value) >= c.size {
				*field(s) = c.decode(value, info)
			}
		},
		encode: func(vf uint32, s *VFState) (uint16, []byte, error) { return c.encode(vf, *field(s)) },
		file:   c.file,
		parseFile: func(text string, s *VFState) (err error) {
			*field(s), err = c.parseFile(text)
			return err
		},
		fileText: func(s *VFState) string { return c.fileText(*field(s)) },
	}}
}

// UnmarshalText reads the name of an attribute in a record. The error matches ErrInvalid if there is no such attribute.
func (a *VFAttr) UnmarshalText(name []byte) (err error) {
	*a, err = attrNamed(vfAttrs, string(name))
	return err
}

// On returns true if the VFs of a link of a type, such as "ether", have the attribute.
func (a VFAttr) On(linkType string) bool { return a.links == "" || a.links == linkType }

// Encode returns the attribute of an IFLA_VF_INFO that sets a to its value in s. The error matches ErrInvalid if the value
// cannot be expressed.
func (a VFAttr) Encode(vf int, s VFState) (attr uint16, value []byte, err error) {
	return a.encode(uint32(vf), &s)
}

// VFInfo is the attributes of one IFLA_VF_INFO of rtnetlink, by their types (IFLA_VF_*). Those in use begin with the number
// of the VF.
type VFInfo map[uint16][]byte

// Decode returns the index of the VF that a message is about, and what is set for it. linkType is the type of the PF's
// link, such as "ether".
func (m VFInfo) Decode(linkType string) (index int, s VFState, err error) {
	return m.decode(vfAttrs, linkType)
}

func (m VFInfo) decode(attrs []VFAttr, linkType string) (index int, s VFState, err error) {
	index = -1
	for _, a := range attrs {
		if value := m[a.netlink]; len(value) >= 4 {
			index = int(binary.NativeEndian.Uint32(value))
		}
		if a.On(linkType) {
			a.decode(m, &s)
		}
	}
	if index < 0 {
		return 0, VFState{}, errors.New("it does not say which vf it is of")
	}
	return index, s, nil
}

// words returns the number of a VF and further numbers as the members of a struct.
func words(vf uint32, numbers ...uint32) []byte {
	b := binary.NativeEndian.AppendUint32(nil, vf)
	for _, n := range numbers {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	return b
}

// word returns the i-th number of a struct, counted from 0, where the number of the VF is.
func word(value []byte, i int) uint32 { return binary.NativeEndian.Uint32(value[4*i:]) }

// boolCodec is for settings that are on or off (struct ifla_vf_spoofchk, ifla_vf_trust). All ones is what rtnetlink reports
// if the driver does not know.
func boolCodec(attr uint16) vfCodec[bool] {
	const unknown = 0xffffffff
	return vfCodec[bool]{attr: attr, size: 8,
		decode: func(value []byte, _ VFInfo) bool { n := word(value, 1); return n != 0 && n != unknown },
		encode: func(vf uint32, on bool) (uint16, []byte, error) {
			n := uint32(0)
			if on {
				n = 1
			}
			return attr, words(vf, n), nil
		},
	}
}

// macCodec is for struct ifla_vf_mac, which has room for 32 octets. All zero means that the VF may choose.
func macCodec() vfCodec[MAC] {
	const octets, room = 6, 32
	return vfCodec[MAC]{attr: unix.IFLA_VF_MAC, size: 4 + room,
		decode: func(value []byte, _ VFInfo) MAC {
			mac := value[4 : 4+octets]
			if bytes.Equal(mac, make([]byte, octets)) {
				return ""
			}
			return MAC(net.HardwareAddr(mac).String())
		},
		encode: func(vf uint32, m MAC) (uint16, []byte, error) {
			value := append(words(vf), make([]byte, room)...)
			if m != "" {
				mac, err := net.ParseMAC(string(m))
				if err != nil {
					return 0, nil, fmt.Errorf("%w: %w", ErrInvalid, err)
				}
				copy(value[4:], mac)
			}
			return unix.IFLA_VF_MAC, value, nil
		},
	}
}

// VLAN is the tag that the NIC adds to and takes off a VF's frames. ID 0 means untagged.
type VLAN struct {
	ID    int       // 0 to 4094
	QoS   int       // 802.1p priority, 0 to 7
	Proto VLANProto // of the tag
}

// VLANProto is the protocol of a tag: "" for 802.1q, or Dot1AD.
type VLANProto string

// Dot1AD is the protocol of a service tag.
const Dot1AD VLANProto = "802.1ad"

// String returns the tag as a user writes it: "100", or "100 qos 3" with a priority.
func (v VLAN) String() string {
	text := fmt.Sprint(v.ID)
	if v.QoS != 0 {
		text += fmt.Sprint(" qos ", v.QoS)
	}
	if v.Proto != "" {
		text += " proto " + string(v.Proto)
	}
	return text
}

// vlanCodec is for struct ifla_vf_vlan, and for the list of struct ifla_vf_vlan_info beside it, whose first entry has the
// protocol of the tag. Only a tag that is not 802.1q is set through the list.
func vlanCodec() vfCodec[VLAN] {
	const header, size = 4, 16 // of an entry of the list: the attribute's header, and the struct with its padding
	const protoAt = header + 12
	dot1AD := []byte{unix.ETH_P_8021AD >> 8, unix.ETH_P_8021AD & 0xff}
	return vfCodec[VLAN]{attr: unix.IFLA_VF_VLAN, size: 12,
		decode: func(value []byte, info VFInfo) VLAN {
			v := VLAN{ID: int(word(value, 1)), QoS: int(word(value, 2))}
			list := info[unix.IFLA_VF_VLAN_LIST]
			if len(list) >= header+size && bytes.Equal(list[protoAt:protoAt+2], dot1AD) {
				v.Proto = Dot1AD
			}
			return v
		},
		encode: func(vf uint32, v VLAN) (uint16, []byte, error) {
			value := words(vf, uint32(v.ID), uint32(v.QoS))
			if v.Proto != Dot1AD {
				return unix.IFLA_VF_VLAN, value, nil
			}
			list := binary.NativeEndian.AppendUint16(nil, header+size)
			list = binary.NativeEndian.AppendUint16(list, unix.IFLA_VF_VLAN_INFO)
			return unix.IFLA_VF_VLAN_LIST, slices.Concat(list, value, dot1AD, []byte{0, 0}), nil
		},
	}
}

// Rate is how fast a VF may send, in Mbit/s; 0 means no limit, and nothing guaranteed.
type Rate struct{ Min, Max int }

// String is "min 100 max 1000 Mbit/s".
func (r Rate) String() string { return fmt.Sprintf("min %d max %d Mbit/s", r.Min, r.Max) }

// rateCodec is for struct ifla_vf_rate.
func rateCodec() vfCodec[Rate] {
	return vfCodec[Rate]{attr: unix.IFLA_VF_RATE, size: 12,
		decode: func(value []byte, _ VFInfo) Rate { return Rate{Min: int(word(value, 1)), Max: int(word(value, 2))} },
		encode: func(vf uint32, r Rate) (uint16, []byte, error) {
			return unix.IFLA_VF_RATE, words(vf, uint32(r.Min), uint32(r.Max)), nil
		},
	}
}

// LinkMode is what a VF sees as its link (IFLA_VF_LINK_STATE): "" for the PF's, the default, LinkEnable or LinkDisable. On
// InfiniBand it is the policy of the VF's port, whose default is LinkDisable.
type LinkMode string

// The link modes that do not follow the PF's link.
const (
	LinkEnable  LinkMode = "enable"  // always up: VFs can talk to each other without a cable
	LinkDisable LinkMode = "disable" // always down
)

// String returns iproute2's word for the mode.
func (m LinkMode) String() string {
	if m == "" {
		return "auto"
	}
	return string(m)
}

// linkModes are the link modes, by their IFLA_VF_LINK_STATE_*, and the words of mlx5's file for them.
var vfLinkModes = []struct {
	mode LinkMode
	file string
}{
	unix.IFLA_VF_LINK_STATE_AUTO:    {"", "Follow"},
	unix.IFLA_VF_LINK_STATE_ENABLE:  {LinkEnable, "Up"},
	unix.IFLA_VF_LINK_STATE_DISABLE: {LinkDisable, "Down"},
}

// linkModeCodec is for struct ifla_vf_link_state.
func linkModeCodec() vfCodec[LinkMode] {
	number := func(m LinkMode) int {
		for n, known := range vfLinkModes {
			if known.mode == m {
				return n
			}
		}
		return unix.IFLA_VF_LINK_STATE_AUTO
	}
	return vfCodec[LinkMode]{attr: unix.IFLA_VF_LINK_STATE, size: 8,
		decode: func(value []byte, _ VFInfo) LinkMode {
			if n := word(value, 1); n < uint32(len(vfLinkModes)) {
				return vfLinkModes[n].mode
			}
			return ""
		},
		encode: func(vf uint32, m LinkMode) (uint16, []byte, error) {
			return unix.IFLA_VF_LINK_STATE, words(vf, uint32(number(m))), nil
		},
		file: "policy",
		parseFile: func(text string) (LinkMode, error) {
			for _, known := range vfLinkModes {
				if known.file == text {
					return known.mode, nil
				}
			}
			return "", ErrInvalid
		},
		fileText: func(m LinkMode) string { return vfLinkModes[number(m)].file },
	}
}

// noGUIDs are the GUIDs that mean none. Files are written the first. rtnetlink is sent the second: a port without a GUID is
// none for a subnet manager, and a fabric uses all zero for "unknown".
var noGUIDs = []GUID{"00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff"}

// normalGUID returns g, or "" if g means none.
func normalGUID(g GUID) GUID {
	if slices.Contains(noGUIDs, g) {
		return ""
	}
	return g
}

// guidCodec is for struct ifla_vf_guid, whose number has the first octet as its highest, and which is padded to 16 bytes.
func guidCodec(attr uint16, file string) vfCodec[GUID] {
	return vfCodec[GUID]{attr: attr, size: 16,
		decode: func(value []byte, _ VFInfo) GUID {
			octets := binary.BigEndian.AppendUint64(nil, binary.NativeEndian.Uint64(value[8:]))
			return normalGUID(GUID(net.HardwareAddr(octets).String()))
		},
		encode: func(vf uint32, g GUID) (uint16, []byte, error) {
			if g == "" {
				g = noGUIDs[1]
			}
			octets, err := net.ParseMAC(string(g))
			if err != nil || len(octets) != 8 {
				return 0, nil, FromErrno(unix.EINVAL)
			}
			value := words(vf, 0)
			return attr, binary.NativeEndian.AppendUint64(value, binary.BigEndian.Uint64(octets)), nil
		},
		file:      file,
		parseFile: func(text string) (GUID, error) { return normalGUID(GUID(strings.ToLower(text))), nil },
		fileText: func(g GUID) string {
			if g == "" {
				g = noGUIDs[0]
			}
			return string(g)
		},
	}
}

// newTrunkAttr returns the attribute for trunks, of which rtnetlink knows nothing: they are set through a file, see vfs.setTrunk.
func newTrunkAttr() VFAttr {
	return VFAttr{&vfRow{
		attrRow: rowOf("trunk", func(s *VFState) *string { return &s.Trunk }),
		links:   "ether",
		decode:  func(VFInfo, *VFState) {},
		encode:  func(uint32, *VFState) (uint16, []byte, error) { return 0, nil, FromErrno(unix.EOPNOTSUPP) },
	}}
}

// maxVLAN is above what a VLAN's ID can be: drivers that list VLANs may list it, too.
const maxVLAN = 4095

// VLANRanges returns VLANs as a list of ranges in ascending order, such as "100-200,300".
func VLANRanges(ids []int) string {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	var parts []string
	for i := 0; i < len(ids); i++ {
		first := ids[i]
		for i+1 < len(ids) && ids[i+1] == ids[i]+1 {
			i++
		}
		if parts = append(parts, fmt.Sprint(first)); ids[i] != first {
			parts[len(parts)-1] += fmt.Sprint("-", ids[i])
		}
	}
	return strings.Join(parts, ",")
}

// parseTrunk reads what a trunk file says: "100-200,300" in drivers of Intel (vfd.c of i40e 2 and ice 1, vfd_trunk_show), and "Allowed 802.1Q
// VLANs: 100 101 300" in the mlx5 driver of its vendor (core/sriov_sysfs.c, trunk_show); nothing if the VF is not restricted.
func parseTrunk(text string) (ids []int, ok bool) {
	text = strings.TrimPrefix(text, "Allowed 802.1Q VLANs:")
	list := strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == ',' })
	if len(list) == 0 {
		return nil, true
	}
	return number.ParseList(strings.Join(list, ","), maxVLAN)
}
