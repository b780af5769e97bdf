package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
)

// RDMA is the RDMA devices of the running kernel, seen from the network namespace of the calling thread. It keeps no socket: the modules for
// RDMA may be loaded at any time, and there is none before.
type RDMA struct{}

var _ rdma.Kernel = RDMA{}

// What the library has no names for (include/uapi/rdma/rdma_netlink.h).
const (
	rdmaPortGet   = 5  // RDMA_NLDEV_CMD_PORT_GET
	rdmaNdevIndex = 50 // RDMA_NLDEV_ATTR_NDEV_INDEX
)

// Mode implements [rdma.Kernel].
func (RDMA) Mode() (mode rdma.Mode, err error) {
	err = withRDMA(func(h *netlink.Handle) error {
		text, err := h.RdmaSystemGetNetnsMode()
		mode = rdma.Mode(text)
		return err
	})
	return mode, err
}

// Links implements [rdma.Kernel].
func (RDMA) Links() (links []rdma.Link, err error) {
	err = withRDMA(func(h *netlink.Handle) error {
		list, err := dump(h.RdmaLinkList)
		for _, l := range list {
			links = append(links, rdma.Link{Index: int(l.Attrs.Index), Name: l.Attrs.Name})
		}
		return err
	})
	for i := range links {
		if err != nil {
			return nil, err
		}
		links[i].Netdev, err = netdevOf(links[i])
	}
	return links, err
}

// Move implements [rdma.Kernel].
func (RDMA) Move(index int, ns *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(ns.Fd()), &fs); err != nil {
		return hw.FromErrno(err)
	}
	if fs.Type != unix.NSFS_MAGIC { // one that is still to be mounted, or was unmounted
		return hw.ErrNotFound
	}
	return withRDMA(func(h *netlink.Handle) error {
		return h.RdmaLinkSetNsFd(&netlink.RdmaLink{Attrs: netlink.RdmaLinkAttrs{Index: uint32(index)}}, uint32(ns.Fd()))
	})
}

// Rename implements [rdma.Kernel].
func (RDMA) Rename(index int, name string) error {
	return withRDMA(func(h *netlink.Handle) error {
		return h.RdmaLinkSetName(&netlink.RdmaLink{Attrs: netlink.RdmaLinkAttrs{Index: uint32(index)}}, name)
	})
}

// withRDMA has do ask over a socket.
func withRDMA(do func(*netlink.Handle) error) error {
	h, err := netlink.NewHandle(unix.NETLINK_RDMA)
	if err != nil {
		return hw.FromErrno(err)
	}
	defer h.Close()
	if err := h.SetSocketTimeout(answerBound); err != nil {
		return err
	}
	return hw.FromErrno(do(h))
}

// netdevOf returns the ifindex of the netdev of a device's first port, 0 for none in this namespace, or if the device is gone.
func netdevOf(l rdma.Link) (int, error) {
	s, err := openSocket(unix.NETLINK_RDMA)
	if err != nil {
		return 0, hw.FromErrno(err)
	}
	defer s.Close()
	req := nl.NewNetlinkRequest(nl.RDMA_NL_NLDEV<<nl.RDMA_NL_GET_CLIENT_SHIFT|rdmaPortGet, 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_RDMA: s}
	req.AddData(nl.NewRtAttr(nl.RDMA_NLDEV_ATTR_DEV_INDEX, nl.Uint32Attr(uint32(l.Index))))
	req.AddData(nl.NewRtAttr(nl.RDMA_NLDEV_ATTR_PORT_INDEX, nl.Uint32Attr(1)))
	answers, err := req.Execute(unix.NETLINK_RDMA, 0)
	if errors.Is(err, unix.EINVAL) { // nldev_port_get_doit, Linux 6.12: no such device
		return 0, nil
	}
	if err != nil {
		return 0, hw.FromErrno(err)
	}
	if len(answers) != 1 {
		return 0, fmt.Errorf("rdma gave %d answers about %s", len(answers), l.Name)
	}
	attrs, err := attributes(answers[0])
	if index := attrs[rdmaNdevIndex]; len(index) == 4 {
		return int(binary.NativeEndian.Uint32(index)), err
	}
	return 0, err
}
