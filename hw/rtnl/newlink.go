package rtnl

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// macvlanNoPromisc is MACVLAN_FLAG_NOPROMISC (include/uapi/linux/if_link.h).
const macvlanNoPromisc = 1

// CreateLink implements [hw.Kernel]. rtnetlink loads the kind's module if there is one (net/core/rtnetlink.c,
// request_module, Linux 6.12).
func (k *Kernel) CreateLink(l hw.NewLink) error {
	attrs, err := linkMessage(l)
	if err != nil {
		return err
	}
	return k.sockets.use(func(s *nl.SocketHandle) error {
		req := request(s, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		for _, a := range attrs {
			req.AddData(a)
		}
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return hw.FromErrno(err)
	})
}

// linkMessage returns the attributes of a link to create. The alias cannot be among them: the kernel ignores it until
// the link exists (net/core/rtnetlink.c, rtnl_create_link, Linux 6.18).
func linkMessage(l hw.NewLink) ([]*nl.RtAttr, error) {
	data, err := linkData(l)
	if err != nil {
		return nil, err
	}
	attrs := []*nl.RtAttr{nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(l.Name))}
	if l.Parent != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_LINK, nl.Uint32Attr(uint32(l.Parent))))
	}
	if l.MTU != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MTU, nl.Uint32Attr(uint32(l.MTU))))
	}
	if l.MAC != "" {
		mac, err := net.ParseMAC(string(l.MAC))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", hw.ErrInvalid, err)
		}
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_ADDRESS, mac))
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated(l.Kind))
	info.AddChild(data)
	return append(attrs, info), nil
}

// linkData returns the IFLA_INFO_DATA of a link to create.
func linkData(l hw.NewLink) (*nl.RtAttr, error) {
	mode, err := l.ModeNumber()
	if err != nil {
		return nil, err
	}
	data := nl.NewRtAttr(nl.IFLA_INFO_DATA, nil)
	switch l.Kind {
	case hw.Macvlan:
		if l.Mode != "" {
			data.AddRtAttr(nl.IFLA_MACVLAN_MODE, nl.Uint32Attr(uint32(mode)))
		}
		if l.Mode == "passthru" { // its only child has the device's own MAC: no promiscuous mode is needed
			data.AddRtAttr(nl.IFLA_MACVLAN_FLAGS, nl.Uint16Attr(macvlanNoPromisc))
		}
	case hw.IPVlan:
		if l.Mode != "" {
			data.AddRtAttr(nl.IFLA_IPVLAN_MODE, nl.Uint16Attr(uint16(mode)))
		}
		if l.Flag != "" {
			flag, err := l.FlagNumber()
			if err != nil {
				return nil, err
			}
			data.AddRtAttr(nl.IFLA_IPVLAN_FLAG, nl.Uint16Attr(flag))
		}
	case hw.VLANDevice:
		data.AddRtAttr(nl.IFLA_VLAN_ID, nl.Uint16Attr(uint16(l.VLAN)))
	case hw.Bond:
		err = addBond(data, l)
	case hw.IPoIB:
		if l.PKey != 0 {
			data.AddRtAttr(nl.IFLA_IPOIB_PKEY, nl.Uint16Attr(uint16(l.PKey)))
		}
		if l.Mode != "" {
			data.AddRtAttr(nl.IFLA_IPOIB_MODE, nl.Uint16Attr(uint16(mode)))
		}
	}
	return data, err
}

// addBond adds the settings of a bond: the carrier of its ports is checked every 100 ms, which the kernel does not do
// by default. Modes that distribute flows hash addresses and ports: a container has one MAC, and most of its frames go
// to that of the gateway, so the default hash, by MACs, would use one port.
func addBond(data *nl.RtAttr, l hw.NewLink) error {
	const (
		miimonMsec = 100
		layer34    = 1 // BOND_XMIT_POLICY_LAYER34
	)
	if l.Mode == "" {
		l.Mode = "active-backup"
	}
	mode, err := l.ModeNumber()
	if err != nil {
		return err
	}
	data.AddRtAttr(nl.IFLA_BOND_MODE, []byte{byte(mode)})
	data.AddRtAttr(nl.IFLA_BOND_MIIMON, nl.Uint32Attr(miimonMsec))
	switch {
	case l.Mode == "balance-xor" || l.Mode == "802.3ad":
		data.AddRtAttr(nl.IFLA_BOND_XMIT_HASH_POLICY, []byte{layer34})
	case l.First != 0:
		data.AddRtAttr(nl.IFLA_BOND_PRIMARY, nl.Uint32Attr(uint32(l.First)))
	}
	return nil
}

// RemoveLink implements [hw.Kernel].
func (k *Kernel) RemoveLink(index int) error {
	return send(k.removers, unix.RTM_DELLINK, nl.IfInfomsg{}, index)
}
