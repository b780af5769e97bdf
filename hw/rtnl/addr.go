package rtnl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

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

const (
	// ifaProto is IFA_PROTO, and protoLinkLocal IFAPROT_KERNEL_LL, who made an address (include/uapi/linux/if_addr.h, since
	// Linux 5.18).
	ifaProto       = 11
	protoLinkLocal = 3
	// targetNetNS is IFA_TARGET_NETNSID.
	targetNetNS = 10
	// entryFlags are settableFlags, that the address joins its multicast group, and that another machine has it.
	entryFlags = settableFlags | unix.IFA_F_MCAUTOJOIN | unix.IFA_F_DADFAILED
	// prefixMetric is the metric of the route to the prefix of an IPv6 address that has none of its own (IP6_RT_PRIO_ADDRCONF).
	prefixMetric = 256
)

// A prefix is a destination to which the kernel makes a route for an address.
type prefix struct {
	netip.Prefix
	metric uint32
}

// addresses lists the addresses of a link, and the prefixes that the kernel makes routes to.
func addresses(p pool, index int) (entries []hw.Entry, prefixes []prefix, _ error) {
	answers, err := listMessages(p, unix.RTM_GETADDR, unix.RTM_NEWADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, nil, err
	}
	const ifindexAt = 4
	for _, answer := range answers {
		m, err := split(answer, unix.SizeofIfAddrmsg)
		if err != nil {
			return nil, nil, err
		}
		flags := m.number(unix.IFA_FLAGS, uint32(m.head[2]))
		v6, proto := m.head[0] == unix.AF_INET6, m.get(ifaProto)
		switch {
		case indexAt(m.head, ifindexAt) != index, !v6 && m.head[0] != unix.AF_INET, v6 && flags&unix.IFA_F_TEMPORARY != 0:
			continue
		case v6 && len(proto) == 1 && proto[0] == protoLinkLocal:
			continue
		}
		if flags&unix.IFA_F_NOPREFIXROUTE == 0 {
			prefixes = append(prefixes, m.prefixes()...)
		}
		entries = append(entries, m.address(flags))
	}
	return entries, prefixes, nil
}

// prefixes returns the prefixes that the kernel makes routes to for an address: its own, and its peer's.
func (m message) prefixes() (all []prefix) {
	metric := uint32(0)
	if m.head[0] == unix.AF_INET6 {
		metric = prefixMetric
	}
	for _, attr := range []int{unix.IFA_ADDRESS, unix.IFA_LOCAL} {
		if ip, ok := netip.AddrFromSlice(m.get(attr)); ok {
			p := netip.PrefixFrom(ip, int(m.head[1])).Masked()
			all = append(all, prefix{p, m.number(unix.IFA_RT_PRIORITY, metric)})
		}
	}
	return all
}

// address converts a listed address with its flags.
func (m message) address(flags uint32) hw.Entry {
	local := m.get(unix.IFA_LOCAL)
	if local == nil {
		local = m.get(unix.IFA_ADDRESS)
	}
	ip, _ := netip.AddrFromSlice(local)
	e := hw.Entry{Kind: hw.EntryAddress, Address: ip.String(), Text: fmt.Sprintf("address %s/%d", ip, m.head[1])}
	if lives := m.get(unix.IFA_CACHEINFO); len(lives) >= 8 {
		e.PrefSec = life(binary.NativeEndian.Uint32(lives))
		e.ValidSec = life(binary.NativeEndian.Uint32(lives[4:]))
		if e.ValidSec < 0 { // it ends in this second
			e.ValidSec = 1
		}
	}
	if flags&unix.IFA_F_DEPRECATED != 0 {
		e.PrefSec = -1
	}
	m.without(unix.IFA_CACHEINFO, targetNetNS)
	m.setAddressFlags(flags & entryFlags)
	putIndex(m.head, 4, 0)
	e.Body = m.body()
	return e
}

// setAddressFlags sets the flags of an address in both places.
func (m *message) setAddressFlags(flags uint32) {
	m.head[2] = byte(flags)
	m.set(unix.IFA_FLAGS, u32(flags))
}

// addAddress adds an address. An IPv6 address is added without duplicate address detection and gets its own flags then, see
// [Kernel.AddAddr].
func addAddress(p pool, index int, e hw.Entry) error {
	m, err := split(e.Body, unix.SizeofIfAddrmsg)
	if err != nil {
		return err
	}
	putIndex(m.head, 4, index)
	if e.ValidSec != 0 || e.PrefSec != 0 {
		lives := append(u32(lifetime(e.PrefSec)), u32(lifetime(e.ValidSec))...)
		m.set(unix.IFA_CACHEINFO, append(lives, make([]byte, 8)...)) // and two times of the kernel
	}
	const flags = unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	switch own := m.number(unix.IFA_FLAGS, 0); {
	case own&unix.IFA_F_DADFAILED != 0: // it has to be tested again
		m.setAddressFlags(own &^ unix.IFA_F_DADFAILED)
	case m.head[0] == unix.AF_INET6 && own&unix.IFA_F_NODAD == 0:
		m.setAddressFlags(own | unix.IFA_F_NODAD)
		if err := sendMessage(p, unix.RTM_NEWADDR, flags, m.body()); err != nil {
			return err
		}
		m.setAddressFlags(own)
	}
	return sendMessage(p, unix.RTM_NEWADDR, flags, m.body())
}
