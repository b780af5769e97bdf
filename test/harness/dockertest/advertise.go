package dockertest

import (
	"net"
	"net/netip"
	"syscall"
	"testing"
)

// Advertise sends a router's advertisement of a prefix out of a device (RFC 4861 4.2 and 4.6.2).
func Advertise(t testing.TB, device string, prefix netip.Prefix) {
	t.Helper()
	c, err := net.ListenPacket("ip6:ipv6-icmp", "::")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.IPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	const farthest = 255 // hops; others are ignored
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, syscall.IPV6_MULTICAST_HOPS, farthest)
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	message := []byte{134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, // the kernel fills in the checksum; 1800 s a default router
		3, 4, byte(prefix.Bits()), 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0} // on the link, for addresses, 1800 s
	message = append(message, prefix.Addr().AsSlice()...)
	// It cannot be sent before the device has a link-local address.
	_, _ = c.WriteTo(message, &net.IPAddr{IP: net.ParseIP("ff02::1"), Zone: device})
}
