package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

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
	answer, err := k.answerWithVFs(pf)
	if err != nil {
		return nil, err
	}
	return parseVFs(answer)
}

// answerWithVFs returns what the kernel says of a PF with its VFs.
func (k *Kernel) answerWithVFs(pf int) ([]byte, error) {
	const filter = nl.RTEXT_FILTER_VF | skipStats
	answer, err := k.getLink(pf, filter)
	if errors.Is(err, unix.EMSGSIZE) {
		answer, err = getFromDump(k.sockets, pf, filter)
	}
	return answer, explainTooMany(err)
}

// explainTooMany adds the remedy if the kernel cannot report all VFs in one message.
func explainTooMany(err error) error {
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("the kernel cannot tell of so many vfs at once; make fewer (numvfs): %w", err)
	}
	return err
}

// getFromDump returns the answer about one link from the listing of all.
func getFromDump(p pool, index int, filter uint32) ([]byte, error) {
	all, err := dumpLinks(p, filter)
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
	infos, found, err := vfInfos(answer)
	if err != nil || !found {
		return nil, err
	}
	states := map[int]hw.VFState{}
	linkType := nl.DeserializeIfInfomsg(answer).EncapType()
	for i, info := range infos {
		index, s, err := parseVF(info.Value, linkType)
		if err != nil {
			return nil, fmt.Errorf("rtnetlink: entry %d of the list of vfs: %w", i, err)
		}
		states[index] = s
	}
	return states, nil
}

// vfInfos returns the entries of the IFLA_VFINFO_LIST of a link; found is false if there is no list.
func vfInfos(answer []byte) (infos []syscall.NetlinkRouteAttr, found bool, err error) {
	attrs, err := nl.ParseRouteAttr(answer[nl.DeserializeIfInfomsg(answer).Len():])
	if err != nil {
		return nil, false, fmt.Errorf("rtnetlink: %w", err)
	}
	for _, a := range attrs {
		if a.Attr.Type&attrType != unix.IFLA_VFINFO_LIST {
			continue
		}
		entries, err := nl.ParseRouteAttr(a.Value)
		if err != nil {
			return nil, false, fmt.Errorf("rtnetlink: list of vfs: %w", err)
		}
		infos, found = append(infos, entries...), true
	}
	return infos, found, nil
}

// parseVF reads one IFLA_VF_INFO of a PF with the given link type: what is set, and for which VF.
func parseVF(info []byte, linkType string) (index int, s hw.VFState, err error) {
	m, err := vfAttributes(info)
	if err != nil {
		return 0, hw.VFState{}, err
	}
	return m.Decode(linkType)
}

// vfAttributes reads the attributes of one IFLA_VF_INFO.
func vfAttributes(info []byte) (hw.VFInfo, error) {
	attrs, err := nl.ParseRouteAttr(info)
	m := hw.VFInfo{}
	for _, a := range attrs {
		m[a.Attr.Type&attrType] = a.Value
	}
	return m, err
}

// VFCounters implements [hw.Kernel].
func (k *Kernel) VFCounters(pf int) (map[int]hw.Counters, error) {
	answer, err := k.getLink(pf, nl.RTEXT_FILTER_VF)
	if err != nil {
		return nil, err
	}
	infos, found, err := vfInfos(answer)
	if err != nil || !found {
		return nil, err
	}
	counters := make(map[int]hw.Counters, len(infos))
	for i, info := range infos {
		index, c, err := parseVFCounters(info.Value)
		if err != nil {
			return nil, fmt.Errorf("rtnetlink: entry %d of the list of vfs: %w", i, err)
		}
		counters[index] = c
	}
	return counters, nil
}

// parseVFCounters reads the IFLA_VF_STATS of one IFLA_VF_INFO, and of which VF they are (IFLA_VF_MAC begins with its index).
func parseVFCounters(info []byte) (index int, c hw.Counters, err error) {
	attrs, err := nl.ParseRouteAttr(info)
	if err != nil {
		return 0, c, err
	}
	index = -1
	for _, a := range attrs {
		switch a.Attr.Type & attrType {
		case unix.IFLA_VF_MAC:
			if len(a.Value) >= 4 {
				index = int(binary.NativeEndian.Uint32(a.Value))
			}
		case unix.IFLA_VF_STATS:
			if err = readVFStats(a.Value, &c); err != nil {
				return 0, c, err
			}
		}
	}
	if index < 0 {
		return 0, c, fmt.Errorf("no index: %w", hw.ErrInvalid)
	}
	return index, c, nil
}

// readVFStats reads the attributes of an IFLA_VF_STATS by their numbers (include/uapi/linux/if_link.h, IFLA_VF_STATS_*). Those of the library
// leave out the one that is for padding, 6 (v1.3.1).
func readVFStats(stats []byte, c *hw.Counters) error {
	values, err := nl.ParseRouteAttr(stats)
	if err != nil {
		return err
	}
	to := map[uint16]*uint64{
		0: &c.RxPackets, 1: &c.TxPackets, 2: &c.RxBytes, 3: &c.TxBytes, 4: &c.RxBroadcast, 5: &c.RxMulticast, 7: &c.RxDropped, 8: &c.TxDropped,
	}
	for _, v := range values {
		if counter := to[v.Attr.Type&attrType]; counter != nil && len(v.Value) == 8 {
			*counter = binary.NativeEndian.Uint64(v.Value)
		}
	}
	return nil
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
