package hw

// VFChange is a change of a VF through its PF; nil fields are left alone.
type VFChange struct {
	NodeGUID *GUID
	PortGUID *GUID
	MAC      *MAC // "" is sent as the all-zero address: no MAC set by the PF
	VLAN     *VLAN
	Rate     *Rate
	LinkMode *LinkMode
	Spoofchk *bool
	Trust    *bool
}

// VFState is what a PF has set for one VF.
type VFState struct {
	NodeGUID GUID `json:",omitempty"` // of a VF of an InfiniBand PF
	PortGUID GUID `json:",omitempty"` // likewise; its netdev's address ends in it
	MAC      MAC  // "" when the PF has set none (all zero on the wire)
	VLAN     VLAN
	Rate     Rate
	LinkMode LinkMode
	Spoofchk bool
	Trust    bool
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

// Rate is how fast a VF may send, in Mbit/s; 0 means no limit, and nothing guaranteed.
type Rate struct{ Min, Max int }

// LinkMode is what a VF sees as its link (IFLA_VF_LINK_STATE): "" for the PF's, the default, LinkEnable or LinkDisable. On
// InfiniBand it is the policy of the VF's port, whose default is LinkDisable.
type LinkMode string

// The link modes that do not follow the PF's link.
const (
	LinkEnable  LinkMode = "enable"  // always up: VFs can talk to each other without a cable
	LinkDisable LinkMode = "disable" // always down
)
