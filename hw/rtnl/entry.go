package rtnl

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Entries implements [hw.Kernel]. The bodies are the kernel's own messages: the header that follows nlmsghdr, with the
// attributes. What this package does not know stays in them. Taken out are the ifindex of the link, counters, and what is
// state of the kernel.
func (k *Kernel) Entries(index int) ([]hw.Entry, error) {
	l, err := k.LinkAt(index)
	if err != nil {
		return nil, err
	}
	var all []hw.Entry
	var prefixes []prefix
	for _, list := range []func() ([]hw.Entry, error){
		func() ([]hw.Entry, error) { return bridgePort(k.sockets, l) },
		func() ([]hw.Entry, error) { return fdbEntries(k.sockets, l) },
		func() ([]hw.Entry, error) { return qdiscs(k.sockets, index) },
		func() (es []hw.Entry, err error) {
			es, prefixes, err = addresses(k.sockets, index)
			return es, err
		},
		func() ([]hw.Entry, error) { return neighbours(k.sockets, index) },
		func() ([]hw.Entry, error) { return routes(k.sockets, index, prefixes) },
	} {
		some, err := list()
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	return all, nil
}

// AddEntry implements [hw.Kernel].
func (k *Kernel) AddEntry(index int, e hw.Entry) error {
	if index <= 0 {
		return hw.FromErrno(unix.ENODEV)
	}
	add := map[hw.EntryKind]func(pool, int, hw.Entry) error{
		hw.EntryBridgePort: setBridgePort,
		hw.EntryFDB:        addFDB,
		hw.EntryQdisc:      addQdisc,
		hw.EntryClass:      addClass,
		hw.EntryAddress:    addAddress,
		hw.EntryNeighbour:  addNeighbour,
		hw.EntryRoute:      addRoute,
	}[e.Kind]
	if add == nil {
		return fmt.Errorf("entry of kind %q: %w", e.Kind, hw.ErrInvalid)
	}
	if len(e.Body) < headerLen[e.Kind] {
		return fmt.Errorf("%s of %d octets: %w", e.Text, len(e.Body), hw.ErrInvalid)
	}
	return add(k.changers, index, e)
}

// headerLen is the length of the header of each kind of message (include/uapi/linux/rtnetlink.h, neighbour.h, if_addr.h).
var headerLen = map[hw.EntryKind]int{
	hw.EntryBridgePort: unix.SizeofIfInfomsg,
	hw.EntryFDB:        unix.SizeofNdMsg,
	hw.EntryQdisc:      sizeofTcMsg,
	hw.EntryClass:      sizeofTcMsg,
	hw.EntryAddress:    unix.SizeofIfAddrmsg,
	hw.EntryNeighbour:  unix.SizeofNdMsg,
	hw.EntryRoute:      unix.SizeofRtMsg,
}

// listMessages requests a listing; body is the header of the request, with its attributes.
func listMessages(p pool, request_, answer int, body []byte) ([][]byte, error) {
	return dump(func() (answers [][]byte, err error) {
		err = p.use(func(s *nl.SocketHandle) (err error) {
			req := request(s, request_, unix.NLM_F_DUMP)
			req.AddRawData(body)
			answers, err = req.Execute(unix.NETLINK_ROUTE, uint16(answer))
			return err
		})
		return answers, err
	})
}

// sendMessage sends a message that changes something.
func sendMessage(p pool, msgType, flags int, body []byte) error {
	return p.use(func(s *nl.SocketHandle) error {
		req := request(s, msgType, flags|unix.NLM_F_ACK)
		req.AddRawData(body)
		_, err := req.Execute(unix.NETLINK_ROUTE, 0)
		return hw.FromErrno(err)
	})
}

// A message is a header with attributes.
type message struct {
	head  []byte
	attrs []syscall.NetlinkRouteAttr
}

// split copies the header of a body and reads its attributes.
func split(body []byte, header int) (message, error) {
	if len(body) < header {
		return message{}, fmt.Errorf("rtnetlink: a message of %d octets: %w", len(body), hw.ErrInvalid)
	}
	attrs, err := nl.ParseRouteAttr(body[header:])
	if err != nil {
		return message{}, fmt.Errorf("rtnetlink: %w", err)
	}
	return message{slices.Clone(body[:header]), attrs}, nil
}

// body is the message again.
func (m message) body() []byte {
	b := slices.Clone(m.head)
	for _, a := range m.attrs {
		b = appendAttr(b, a.Attr.Type, a.Value)
	}
	return b
}

// without drops attributes.
func (m *message) without(types ...int) {
	m.attrs = slices.DeleteFunc(m.attrs, func(a syscall.NetlinkRouteAttr) bool { return slices.Contains(types, kindOf(a)) })
}

// get returns the value of an attribute, nil if there is none.
func (m message) get(attr int) []byte {
	for _, a := range m.attrs {
		if kindOf(a) == attr {
			return a.Value
		}
	}
	return nil
}

// number returns the value of an attribute of 32 bits, otherwise if there is none.
func (m message) number(attr int, otherwise uint32) uint32 {
	if v := m.get(attr); len(v) >= 4 {
		return binary.NativeEndian.Uint32(v)
	}
	return otherwise
}

// set changes the value of an attribute, or appends the attribute.
func (m *message) set(attr int, value []byte) {
	for i, a := range m.attrs {
		if kindOf(a) == attr {
			m.attrs[i].Value = value
			return
		}
	}
	m.attrs = append(m.attrs, syscall.NetlinkRouteAttr{Attr: syscall.RtAttr{Type: uint16(attr)}, Value: value})
}

// kindOf returns the type of an attribute without its flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER).
func kindOf(a syscall.NetlinkRouteAttr) int {
	return int(a.Attr.Type &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER))
}

// appendAttr appends an attribute with its padding.
func appendAttr(b []byte, attrType uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, attrType)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&(unix.NLA_ALIGNTO-1))...)
}

// u32 is the value of an attribute of 32 bits.
func u32(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// putIndex writes an ifindex into the header or attribute at an offset.
func putIndex(b []byte, at, index int) { binary.NativeEndian.PutUint32(b[at:], uint32(index)) }

// indexAt reads an ifindex.
func indexAt(b []byte, at int) int { return int(int32(binary.NativeEndian.Uint32(b[at:]))) }

// life converts a remaining life of the kernel: 0 is for ever, -1 over.
func life(seconds uint32) int {
	switch seconds {
	case forever:
		return 0
	case 0:
		return -1
	}
	return int(seconds)
}

// lifetime is the inverse of life.
func lifetime(seconds int) uint32 {
	if seconds < 0 {
		return 0
	}
	return cmp.Or(uint32(seconds), forever)
}
