package rtnl

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

const (
	// settableFlags are the address flags that an administrator can set; the others are state of the kernel.
	settableFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE
	// forever is rtnetlink's INFINITY_LIFE_TIME.
	forever = 0xffffffff
)

// Addrs implements [hw.Kernel]. IPv6 privacy addresses (RFC 8981) are left out like the link-local ones: the kernel
// generates new ones from the address that they belong to.
func (k *Kernel) Addrs(index int) ([]hw.Addr, error) {
	if _, err := k.LinkAt(index); err != nil {
		return nil, err
	}
	found, err := dump(func() ([]netlink.Addr, error) { return k.nl.AddrList(at(index), netlink.FAMILY_ALL) })
	if err != nil {
		return nil, err
	}
	var addrs []hw.Addr
	for _, a := range found {
		v6 := a.IP.To4() == nil
		if v6 && (a.IP.IsLinkLocalUnicast() || a.Flags&unix.IFA_F_TEMPORARY != 0) {
			continue
		}
		addrs = append(addrs, toAddr(a))
	}
	return addrs, nil
}

// toAddr converts an address of the library.
func toAddr(a netlink.Addr) hw.Addr {
	addr := hw.Addr{
		CIDR:     a.IPNet.String(),
		Label:    a.Label,
		Scope:    a.Scope,
		Flags:    a.Flags & settableFlags,
		ValidSec: seconds(a.ValidLft),
		PrefSec:  seconds(a.PreferedLft),
	}
	if a.Peer != nil {
		addr.Peer = a.Peer.String()
	}
	if a.Broadcast != nil {
		addr.Broadcast = a.Broadcast.String()
	}
	if a.Flags&unix.IFA_F_DEPRECATED != 0 { // a lifetime of 0 says so as well, but not for an IPv4 address that is valid for ever
		addr.PrefSec = -1
	}
	return addr
}

// seconds returns a lifetime, 0 for one without end.
func seconds(life int) int {
	if life == forever {
		return 0
	}
	return life
}

// AddAddr implements [hw.Kernel]. An address that exists gets the lifetimes of a. An IPv6 address is added without duplicate
// address detection and gets its own flags then: until that has ended, which needs carrier, the kernel refuses routes that
// name the address as their source (net/ipv6/route.c, ip6_route_info_create, Linux 6.12: EINVAL).
func (k *Kernel) AddAddr(index int, a hw.Addr) error {
	addr, err := fromAddr(a)
	if err != nil {
		return err
	}
	if index <= 0 {
		return hw.FromErrno(unix.ENODEV)
	}
	if addr.IP.To4() == nil && addr.Flags&unix.IFA_F_NODAD == 0 {
		first := *addr
		first.Flags |= unix.IFA_F_NODAD
		if err := k.nl.AddrReplace(at(index), &first); err != nil {
			return hw.FromErrno(err)
		}
	}
	return hw.FromErrno(k.nl.AddrReplace(at(index), addr))
}

// fromAddr is the inverse of toAddr. The library sends the label as it is: it is not given a link, whose name it would
// check the label against.
func fromAddr(a hw.Addr) (*netlink.Addr, error) {
	ip, err := parseNet(a.CIDR)
	if err != nil {
		return nil, err
	}
	addr := &netlink.Addr{IPNet: ip, Label: a.Label, Flags: a.Flags, Scope: a.Scope, Broadcast: net.IPv4zero}
	if a.Peer != "" {
		if addr.Peer, err = parseNet(a.Peer); err != nil {
			return nil, err
		}
	}
	if a.Broadcast != "" { // otherwise zero, which the library takes for none; for nil it makes one up
		addr.Broadcast = net.ParseIP(a.Broadcast).To4()
	}
	if a.ValidSec != 0 || a.PrefSec != 0 {
		addr.ValidLft, addr.PreferedLft = forever, forever
	}
	if a.ValidSec > 0 {
		addr.ValidLft = a.ValidSec
	}
	switch {
	case a.PrefSec > 0:
		addr.PreferedLft = a.PrefSec
	case a.PrefSec < 0:
		addr.PreferedLft = 0
	}
	return addr, nil
}

// parseNet reads "192.0.2.1/24" and keeps the host part.
func parseNet(cidr string) (*net.IPNet, error) {
	ip, n, err := net.ParseCIDR(cidr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", hw.ErrInvalid, err)
	}
	n.IP = ip
	return n, nil
}
