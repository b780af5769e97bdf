package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Solicit implements [hw.Kernel]. NTF_USE has the kernel resolve the address as if a frame waited for it
// (net/core/neighbour.c, neigh_add), which needs CAP_NET_ADMIN; a packet socket would need CAP_NET_RAW
// (net/packet/af_packet.c, packet_create).
func (k *Kernel) Solicit(index int, a netip.Addr) error {
	return hw.FromErrno(k.nl.NeighSet(&netlink.Neigh{LinkIndex: index, IP: a.AsSlice(), State: netlink.NUD_NONE,
		Flags: netlink.NTF_USE}))
}

// certain are the states of an entry whose neighbour has answered just now, or that an administrator made.
const certain = netlink.NUD_REACHABLE | netlink.NUD_PERMANENT | netlink.NUD_NOARP

// Neighbour implements [hw.Kernel].
func (k *Kernel) Neighbour(index int, a netip.Addr) (mac hw.MAC, known bool, err error) {
	family := unix.AF_INET
	if a.Is6() {
		family = unix.AF_INET6
	}
	all, err := dump(func() ([]netlink.Neigh, error) { return k.nl.NeighList(index, family) })
	if err != nil {
		return "", false, err
	}
	for _, n := range all {
		if ip, _ := netip.AddrFromSlice(n.IP); ip.Unmap() != a {
			continue
		}
		if n.State&certain != 0 {
			mac = hw.MAC(n.HardwareAddr.String())
		}
		return mac, true, nil
	}
	return "", false, nil
}

// ForgetNeighbour implements [hw.Kernel].
func (k *Kernel) ForgetNeighbour(index int, a netip.Addr) error {
	err := k.nl.NeighDel(&netlink.Neigh{LinkIndex: index, IP: a.AsSlice()})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return hw.FromErrno(err)
}

// Attributes of a neighbour that are state of the kernel (include/uapi/linux/neighbour.h).
const (
	ndaCacheinfo = 3
	ndaProbes    = 4
	ndaIfindex   = 8
	ndaMaster    = 9
	ndaVLAN      = 5
)

// neighbours lists the permanent neighbours of a link, and the addresses for which the host answers on it (proxies).
func neighbours(p pool, index int) (entries []hw.Entry, _ error) {
	for _, flags := range []byte{0, netlink.NTF_PROXY} {
		body := make([]byte, unix.SizeofNdMsg)
		body[10] = flags
		answers, err := listMessages(p, unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, body)
		if err != nil {
			return nil, err
		}
		for _, answer := range answers {
			m, err := split(answer, unix.SizeofNdMsg)
			if err != nil {
				return nil, err
			}
			permanent := binary.NativeEndian.Uint16(m.head[8:])&netlink.NUD_PERMANENT != 0
			proxy := m.head[10]&netlink.NTF_PROXY != 0
			if indexAt(m.head, 4) != index || !permanent && !proxy {
				continue
			}
			ip, _ := netip.AddrFromSlice(m.get(unix.NDA_DST))
			text := fmt.Sprintf("neighbour %s", ip)
			if proxy {
				text = fmt.Sprintf("proxy for neighbour %s", ip)
			}
			entries = append(entries, m.neighbour(hw.EntryNeighbour, text))
		}
	}
	return entries, nil
}

// neighbour converts a listed neighbour, or an entry of a bridge.
func (m message) neighbour(kind hw.EntryKind, text string) hw.Entry {
	putIndex(m.head, 4, 0)
	m.head[11] = 0 // the kind of address, which the kernel finds out
	m.without(ndaCacheinfo, ndaProbes, ndaIfindex, ndaMaster)
	return hw.Entry{Kind: kind, Text: text, Body: m.body()}
}

// addNeighbour adds a neighbour.
func addNeighbour(p pool, index int, e hw.Entry) error {
	m, err := split(e.Body, unix.SizeofNdMsg)
	if err != nil {
		return err
	}
	putIndex(m.head, 4, index)
	return sendMessage(p, unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, m.body())
}

// fdbEntries lists the static entries that lead to a port in the forwarding database of its bridge; not that of the port's
// own MAC, which the bridge makes.
func fdbEntries(p pool, l hw.Link) (entries []hw.Entry, _ error) {
	if l.Master == 0 {
		return nil, nil
	}
	body := make([]byte, unix.SizeofNdMsg)
	body[0] = unix.AF_BRIDGE
	answers, err := listMessages(p, unix.RTM_GETNEIGH, unix.RTM_NEWNEIGH, body)
	if err != nil {
		return nil, err
	}
	for _, answer := range answers {
		m, err := split(answer, unix.SizeofNdMsg)
		if err != nil {
			return nil, err
		}
		state, flags := binary.NativeEndian.Uint16(m.head[8:]), m.head[10]
		mac := net.HardwareAddr(m.get(unix.NDA_LLADDR)).String()
		own := state&netlink.NUD_PERMANENT != 0 && mac == string(l.MAC)
		switch {
		case indexAt(m.head, 4) != l.Index, m.number(ndaMaster, 0) != uint32(l.Master), own:
			continue
		case state&(netlink.NUD_NOARP|netlink.NUD_PERMANENT) == 0, flags&netlink.NTF_EXT_LEARNED != 0: // learnt
			continue
		}
		m.head[10] = flags&netlink.NTF_STICKY | netlink.NTF_MASTER
		text := "fdb entry " + mac
		if vlan := m.get(ndaVLAN); len(vlan) == 2 {
			text += fmt.Sprintf(" vlan %d", binary.NativeEndian.Uint16(vlan))
		}
		entries = append(entries, m.neighbour(hw.EntryFDB, text))
	}
	return entries, nil
}

// addFDB adds an entry to the forwarding database of the bridge that a link is a port of.
func addFDB(p pool, index int, e hw.Entry) error { return addNeighbour(p, index, e) }
