//go:build lab

package campaign

import (
	"encoding/binary"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/test/harness/bpfprog"
)

// attachXDP attaches a program that passes every frame to a device, in the way that stays when the process ends (netlink). The kernel
// runs it itself (XDP_FLAGS_SKB_MODE), which every driver allows.
func attachXDP(device string) error {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	program, err := bpfprog.Load(unix.BPF_PROG_TYPE_XDP)
	if err != nil {
		return err
	}
	defer program.Close()
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	const xdpFD, xdpFlags, nested = 1, 3, 0x8000 // IFLA_XDP_FD, IFLA_XDP_FLAGS, NLA_F_NESTED
	e := binary.NativeEndian
	m := make([]byte, 16+unix.SizeofIfInfomsg, 64) // header and ifinfomsg
	e.PutUint16(m[4:], unix.RTM_SETLINK)
	e.PutUint16(m[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	e.PutUint32(m[16+4:], uint32(link.Index))
	add := func(kind uint16, length int, value uint32) {
		m = e.AppendUint16(e.AppendUint16(m, uint16(length)), kind)
		if length == 8 {
			m = e.AppendUint32(m, value)
		}
	}
	add(unix.IFLA_XDP|nested, 20, 0)
	add(xdpFD, 8, uint32(program.Fd()))
	add(xdpFlags, 8, unix.XDP_FLAGS_SKB_MODE)
	e.PutUint32(m, uint32(len(m)))
	if err := unix.Sendto(s, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, answer, 0)
	if err != nil || n < 20 {
		return fmt.Errorf("no answer: %w", err)
	}
	if code := int32(e.Uint32(answer[16:])); code != 0 {
		return fmt.Errorf("attach xdp to %s: %w", device, unix.Errno(-code))
	}
	return nil
}
