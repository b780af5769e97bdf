package dhcp

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// port is the port of servers and relay agents; a server answers to it (RFC 2131 4.1).
const port = 67

// relayKey is the device and the host's address on it.
type relayKey struct {
	device string
	from   netip.Addr
}

// A relay is the socket on one device. All exchanges on the device share it while there are any, because the kernel would give an answer to
// one of several sockets only.
type relay struct {
	relayKey
	conn  net.PacketConn
	users int // guarded by the client's mu

	mu      sync.Mutex // guards waiting
	waiting map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4
}

// open returns the relay of a device, with an address of near if that is valid. The caller closes it.
func (c *Client) open(ctx context.Context, s Segment) (*relay, error) {
	from, err := hostAddr(s)
	if err != nil {
		return nil, err
	}
	key := relayKey{s.Device, from}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.relays[key]
	if r == nil {
		conn, err := listen(ctx, key)
		if err != nil {
			return nil, err
		}
		r = &relay{relayKey: key, conn: conn, waiting: map[dhcpv4.TransactionID]chan *dhcpv4.DHCPv4{}}
		c.relays[key] = r
		go r.read()
	}
	r.users++
	return r, nil
}

// close ends one use of a relay.
func (c *Client) close(r *relay) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.users--; r.users == 0 {
		delete(c.relays, r.relayKey)
		_ = r.conn.Close() // nothing is lost: each message is sent at once
	}
}

// hostAddr returns the host's address on a segment.
func hostAddr(s Segment) (netip.Addr, error) {
	fail := func(what string) (netip.Addr, error) {
		return netip.Addr{}, fmt.Errorf("device %s: %w: %s", s.Device, ErrDevice, what)
	}
	dev, err := net.InterfaceByName(s.Device)
	if err != nil {
		return fail("the host has no such device")
	}
	if dev.Flags&net.FlagUp == 0 {
		return fail("it is down")
	}
	addrs, err := dev.Addrs()
	if err != nil {
		return fail(err.Error())
	}
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && !p.Addr().IsLinkLocalUnicast() && (!s.Subnet.IsValid() || s.Subnet.Contains(p.Addr())) {
			return p.Addr(), nil
		}
	}
	if s.Subnet.IsValid() {
		return fail(fmt.Sprintf("the host has no address of %s on it, to which DHCP servers could answer", s.Subnet))
	}
	return fail("the host has no IPv4 address on it, to which DHCP servers could answer")
}

// listen opens the socket of a relay. It is bound to one address of one device, so that it is no obstacle to a DHCP server of the host on
// other devices, and that broadcasts leave through the device.
func listen(ctx context.Context, k relayKey) (net.PacketConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = errors.Join(syscall.BindToDevice(int(fd), k.device), setOption(fd, syscall.SO_REUSEADDR), setOption(fd, syscall.SO_BROADCAST))
		}), err)
	}}
	conn, err := config.ListenPacket(ctx, "udp4", netip.AddrPortFrom(k.from, port).String())
	switch {
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%w; give the plugin the setting DHCP=true, which keeps the capability CAP_NET_BIND_SERVICE", err)
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%w; a DHCP server or relay agent of this host has UDP port %d", err, port)
	}
	return conn, err
}

// setOption sets a boolean option of a socket.
func setOption(fd uintptr, option int) error {
	return syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, option, 1)
}

// read gives each answer to the exchange that waits for it, until the relay is closed.
func (r *relay) read() {
	buf := make([]byte, 1<<16)
	for {
		n, _, err := r.conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // such as ECONNREFUSED of an ICMP answer: the exchange ends by its own bound
		}
		answer := parse(buf[:n])
		if answer == nil {
			continue
		}
		r.mu.Lock()
		to := r.waiting[answer.TransactionID]
		r.mu.Unlock()
		select {
		case to <- answer: // a nil channel is never ready
		default:
		}
	}
}

// parse reads an answer; nil if it is none. Any machine of the segment can send one, and this is no goroutine of a request, whose panics the
// server survives.
func parse(data []byte) (answer *dhcpv4.DHCPv4) {
	defer func() {
		if recover() != nil {
			answer = nil
		}
	}()
	answer, err := dhcpv4.FromBytes(data)
	if err != nil || answer.OpCode != dhcpv4.OpcodeBootReply {
		return nil
	}
	return answer
}

// send sends a message once.
func (r *relay) send(m *dhcpv4.DHCPv4, to netip.Addr) error {
	_, err := r.conn.WriteTo(m.ToBytes(), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
	if err != nil {
		return fmt.Errorf("device %s: send to DHCP server: %w", r.device, err)
	}
	return nil
}

// HostID returns what tells the clients of this host from those of others on the segment of a device: the device's MAC, without separators.
func (c *Client) HostID(device string) (string, error) {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return "", fmt.Errorf("device %s: %w: the host has no such device", device, ErrDevice)
	}
	return hex.EncodeToString(dev.HardwareAddr), nil
}
