package rtnl

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// This file uses ethtool's netlink interface and not its ioctl: the ioctl takes a name, which udev may give to another link
// between two calls, while netlink takes an ifindex. The kernel has all of it since Linux 5.7. mdlayher/ethtool has no
// channels, rings and features.

// An ethtoolConn is a connection to ethtool.
type ethtoolConn struct {
	socket *nl.SocketHandle // of generic netlink, for devlink as well
	family int              // the number of the generic netlink family, 0 in kernels without it
}

// findEthtool returns the number of the generic netlink family, 0 if the kernel has none.
func findEthtool(h *netlink.Handle) (int, error) {
	f, err := h.GenlFamilyGet(unix.ETHTOOL_GENL_NAME)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("ethtool: %w", err)
	}
	return int(f.ID), nil
}

// Tuning implements [hw.Kernel].
func (e ethtoolConn) Tuning(index int) (hw.Tuning, error) {
	var t hw.Tuning
	queues, err := e.numbers(index, unix.ETHTOOL_MSG_CHANNELS_GET)
	if err != nil {
		return t, err
	}
	t.Queues = hw.Queues{Combined: queues[unix.ETHTOOL_A_CHANNELS_COMBINED_COUNT],
		Rx: queues[unix.ETHTOOL_A_CHANNELS_RX_COUNT], Tx: queues[unix.ETHTOOL_A_CHANNELS_TX_COUNT]}
	t.MaxQueues = hw.Queues{Combined: queues[unix.ETHTOOL_A_CHANNELS_COMBINED_MAX],
		Rx: queues[unix.ETHTOOL_A_CHANNELS_RX_MAX], Tx: queues[unix.ETHTOOL_A_CHANNELS_TX_MAX]}
	rings, err := e.numbers(index, unix.ETHTOOL_MSG_RINGS_GET)
	if err != nil {
		return t, err
	}
	t.Rings = hw.Rings{Rx: rings[unix.ETHTOOL_A_RINGS_RX], Tx: rings[unix.ETHTOOL_A_RINGS_TX]}
	t.MaxRings = hw.Rings{Rx: rings[unix.ETHTOOL_A_RINGS_RX_MAX], Tx: rings[unix.ETHTOOL_A_RINGS_TX_MAX]}
	t.Features, err = e.features(index)
	return t, err
}

// numbers returns the numbers in one of ethtool's messages; none if the driver does not support what they are about.
func (e ethtoolConn) numbers(index int, command uint8) (map[uint16]int, error) {
	attrs, err := e.get(index, command)
	if errors.Is(err, hw.ErrUnsupported) && e.family != 0 {
		return nil, nil
	}
	numbers := map[uint16]int{}
	for t, value := range attrs {
		if len(value) == 4 {
			numbers[t] = int(nl.NativeEndian().Uint32(value))
		}
	}
	return numbers, err
}

// features reads every offload that the kernel knows. The set of those that can be changed names all.
func (e ethtoolConn) features(index int) (map[string]hw.Feature, error) {
	attrs, err := e.get(index, unix.ETHTOOL_MSG_FEATURES_GET)
	if err != nil {
		return nil, err
	}
	var changeable, wanted, active, never map[string]bool
	for t, to := range map[uint16]*map[string]bool{
		unix.ETHTOOL_A_FEATURES_HW: &changeable, unix.ETHTOOL_A_FEATURES_WANTED: &wanted,
		unix.ETHTOOL_A_FEATURES_ACTIVE: &active, unix.ETHTOOL_A_FEATURES_NOCHANGE: &never,
	} {
		if *to, err = bits(attrs[t]); err != nil {
			return nil, fmt.Errorf("ethtool: features: %w", err)
		}
	}
	all := map[string]hw.Feature{}
	for name, can := range changeable {
		all[name] = hw.Feature{Active: active[name], Wanted: wanted[name], Fixed: !can || never[name]}
	}
	return all, nil
}

// bits reads a verbose bit set: its bits by name, and whether they are set. A set without a mask names only the bits
// that are set.
func bits(set []byte) (map[string]bool, error) {
	attrs, err := attributes(set)
	if err != nil {
		return nil, err
	}
	_, noMask := attrs[unix.ETHTOOL_A_BITSET_NOMASK]
	list, err := nl.ParseRouteAttr(attrs[unix.ETHTOOL_A_BITSET_BITS])
	if err != nil {
		return nil, err
	}
	on := map[string]bool{}
	for _, bit := range list {
		a, err := attributes(bit.Value)
		if err != nil {
			return nil, err
		}
		_, set := a[unix.ETHTOOL_A_BITSET_BIT_VALUE]
		on[unix.ByteSliceToString(a[unix.ETHTOOL_A_BITSET_BIT_NAME])] = set || noMask
	}
	return on, nil
}

// SetTuning implements [hw.Kernel].
func (e ethtoolConn) SetTuning(index int, a hw.TuningAttr, want hw.Tuning) error {
	switch a {
	case hw.TuningQueues:
		return e.set(index, unix.ETHTOOL_MSG_CHANNELS_SET, unix.ETHTOOL_A_CHANNELS_HEADER,
			optional(unix.ETHTOOL_A_CHANNELS_COMBINED_COUNT, want.Queues.Combined),
			optional(unix.ETHTOOL_A_CHANNELS_RX_COUNT, want.Queues.Rx), optional(unix.ETHTOOL_A_CHANNELS_TX_COUNT, want.Queues.Tx))
	case hw.TuningRings:
		return e.set(index, unix.ETHTOOL_MSG_RINGS_SET, unix.ETHTOOL_A_RINGS_HEADER,
			optional(unix.ETHTOOL_A_RINGS_RX, want.Rings.Rx), optional(unix.ETHTOOL_A_RINGS_TX, want.Rings.Tx))
	case hw.TuningFeatures:
		return e.set(index, unix.ETHTOOL_MSG_FEATURES_SET, unix.ETHTOOL_A_FEATURES_HEADER,
			switches(unix.ETHTOOL_A_FEATURES_WANTED, wanted(want.Features)))
	}
	return fmt.Errorf("ethtool: %v: %w", a, hw.ErrUnsupported)
}

// optional returns an attribute with a number, nil for 0: a driver refuses what it does not have.
func optional(attr, n int) *nl.RtAttr {
	if n == 0 {
		return nil
	}
	return nl.NewRtAttr(attr, nl.Uint32Attr(uint32(n)))
}

// wanted returns which offloads are to be switched on and off.
func wanted(features map[string]hw.Feature) map[string]bool {
	on := map[string]bool{}
	for name, f := range features {
		on[name] = f.Wanted
	}
	return on
}

// switches returns a bit set of what to switch on and off, with a mask: what it does not name stays as it is.
func switches(attr int, named map[string]bool) *nl.RtAttr {
	set := nl.NewRtAttr(attr|unix.NLA_F_NESTED, nil)
	list := set.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS|unix.NLA_F_NESTED, nil)
	for name, on := range named {
		bit := list.AddRtAttr(unix.ETHTOOL_A_BITSET_BITS_BIT|unix.NLA_F_NESTED, nil)
		bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_NAME, nl.ZeroTerminated(name))
		if on {
			bit.AddRtAttr(unix.ETHTOOL_A_BITSET_BIT_VALUE, nil)
		}
	}
	return set
}

// get sends a request about one link and returns the attributes of the answer.
func (e ethtoolConn) get(index int, command uint8) (map[uint16][]byte, error) {
	// The header is attribute 1 of every message.
	req, err := e.request(index, command, unix.ETHTOOL_A_CHANNELS_HEADER, 0)
	if err != nil {
		return nil, err
	}
	answers, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err == nil && len(answers) != 1 {
		err = fmt.Errorf("ethtool gave %d answers for link %d", len(answers), index)
	}
	if err != nil {
		return nil, hw.FromErrno(err)
	}
	return attributes(answers[0][nl.SizeofGenlmsg:])
}

// set sends a change of one link.
func (e ethtoolConn) set(index int, command uint8, header int, attrs ...*nl.RtAttr) error {
	req, err := e.request(index, command, header, unix.NLM_F_ACK)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		if a != nil {
			req.AddData(a)
		}
	}
	_, err = req.Execute(unix.NETLINK_GENERIC, 0)
	return hw.FromErrno(err)
}

// request begins a message to ethtool. Changes are read back later, so the answer is only success or an error.
func (e ethtoolConn) request(index int, command uint8, header, flags int) (*nl.NetlinkRequest, error) {
	if e.family == 0 {
		return nil, hw.Because(hw.ErrUnsupported, "the kernel has no ethtool netlink, which came with Linux 5.6")
	}
	if index <= 0 {
		return nil, hw.FromErrno(unix.ENODEV)
	}
	req := nl.NewNetlinkRequest(e.family, flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: e.socket}
	req.AddData(&nl.Genlmsg{Command: command, Version: unix.ETHTOOL_GENL_VERSION})
	h := nl.NewRtAttr(header|unix.NLA_F_NESTED, nil)
	h.AddRtAttr(unix.ETHTOOL_A_HEADER_DEV_INDEX, nl.Uint32Attr(uint32(index)))
	if flags&unix.NLM_F_ACK != 0 {
		h.AddRtAttr(unix.ETHTOOL_A_HEADER_FLAGS, nl.Uint32Attr(unix.ETHTOOL_FLAG_OMIT_REPLY))
	}
	req.AddData(h)
	return req, nil
}

// attributes splits a message into its attributes, by their types without NLA_F_NESTED.
func attributes(b []byte) (map[uint16][]byte, error) {
	list, err := nl.ParseRouteAttr(b)
	if err != nil {
		return nil, err
	}
	all := map[uint16][]byte{}
	for _, a := range list {
		all[a.Attr.Type&^unix.NLA_F_NESTED] = a.Value
	}
	return all, nil
}
