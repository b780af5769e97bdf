package rtnl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// attrType masks the flags of the type of an attribute (NLA_TYPE_MASK).
const attrType = 0x3fff

// VFs implements [hw.Kernel]. It parses the attributes itself, because the library takes "unknown" for "on" in
// spoofchk.
//
// Counters are left out: with them 220 VFs do not fit into the 64 KiB of the attribute (Linux 6.5 and later leave them
// out). Before 6.15 the kernel reserves too little room for the GUIDs of a dozen VFs (net/core/rtnetlink.c,
// rtnl_vfinfo_size), EMSGSIZE; a listing has more room.
func (k *Kernel) VFs(pf int) (map[int]hw.VFState, error) {
	const filter = nl.RTEXT_FILTER_VF | skipStats
	answer, err := k.getLink(pf, filter)
	if errors.Is(err, unix.EMSGSIZE) {
		answer, err = k.getFromDump(pf, filter)
	}
	if err != nil {
		return nil, explainTooMany(err)
	}
	return parseVFs(answer)
}

// explainTooMany adds the remedy if the kernel cannot report all VFs in one message.
func explainTooMany(err error) error {
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the kernel cannot tell of so many vfs at once; make fewer (numvfs): %w", err)
	}
	return err
}

// getFromDump returns the answer about one link from the listing of all.
func (k *Kernel) getFromDump(index int, filter uint32) ([]byte, error) {
	all, err := dumpLinks(k.sockets, filter)
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

// parseVFs reads the IFLA_VFINFO_LIST of a link, nil if there is none. Entries are in order of the VFs' indexes, but a
// VF of which the driver has nothing to report has none (net/core/rtnetlink.c, rtnl_fill_vfinfo, Linux 6.12): ice and
// i40e while they reset it.
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
			index, s, err := parseVF(info.Value, msg.EncapType())
			if err != nil {
				return nil, fmt.Errorf("rtnetlink: entry %d of the list of vfs: %w", i, err)
			}
			states[index] = s
		}
	}
	return states, nil
}

// parseVF reads one IFLA_VF_INFO of a PF with the given link type: what is set, and for which VF.
func parseVF(info []byte, linkType string) (index int, s hw.VFState, err error) {
	attrs, err := nl.ParseRouteAttr(info)
	if err != nil {
		return 0, hw.VFState{}, err
	}
	m := hw.VFInfo{}
	for _, a := range attrs {
		m[a.Attr.Type&attrType] = a.Value
	}
	return m.Decode(linkType)
}

// SetVF implements [hw.Kernel].
func (k *Kernel) SetVF(pf, vf int, a hw.VFAttr, want hw.VFState) error {
	attr, value, err := a.Encode(vf, want)
	if err != nil {
		return err
	}
	list := nl.NewRtAttr(unix.IFLA_VFINFO_LIST, nil)
	list.AddRtAttr(unix.IFLA_VF_INFO, nil).AddRtAttr(int(attr), value)
	return send(k.changers, unix.RTM_SETLINK, nl.IfInfomsg{}, pf, list)
}
