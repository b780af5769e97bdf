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
	"strings"

	"github.com/mellanox/passthrough/hw"
)

// Sessions implements [hw.Kernel]. It reads the tables of TCP connections (Documentation/networking/proc_net_tcp.rst).
func (k *Kernel) Sessions() ([]netip.Addr, error) {
	var all []netip.Addr
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
			continue
		}
		if err != nil {
			return nil, err
		}
		addrs, err := parseSessions(f)
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", table, err)
		}
		all = append(all, addrs...)
	}
	return all, nil
}

// parseSessions finds established connections to local port 22 in a table such as
//
//	sl  local_address rem_address   st ...
//	 0: 0F02000A:0016 0202000A:D1A2 01 ...
func parseSessions(table io.Reader) ([]netip.Addr, error) {
	const ssh, established = "0016", "01"
	var addrs []netip.Addr
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[3] != established {
			continue
		}
		local, port, _ := strings.Cut(fields[1], ":")
		if port != ssh {
			continue
		}
		a, err := parseProcAddr(local)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, lines.Err()
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
