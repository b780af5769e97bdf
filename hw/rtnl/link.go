package rtnl

import (
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Links implements [hw.Kernel]. Concurrent callers share a listing, because while links change a listing has to be
// repeated often.
func (k *Kernel) Links() ([]hw.Link, error) {
	links, err := k.links.read(k.listLinks)
	return slices.Clone(links), err
}

// listLinks lists the links without their counters and VFs. The library's own listing requests those of every VF, and
// fails for all links if those of one PF exceed a message.
func (k *Kernel) listLinks() ([]hw.Link, error) {
	answers, err := dumpLinks(k.sockets, skipStats)
	if err != nil {
		return nil, err
	}
	links := make([]hw.Link, 0, len(answers))
	for _, answer := range answers {
		l, err := toLink(answer)
		if err != nil {
			return nil, err
		}
		links = append(links, l)
	}
	return links, nil
}

// dumpLinks lists all links, with a filter (RTEXT_FILTER_*); each answer is an ifinfomsg with its attributes. attrs are further attributes of
// the request.
func dumpLinks(p pool, filter uint32, attrs ...byte) (answers [][]byte, err error) {
	body := appendAttr(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_EXT_MASK, u32(filter))
	return listMessages(p, unix.RTM_GETLINK, unix.RTM_NEWLINK, append(body, attrs...))
}

// LinkAt implements [hw.Kernel].
func (k *Kernel) LinkAt(index int) (hw.Link, error) {
	if index <= 0 {
		return hw.Link{}, hw.FromErrno(unix.ENODEV)
	}
	return k.readLink(index)
}

// LinkNamed implements [hw.Kernel].
func (k *Kernel) LinkNamed(name string) (hw.Link, error) {
	if name == "" || len(name) >= unix.IFNAMSIZ {
		return hw.Link{}, hw.FromErrno(unix.ENODEV)
	}
	l, err := k.readLink(0, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	if err == nil && l.Name != name { // the kernel accepts alternative names as well
		err = hw.FromErrno(unix.ENODEV)
	}
	return l, err
}

// iflaNetNSImmutable is IFLA_NETNS_IMMUTABLE (include/uapi/linux/if_link.h, Linux 6.15).
const iflaNetNSImmutable = 67

// NetNSImmutable implements [hw.Kernel]. Before Linux 6.12 it is a feature of ethtool (NETIF_F_NETNS_LOCAL).
func (k *Kernel) NetNSImmutable(index int) (immutable, known bool, err error) {
	if index <= 0 {
		return false, false, hw.FromErrno(unix.ENODEV)
	}
	answer, err := k.getLink(index, skipStats)
	if err != nil {
		return false, false, err
	}
	attrs, err := attributes(answer[unix.SizeofIfInfomsg:])
	if err != nil {
		return false, false, err
	}
	if value := attrs[iflaNetNSImmutable]; len(value) == 1 {
		return value[0] != 0, true, nil
	}
	features, err := k.features(index)
	if errors.Is(err, hw.ErrUnsupported) {
		return false, false, nil
	}
	local, known := features["netns-local"]
	return local.Active, known, err
}

// skipStats is RTEXT_FILTER_SKIP_STATS (include/uapi/linux/rtnetlink.h).
const skipStats = 1 << 3

// readLink reads one link, without its counters and VFs.
func (k *Kernel) readLink(index int, which ...*nl.RtAttr) (hw.Link, error) {
	answer, err := k.getLink(index, skipStats, which...)
	if err != nil {
		return hw.Link{}, err
	}
	return toLink(answer)
}

// toLink returns what the kernel's answer says about a link. The library reads what is not an attribute that can be set.
func toLink(answer []byte) (hw.Link, error) {
	read, err := netlink.LinkDeserialize(nil, answer)
	if err != nil {
		return hw.Link{}, fmt.Errorf("rtnetlink: %w", err)
	}
	attrs, err := attributes(answer[unix.SizeofIfInfomsg:])
	if err != nil {
		return hw.Link{}, fmt.Errorf("rtnetlink: %w", err)
	}
	a := read.Attrs()
	l := hw.Link{
		Index:    a.Index,
		AltNames: a.AltNames,
		Kind:     kind(read),
		Type:     a.EncapType,
		PermMAC:  hw.MAC(a.PermHWAddr.String()),
		Carrier:  a.RawFlags&unix.IFF_LOWER_UP != 0,
		PortMAC:  portMAC(a.Slave),
		Peer:     a.ParentIndex,
		XDP:      xdp(a.Xdp),
	}
	if v, ok := read.(*netlink.Vlan); ok && v.VlanProtocol == netlink.VLAN_PROTOCOL_8021Q {
		l.VLAN = v.VlanId
	}
	// IFF_PROMISC and IFF_ALLMULTI are what an administrator has set; IFLA_PROMISCUITY also counts packet sockets and bridges.
	hw.LinkAnswer{Flags: a.RawFlags, Attrs: attrs}.Decode(&l)
	return l, nil
}

// xdp returns the XDP programs of a link. The library does not say which they are if there are several: one that is detached
// leaves the others to be read.
func xdp(x *netlink.LinkXdp) hw.XDP {
	const unknown = 0xffffffff
	if x == nil {
		return hw.XDP{}
	}
	switch x.AttachMode {
	case nl.XDP_ATTACHED_DRV:
		return hw.XDP{Driver: x.ProgId}
	case nl.XDP_ATTACHED_SKB:
		return hw.XDP{SKB: x.ProgId}
	case nl.XDP_ATTACHED_HW:
		return hw.XDP{Hardware: x.ProgId}
	case nl.XDP_ATTACHED_HW + 1: // XDP_ATTACHED_MULTI
		return hw.XDP{SKB: unknown, Driver: unknown, Hardware: unknown}
	}
	return hw.XDP{}
}

// portMAC returns the MAC that a bond keeps for a port.
func portMAC(slave netlink.LinkSlave) hw.MAC {
	if b, ok := slave.(*netlink.BondSlave); ok {
		return hw.MAC(b.PermHardwareAddr.String())
	}
	return ""
}

// kind returns IFLA_INFO_KIND. The library has its own names for links without one, and for tun and tap.
func kind(l netlink.Link) string {
	switch l := l.(type) {
	case *netlink.Device:
		return ""
	case *netlink.Tuntap:
		return "tun"
	default:
		return l.Type()
	}
}

// at returns a link by its ifindex, so that the library does not look it up.
func at(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// SetLink implements [hw.Kernel]. A link that is up is renamed as it is, which Linux before 6.2 refuses with ErrBusy: taking
// it down for a moment, as some tools do, would cost it its routes and IPv6 addresses without the caller's knowledge.
func (k *Kernel) SetLink(index int, a hw.LinkAttr, want hw.Link) error {
	m, err := a.Encode(want)
	if err != nil {
		return err
	}
	msg := nl.IfInfomsg{IfInfomsg: unix.IfInfomsg{Flags: m.Flags, Change: m.Mask}}
	if m.Attr == 0 {
		return send(k.changers, unix.RTM_SETLINK, msg, index)
	}
	return send(k.changers, unix.RTM_SETLINK, msg, index, nl.NewRtAttr(int(m.Attr), m.Value))
}

// AddAltName implements [hw.Kernel].
func (k *Kernel) AddAltName(index int, name string) error {
	return send(k.changers, unix.RTM_NEWLINKPROP, nl.IfInfomsg{}, index, altNames(name))
}

// RemoveAltName implements [hw.Kernel].
func (k *Kernel) RemoveAltName(index int, name string) error {
	return send(k.changers, unix.RTM_DELLINKPROP, nl.IfInfomsg{}, index, altNames(name))
}

// altNames is an IFLA_PROP_LIST with one alternative name.
func altNames(name string) *nl.RtAttr {
	list := nl.NewRtAttr(unix.IFLA_PROP_LIST|unix.NLA_F_NESTED, nil)
	list.AddRtAttr(unix.IFLA_ALT_IFNAME, []byte(name))
	return list
}

// send sends a message about a link over one of the sockets of a pool, and waits until the kernel has done what it says.
func send(p pool, msgType int, msg nl.IfInfomsg, index int, attrs ...*nl.RtAttr) error {
	if index <= 0 {
		return hw.FromErrno(unix.ENODEV)
	}
	msg.Index = int32(index)
	return p.use(func(s *nl.SocketHandle) error {
		req := request(s, msgType, unix.NLM_F_ACK)
		req.AddData(&msg)
		for _, a := range attrs {
			req.AddData(a)
		}
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return hw.FromErrno(err)
	})
}

// getLink requests one link, with a filter (RTEXT_FILTER_*); the answer is an ifinfomsg with its attributes. Unlike a
// listing it is not interrupted by changes of other links.
func (k *Kernel) getLink(index int, filter uint32, which ...*nl.RtAttr) (answer []byte, err error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index)
	err = k.sockets.use(func(s *nl.SocketHandle) error {
		req := request(s, unix.RTM_GETLINK, 0)
		req.AddData(msg)
		for _, a := range which {
			req.AddData(a)
		}
		req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(filter)))
		answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
		if err == nil && len(answers) != 1 {
			err = fmt.Errorf("rtnetlink gave %d answers about one link", len(answers))
		}
		if err == nil {
			answer = answers[0]
		}
		return hw.FromErrno(err)
	})
	return answer, err
}
