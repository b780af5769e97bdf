package rtnl

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/hw"
)

// Sessions implements [hw.Kernel]. It reads the tables of TCP sockets (Documentation/networking/proc_net_tcp.rst).
func (k *Kernel) Sessions() ([]netip.AddrPort, error) {
	var all tcpSockets
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := errors.Join(all.parse(f), f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", table, err)
		}
	}
	return all.sessions(), nil
}

// tcpSockets are the local ends of the host's TCP sockets.
type tcpSockets struct {
	listening, connected []netip.AddrPort
}

// parse adds the sockets of a table such as
//
//	sl  local_address rem_address   st ...
//	 0: 0F02000A:0016 0202000A:D1A2 01 ...
func (t *tcpSockets) parse(table io.Reader) error {
	const established, listen = "01", "0A"
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != established && fields[3] != listen {
			continue
		}
		local, err := parseProcAddrPort(fields[1])
		if err != nil {
			return err
		}
		if fields[3] == listen {
			t.listening = append(t.listening, local)
		} else {
			t.connected = append(t.connected, local)
		}
	}
	return lines.Err()
}

// sessions returns the local ends to which clients are connected, each once.
func (t *tcpSockets) sessions() (all []netip.AddrPort) {
	const ssh = 22
	at := map[netip.AddrPort]bool{} // where a program listens
	for _, l := range t.listening {
		at[l] = true
	}
	seen := map[netip.AddrPort]bool{}
	for _, c := range t.connected {
		any4 := netip.AddrPortFrom(netip.IPv4Unspecified(), c.Port())
		any6 := netip.AddrPortFrom(netip.IPv6Unspecified(), c.Port()) // accepts IPv4 as well
		served := at[c] || at[any6] || at[any4] && c.Addr().Is4() || c.Port() == ssh
		if served && !seen[c] {
			seen[c] = true
			all = append(all, c)
		}
	}
	return all
}

// parseProcAddrPort reads an address and port in the format of /proc/net.
func parseProcAddrPort(text string) (netip.AddrPort, error) {
	address, port, _ := strings.Cut(text, ":")
	a, err := parseProcAddr(address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("port %q: %w", port, hw.ErrInvalid)
	}
	return netip.AddrPortFrom(a, uint16(p)), nil
}

// parseProcAddr reads an address in the format of /proc/net: 32-bit words in the byte order of the machine, which is
// little endian on all platforms that the plugin is built for.
func parseProcAddr(text string) (netip.Addr, error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b)%4 != 0 {
		return netip.Addr{}, fmt.Errorf("address %q: %w", text, hw.ErrInvalid)
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.Addr{}, fmt.Errorf("address %q: %w", text, hw.ErrInvalid)
	}
	return a.Unmap(), nil
}
