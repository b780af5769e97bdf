package rtnl

import (
	"errors"
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
