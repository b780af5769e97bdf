package rtnl

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Attributes of RTM_GETNSID (include/uapi/linux/net_namespace.h).
const (
	netnsaNSID = 1
	netnsaFD   = 3
)

// rtGenMsg is the size of a struct rtgenmsg with its padding.
const rtGenMsg = 4

// otherNamespaces reads and removes links of other network namespaces.
type otherNamespaces struct {
	self              *os.File // of the kernel's own namespace
	sockets, removers pool
}

// ChildrenElsewhere implements [hw.Kernel]. The kernel gives a namespace a number in the one that a link was moved from
// (net/core/dev.c, __dev_change_net_namespace: peernet2id_alloc), and with CAP_NET_ADMIN over it links can be listed and
// deleted there by that number (IFLA_TARGET_NETNSID, since Linux 4.16), without entering it.
func (o otherNamespaces) ChildrenElsewhere(index int) ([]hw.ForeignLink, error) {
	namespaces, err := o.namespaces()
	if err != nil {
		return nil, err
	}
	type found struct {
		hw.ForeignLink
		of int // namespace of the parent
	}
	var all []found
	for _, ns := range namespaces {
		links, err := o.linksIn(ns)
		if errors.Is(err, hw.ErrInvalid) || errors.Is(err, hw.ErrNotFound) { // it has just ended
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, l := range links {
			if a := l.Attrs(); a.ParentIndex == index {
				all = append(all, found{hw.ForeignLink{Namespace: ns, Index: a.Index, Name: a.Name, Kind: kind(l), Alias: a.Alias}, a.NetNsID})
			}
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	own, err := o.ownNamespace() // the answers above have given it its number
	if err != nil {
		return nil, err
	}
	var children []hw.ForeignLink
	for _, l := range all {
		if l.of == own && own >= 0 && l.Namespace != own && l.Kind != "veth" {
			children = append(children, l.ForeignLink)
		}
	}
	return children, nil
}

// RemoveElsewhere implements [hw.Kernel].
func (o otherNamespaces) RemoveElsewhere(l hw.ForeignLink) error {
	return send(o.removers, unix.RTM_DELLINK, nl.IfInfomsg{}, l.Index, inNamespace(l.Namespace))
}

// inNamespace directs a message about links to another namespace.
func inNamespace(ns int) *nl.RtAttr {
	return nl.NewRtAttr(unix.IFLA_TARGET_NETNSID, nl.Uint32Attr(uint32(ns)))
}

// linksIn lists the links of another namespace.
func (o otherNamespaces) linksIn(ns int) ([]netlink.Link, error) {
	answers, err := dumpLinks(o.sockets, skipStats, appendAttr(nil, unix.IFLA_TARGET_NETNSID, u32(uint32(ns)))...)
	if err != nil {
		return nil, hw.FromErrno(err)
	}
	var links []netlink.Link
	for _, answer := range answers {
		l, err := netlink.LinkDeserialize(nil, answer)
		if err != nil {
			return nil, fmt.Errorf("rtnetlink: %w", err)
		}
		links = append(links, l)
	}
	return links, nil
}

// namespaces lists the numbers of the namespaces that have one in this namespace.
func (o otherNamespaces) namespaces() ([]int, error) {
	return o.nsids(unix.NLM_F_DUMP)
}

// ownNamespace returns the number that this namespace has in itself, -1 for none.
func (o otherNamespaces) ownNamespace() (int, error) {
	ids, err := o.nsids(0, nl.NewRtAttr(netnsaFD, nl.Uint32Attr(uint32(o.self.Fd()))))
	if err != nil || len(ids) != 1 {
		return -1, err
	}
	return ids[0], nil
}

// nsids requests numbers of namespaces.
func (o otherNamespaces) nsids(flags int, which ...*nl.RtAttr) ([]int, error) {
	var ids []int
	err := o.sockets.use(func(s *nl.SocketHandle) error {
		req := request(s, unix.RTM_GETNSID, flags)
		req.AddData(nl.NewRtGenMsg())
		for _, a := range which {
			req.AddData(a)
		}
		answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNSID)
		if err != nil {
			return hw.FromErrno(err)
		}
		for _, answer := range answers {
			attrs, err := attributes(answer[rtGenMsg:])
			if err != nil {
				return fmt.Errorf("rtnetlink: %w", err)
			}
			if id := attrs[netnsaNSID]; len(id) == 4 {
				ids = append(ids, int(int32(nl.NativeEndian().Uint32(id))))
			}
		}
		return nil
	})
	return ids, err
}
