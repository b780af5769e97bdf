//go:build kernel

package rtnl_test

import (
	"encoding/binary"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
)

// htons is a number in the byte order of the network.
func htons(n uint16) uint16 { return n<<8 | n>>8 }

// A wire is the far end of a veth whose near end is in the host.
type wire struct {
	t     *testing.T
	fd    int
	index int
	mac   net.HardwareAddr
}

func newWire(t *testing.T, name string) wire {
	t.Helper()
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: ifi.Index}); err != nil {
		t.Fatal(err)
	}
	limit := unix.Timeval{Usec: 300_000}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		t.Fatal(err)
	}
	return wire{t, fd, ifi.Index, ifi.HardwareAddr}
}

func (w wire) send(frame []byte) {
	w.t.Helper()
	if err := unix.Sendto(w.fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: w.index}); err != nil {
		w.t.Fatal(err)
	}
}

// advertise sends an advertisement of a router fe80::1 with the prefix 2001:db8::/64 for stateless addresses.
func (w wire) advertise() {
	w.t.Helper()
	src, dst := net.ParseIP("fe80::1"), net.ParseIP("ff02::1")
	icmp := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, // lifetime 1800 s
		3, 4, 64, 0xc0, 0, 0, 0x0e, 0x10, 0, 0, 0x0e, 0x10, 0, 0, 0, 0} // a prefix on the link, for an hour
	icmp = append(icmp, net.ParseIP("2001:db8::")...)
	sum := uint32(0)
	pseudo := append(append(append([]byte{}, src...), dst...), 0, 0, 0, byte(len(icmp)), 0, 0, 0, 58)
	for _, b := range [][]byte{pseudo, icmp} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum>>16 > 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum))
	frame := append([]byte{0x33, 0x33, 0, 0, 0, 1}, w.mac...)
	frame = append(frame, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(len(icmp)), 58, 255)
	w.send(append(append(append(frame, src...), dst...), icmp...))
}

// asks sends an ARP probe for 192.0.2.1 and returns true if it is answered.
func (w wire) asks() bool {
	w.t.Helper()
	frame := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, w.mac...)
	frame = append(frame, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(append(frame, w.mac...), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1)
	w.send(append(frame, make([]byte, 18)...))
	buffer := make([]byte, 1500)
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		n, _, err := unix.Recvfrom(w.fd, buffer, 0)
		if errors.Is(err, unix.EAGAIN) {
			return false
		}
		if err == nil && n >= 42 && buffer[12] == 0x08 && buffer[13] == 0x06 && buffer[21] == 2 && net.IP(buffer[28:32]).String() == "192.0.2.1" {
			return true
		}
	}
	return false
}

// TestQuietLink: what package hw does with a VF that is up in the host for a moment keeps the host out of the VF's segment: with an MTU
// below 1280 no router advertisement configures the host, and without ARP the host does not answer for its own addresses. Without the two
// it does both.
func TestQuietLink(t *testing.T) {
	w := newWorld(t)
	k := openKernel(t, sys, "/proc/irq")
	w.Add(t, "veth", "ct0", "ct1")
	link := func(name string) hw.Link {
		t.Helper()
		l, err := k.LinkNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	set := func(name string, a hw.LinkAttr, l hw.Link) {
		t.Helper()
		if err := k.SetLink(link(name).Index, a, l); err != nil {
			t.Fatalf("set %s: %v", name, err)
		}
	}
	if err := k.AddAddr(link("lo").Index, hw.Addr{CIDR: "192.0.2.1/32"}); err != nil {
		t.Fatal(err)
	}
	set("ct1", hw.LinkUp, hw.Link{Up: true})
	far := newWire(t, "ct1")
	for _, quiet := range []bool{true, false} {
		mtu := 1500
		if quiet {
			mtu = 1279
		}
		set("ct0", hw.LinkMTU, hw.Link{MTU: mtu})
		set("ct0", hw.LinkNoARP, hw.Link{NoARP: quiet})
		set("ct0", hw.LinkUp, hw.Link{Up: true})
		configured := func() bool {
			addrs, err := k.Addrs(link("ct0").Index)
			if err != nil {
				t.Fatal(err)
			}
			return len(addrs) > 0 && strings.HasPrefix(addrs[0].CIDR, "2001:db8:")
		}
		_ = retry.Poll(t.Context(), 100*time.Millisecond, 2*time.Second, func() (bool, error) { // quiet, it is never configured
			far.advertise()
			return configured(), nil
		})
		if got := configured(); got == quiet {
			t.Errorf("quiet %v: the host was configured: %v", quiet, got)
		}
		if got := far.asks(); got == quiet {
			t.Errorf("quiet %v: the host answered for its own address: %v", quiet, got)
		}
		set("ct0", hw.LinkUp, hw.Link{})
	}
	if err := k.SetLink(link("lo").Index, hw.LinkUp, hw.Link{}); err != nil {
		t.Fatal(err)
	}
}
