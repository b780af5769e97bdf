package hw

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"golang.org/x/sys/unix"
)

// LinkState is what a container can change on a netdev, and what stays changed when the netdev leaves the container (Linux 6.18:
// MTU, MAC, alias, flags and queue length do, and alternative names, see Snapshot; addresses and routes do not).
type LinkState struct {
	Name     string
	Alias    string
	MAC      MAC
	MTU      int
	TxQLen   int
	Promisc  bool
	AllMulti bool
	NoARP    bool `json:",omitempty"`
	// NoMulticast is inverted, so that a record that is older than the field says what most links are.
	NoMulticast bool `json:",omitempty"`
	Up          bool
	Master      string   // name of the bond or bridge that it is a port of; "" for none
	PortMAC     MAC      `json:",omitempty"` // of a bond's port: its own MAC, which it had before
	Segments    Segments `json:",omitzero"`
}

// LinkSpec is how a netdev is to be set up: the values, and how much each attribute matters. An attribute without a policy is
// left as it is. Policies are for LinkMTU, LinkTxQLen, LinkPromisc, LinkAllMulti and Segments.
type LinkSpec struct {
	LinkState
	Policies map[LinkAttr]Policy `json:"Need"`
}

// A LinkAttr is one attribute of a link that can be set. The zero value is not an attribute.
type LinkAttr struct{ *linkRow }

// A linkRow is everything that is known of an attribute. To add an attribute: a field of Link (and of LinkState, if a container
// can change it), a row, and its place in linkAttrs.
type linkRow struct {
	attrRow[Link]
	encode func(l *Link) (LinkMessage, error)
	decode func(l *Link, a LinkAnswer)
}

// A linkCodec says how rtnetlink has the values of an attribute. decode is nil for one that is part of another attribute.
type linkCodec[T any] struct {
	encode func(T) (LinkMessage, error)
	decode func(LinkAnswer) T
}

// The attributes of a link.
var (
	LinkUp       = newLinkAttr("up", func(l *Link) *bool { return &l.Up }, flag(unix.IFF_UP))
	LinkMaster   = newLinkAttr("master", func(l *Link) *int { return &l.Master }, uint32Attr(unix.IFLA_MASTER))
	LinkName     = newLinkAttr("name", func(l *Link) *string { return &l.Name }, text(unix.IFLA_IFNAME))
	LinkAlias    = newLinkAttr("alias", func(l *Link) *string { return &l.Alias }, text(unix.IFLA_IFALIAS))
	LinkMAC      = newLinkAttr("mac", func(l *Link) *MAC { return &l.MAC }, address(unix.IFLA_ADDRESS))
	LinkMTU      = newLinkAttr("mtu", func(l *Link) *int { return &l.MTU }, uint32Attr(unix.IFLA_MTU))
	LinkTxQLen   = newLinkAttr("txqueuelen", func(l *Link) *int { return &l.TxQLen }, uint32Attr(unix.IFLA_TXQLEN))
	LinkPromisc  = newLinkAttr("promisc", func(l *Link) *bool { return &l.Promisc }, flag(unix.IFF_PROMISC))
	LinkAllMulti = newLinkAttr("allmulti", func(l *Link) *bool { return &l.AllMulti }, flag(unix.IFF_ALLMULTI))
	LinkNoARP    = newLinkAttr("noarp", func(l *Link) *bool { return &l.NoARP }, flag(unix.IFF_NOARP))
	// A program can be detached, not attached: that needs a file descriptor of it.
	LinkXDPSKB      = newLinkAttr("xdp in skb mode", func(l *Link) *uint32 { return &l.XDP.SKB }, xdpDetached(unix.XDP_FLAGS_SKB_MODE))
	LinkXDPDriver   = newLinkAttr("xdp in driver mode", func(l *Link) *uint32 { return &l.XDP.Driver }, xdpDetached(unix.XDP_FLAGS_DRV_MODE))
	LinkXDPHardware = newLinkAttr("xdp in hardware mode", func(l *Link) *uint32 { return &l.XDP.Hardware }, xdpDetached(unix.XDP_FLAGS_HW_MODE))
	LinkNoMulticast = newLinkAttr("nomulticast", func(l *Link) *bool { return &l.NoMulticast }, flagOff(unix.IFF_MULTICAST))

	LinkGSOMaxSize     = newSegmentsAttr("gso_max_size", unix.IFLA_GSO_MAX_SIZE, func(s *Segments) *int { return &s.GSOMaxSize }, nil)
	LinkGSOMaxSegs     = newSegmentsAttr("gso_max_segs", unix.IFLA_GSO_MAX_SEGS, func(s *Segments) *int { return &s.GSOMaxSegs }, nil)
	LinkGROMaxSize     = newSegmentsAttr("gro_max_size", iflaGROMaxSize, func(s *Segments) *int { return &s.GROMaxSize }, nil)
	LinkGSOIPv4MaxSize = newSegmentsAttr("gso_ipv4_max_size", unix.IFLA_GSO_IPV4_MAX_SIZE, func(s *Segments) *int { return &s.GSOIPv4MaxSize },
		func(s *Segments) *int { return &s.GSOMaxSize })
	LinkGROIPv4MaxSize = newSegmentsAttr("gro_ipv4_max_size", iflaGROIPv4MaxSize, func(s *Segments) *int { return &s.GROIPv4MaxSize },
		func(s *Segments) *int { return &s.GROMaxSize })
)

// Attributes that package unix does not have (include/uapi/linux/if_link.h, Linux 6.12).
const (
	iflaGROMaxSize     = 58
	iflaTSOMaxSize     = 59
	iflaGROIPv4MaxSize = 64
)

// linkAttrs are the attributes that are restored on a link that is down, in this order. The name is restored before them and
// the alias after them, because names collide and the alias is what the device is found by.
var linkAttrs = []LinkAttr{LinkMAC, LinkMTU, LinkTxQLen, LinkPromisc, LinkAllMulti, LinkNoARP, LinkNoMulticast,
	LinkGSOMaxSize, LinkGSOMaxSegs, LinkGROMaxSize, LinkGSOIPv4MaxSize, LinkGROIPv4MaxSize}

// newLinkAttr returns the attribute whose value is at field.
func newLinkAttr[T comparable](name string, field func(*Link) *T, codec linkCodec[T]) LinkAttr {
	return LinkAttr{&linkRow{
		attrRow: rowOf(name, field),
		encode:  func(l *Link) (LinkMessage, error) { return codec.encode(*field(l)) },
		decode:  func(l *Link, a LinkAnswer) { *field(l) = codec.decode(a) },
	}}
}

// newSegmentsAttr returns an attribute of a link's Segments. One that is wanted to be 0 is left as it is: a record is older than the field, or a
// kernel than the attribute. Setting the attribute at also sets this one, if it is not above 65536 (net/core/dev.h, netif_set_gso_max_size,
// Linux 6.12): this one is set again if the other differs. at is nil for none.
func newSegmentsAttr(name string, attr uint16, field, at func(*Segments) *int) LinkAttr {
	a := newLinkAttr(name, func(l *Link) *int { return field(&l.Segments) }, uint32Attr(attr))
	equal := a.same
	a.same = func(now, want *Link) bool {
		return *field(&want.Segments) == 0 || equal(now, want) && (at == nil || *at(&want.Segments) == 0 || *at(&now.Segments) == *at(&want.Segments))
	}
	return a
}

// UnmarshalText reads the name of an attribute in a record. The error matches ErrInvalid if there is no such attribute.
func (a *LinkAttr) UnmarshalText(name []byte) (err error) {
	*a, err = attrNamed(linkAttrs, string(name))
	return err
}

// LinkMessage is what rtnetlink is sent to set one attribute of a link: flags, or an attribute.
type LinkMessage struct {
	Flags, Mask uint32 // IFF_*: the new values, and which of them change
	Attr        uint16 // IFLA_*; 0 for none
	Value       []byte
}

// Encode returns the message that sets a to its value in l. The error matches ErrInvalid if the value cannot be expressed.
func (a LinkAttr) Encode(l Link) (LinkMessage, error) { return a.encode(&l) }

// LinkAnswer is what rtnetlink answers about a link.
type LinkAnswer struct {
	Flags uint32            // IFF_*
	Attrs map[uint16][]byte // IFLA_*
}

// Decode sets the attributes in l to what the answer says, and what the driver accepts of them. It leaves out the XDP programs.
func (a LinkAnswer) Decode(l *Link) {
	l.MaxMTU, l.MaxGSO = uint32Attr(unix.IFLA_MAX_MTU).decode(a), uint32Attr(iflaTSOMaxSize).decode(a)
	for _, attr := range append([]LinkAttr{LinkUp, LinkMaster, LinkName, LinkAlias}, linkAttrs...) {
		attr.decode(l, a)
	}
}

// flag is the codec of an attribute that is an IFF_*.
func flag(bit uint32) linkCodec[bool] {
	return linkCodec[bool]{
		encode: func(on bool) (LinkMessage, error) {
			m := LinkMessage{Mask: bit}
			if on {
				m.Flags = bit
			}
			return m, nil
		},
		decode: func(a LinkAnswer) bool { return a.Flags&bit != 0 },
	}
}

// flagOff is the codec of an attribute that is the absence of an IFF_*.
func flagOff(bit uint32) linkCodec[bool] {
	on := flag(bit)
	return linkCodec[bool]{
		encode: func(off bool) (LinkMessage, error) { return on.encode(!off) },
		decode: func(a LinkAnswer) bool { return !on.decode(a) },
	}
}

func uint32Attr(attr uint16) linkCodec[int] {
	return linkCodec[int]{
		encode: func(n int) (LinkMessage, error) {
			return LinkMessage{Attr: attr, Value: binary.NativeEndian.AppendUint32(nil, uint32(n))}, nil
		},
		decode: func(a LinkAnswer) int {
			if value := a.Attrs[attr]; len(value) == 4 {
				return int(binary.NativeEndian.Uint32(value))
			}
			return 0
		},
	}
}

func text(attr uint16) linkCodec[string] {
	return linkCodec[string]{
		encode: func(s string) (LinkMessage, error) { return LinkMessage{Attr: attr, Value: []byte(s)}, nil },
		decode: func(a LinkAnswer) string { return string(bytes.TrimRight(a.Attrs[attr], "\x00")) },
	}
}

// address is the codec of a MAC. A link has none if all bytes are zero.
func address(attr uint16) linkCodec[MAC] {
	return linkCodec[MAC]{
		encode: func(m MAC) (LinkMessage, error) {
			mac, err := net.ParseMAC(string(m))
			if err != nil {
				return LinkMessage{}, fmt.Errorf("%w: %w", ErrInvalid, err)
			}
			return LinkMessage{Attr: attr, Value: mac}, nil
		},
		decode: func(a LinkAnswer) MAC {
			if value := a.Attrs[attr]; len(bytes.Trim(value, "\x00")) > 0 {
				return MAC(net.HardwareAddr(value).String())
			}
			return ""
		},
	}
}

// xdpDetached encodes the end of the program that is attached in a mode (XDP_FLAGS_*).
func xdpDetached(mode uint32) linkCodec[uint32] {
	return linkCodec[uint32]{encode: func(program uint32) (LinkMessage, error) {
		if program != 0 {
			return LinkMessage{}, fmt.Errorf("attach xdp program %d: %w", program, ErrInvalid)
		}
		value := attribute(nil, unix.IFLA_XDP_FD, 0xffffffff) // -1
		return LinkMessage{Attr: unix.IFLA_XDP | unix.NLA_F_NESTED, Value: attribute(value, unix.IFLA_XDP_FLAGS, mode)}, nil
	}}
}

// attribute appends a netlink attribute with a number.
func attribute(b []byte, attr uint16, n uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, attr)
	return binary.NativeEndian.AppendUint32(b, n)
}

// linkState returns the state of a link; links resolves the name of its master. The alias of an interrupted allocation
// is not part of the state.
func linkState(l Link, links []Link) LinkState {
	s := LinkState{Name: l.Name, Alias: l.Alias, MAC: l.MAC, MTU: l.MTU, TxQLen: l.TxQLen,
		Promisc: l.Promisc, AllMulti: l.AllMulti, NoARP: l.NoARP, NoMulticast: l.NoMulticast, Up: l.Up, PortMAC: l.PortMAC, Segments: l.Segments}
	if strings.HasPrefix(s.Alias, ID("").aliasMark()) {
		s.Alias = ""
	}
	for _, m := range links {
		if l.Master != 0 && m.Index == l.Master {
			s.Master = m.Name
		}
	}
	return s
}

// link returns a link with the values of s, without its master.
func (s LinkState) link() Link {
	return Link{Name: s.Name, Alias: s.Alias, MAC: s.MAC, MTU: s.MTU, TxQLen: s.TxQLen,
		Promisc: s.Promisc, AllMulti: s.AllMulti, NoARP: s.NoARP, NoMulticast: s.NoMulticast, Up: s.Up, Segments: s.Segments}
}

// SetLink applies a spec to a netdev in the host, which is down, and verifies it. The values stay when the netdev moves into
// a container. limit is the MTU that the device cannot exceed, its PF's; 0 for none.
func (h *links) SetLink(n Netdev, spec LinkSpec, limit int) (Netdev, error) {
	if len(spec.Policies) == 0 {
		return n, nil
	}
	if limit > 0 && spec.Policies[LinkMTU] == Required && spec.MTU > limit {
		return n, &Error{Dev: n.Name, Op: fmt.Sprintf("set mtu %d", spec.MTU), Err: Because(ErrInvalid,
			"its pf has mtu %d, which a vf cannot exceed; raise the pf's first", limit)}
	}
	want := spec.link()
	for _, size := range []struct {
		attr LinkAttr
		n    int
	}{{LinkGSOMaxSize, want.Segments.GSOMaxSize}, {LinkGSOIPv4MaxSize, want.Segments.GSOIPv4MaxSize}} {
		if n.MaxGSO > 0 && spec.Policies[size.attr] == Required && size.n > n.MaxGSO {
			return n, &Error{Dev: n.Name, Op: size.attr.Op(want), Err: Because(ErrInvalid, "its driver cuts packets of at most %d bytes into frames", n.MaxGSO)}
		}
	}
	spec.Name = n.Name
	err := h.applyLink(n.ID, spec.LinkState, h.kernel.SetLink, func(a LinkAttr) Policy { return spec.Policies[a] })
	if err != nil {
		return n, err
	}
	return h.Find(n.ID)
}

// applyLink sets the linkAttrs of a link in the host to their values in want, each with set.
func (h *links) applyLink(id ID, want LinkState, set setter, policy func(LinkAttr) Policy) error {
	var index int
	return applier[Link, LinkAttr]{
		dev:   want.Name,
		attrs: linkAttrs,
		read: func() (Link, error) {
			n, err := h.Find(id)
			index = n.Index
			return n.Link, err
		},
		set:    func(a LinkAttr, l Link) error { return set(index, a, l) },
		policy: policy,
	}.apply(want.link())
}

// setLink sets one attribute of a link; its error names the link and what was attempted.
func (h *links) setLink(n Netdev, op string, a LinkAttr, want Link) error {
	return wrapped(n.Name, op, h.kernel.SetLink(n.Index, a, want))
}

// changeLink is setLink, also for what a link that is up may refuse.
func (h *links) changeLink(n Netdev, op string, a LinkAttr, want Link) error {
	return wrapped(n.Name, op, h.setDownIfNeeded(n.Index, a, want))
}

// errStaysDown: a change of a link that is down, or was set down for it, is refused as of one that is up.
var errStaysDown = errors.New("while it is down")

// setDownIfNeeded sets one attribute of a link. A link that is up is set down only if that is refused, because it loses
// its routes and IPv6 addresses: renaming is before Linux 6.2, a MAC by many drivers (EBUSY, net/ethernet/eth.c,
// eth_prepare_mac_addr_change), becoming the port of a bond always (EPERM, drivers/net/bonding/bond_main.c, bond_enslave,
// Linux 6.12). The caller sets it up again, but not if the error matches errStaysDown: the next attempt would set it down
// again.
func (h *links) setDownIfNeeded(index int, a LinkAttr, want Link) error {
	err := h.kernel.SetLink(index, a, want)
	if !errors.Is(err, ErrBusy) && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	if l, readErr := h.kernel.LinkAt(index); readErr != nil {
		return err
	} else if l.Up {
		if err := h.kernel.SetLink(index, LinkUp, Link{}); err != nil {
			return fmt.Errorf("set it down first: %w", err)
		}
		err = h.kernel.SetLink(index, a, want)
	}
	if err != nil {
		err = fmt.Errorf("%w: %w", errStaysDown, err)
	}
	return err
}

// open sets a link up. A driver refuses that while it resets the device, or while a VF does not reach its PF (iavf_open: EBUSY;
// ixgbevf_open: IXGBE_ERR_MBX, which is -ENETDOWN; Linux 6.12). open waits until that is over, see openBound.
func (h *links) open(ctx context.Context, n Netdev) error {
	resetting := func(err error) bool { return errors.Is(err, ErrBusy) || errors.Is(err, unix.ENETDOWN) }
	return retryOn(ctx, openBound, resetting, func() error { return h.setUp(n, true) })
}

// quietMTU is below IPV6_MIN_MTU: a link with it has no IPv6 at all (net/ipv6/addrconf.c, addrconf_notify, Linux 6.12).
const quietMTU = 1279

// whileQuiet calls do, which sets a netdev up for a moment. The netdev of a VF takes no part in what is said on its segment
// meanwhile, which is that of its next container: a router advertisement there must not configure the host, for which
// accept_ra=1 is the default, and the host must not answer ARP for its own addresses. A driver that refuses the MTU is not
// asked again; the VF is up for less than a second.
func (h *links) whileQuiet(n Netdev, do func() error) error {
	if !n.ID.IsPCI() || n.Up || !h.sys.exists(pciDir(n.ID.PCI())+"/physfn") {
		return do()
	}
	noIPv6 := n.MTU > quietMTU && h.kernel.SetLink(n.Index, LinkMTU, Link{MTU: quietMTU}) == nil
	noARP := !n.NoARP && h.kernel.SetLink(n.Index, LinkNoARP, Link{NoARP: true}) == nil
	errs := []error{do()}
	if noARP {
		errs = append(errs, h.setLink(n, "set arp on", LinkNoARP, Link{}))
	}
	if noIPv6 {
		errs = append(errs, h.setLink(n, fmt.Sprintf("set mtu %d", n.MTU), LinkMTU, Link{MTU: n.MTU}))
	}
	return errors.Join(errs...)
}

// setUp sets a link up or down.
func (h *links) setUp(n Netdev, up bool) error {
	op := "set down"
	if up {
		op = "set up"
	}
	return h.setLink(n, op, LinkUp, Link{Up: up})
}
