// Package dhcp leases addresses of the DHCP servers of a segment.
//
// It is a relay agent (RFC 2131, RFC 1542) on a device of the host, and at the same time the client for which it relays: requests have the
// host's address on the segment as giaddr, so that a server answers to that address and port 67, whatever address the client has. A plain UDP
// socket is enough for that. A client without a relay agent would have to receive frames for an address that the host does not have, which
// takes a packet socket and CAP_NET_RAW. Seen to be served on their own segment: dnsmasq 2.90, Kea 2.2.
//
// It must not know pools or containers. It owns messages, retransmission and the sockets; when a lease is renewed is its caller's decision,
// with the times in [Lease]. It is the only importer of the library. Entry points: [Client] and [Lease].
package dhcp

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// Errors that callers can match with errors.Is.
var (
	// ErrNoAnswer: no server answered in time. A server that has no address left does not answer either.
	ErrNoAnswer = errors.New("no DHCP server answered")
	// ErrRefused: a server answered that the client cannot have the address.
	ErrRefused = errors.New("refused by the DHCP server")
	// ErrDevice: the device cannot be used: it does not exist, is down, or has no IPv4 address.
	ErrDevice = errors.New("device not usable")
)

// A Lease is what a server has leased to a client, as it is stored.
type Lease struct {
	Server netip.Addr `json:"server"`         // its identifier (option 54)
	Client string     `json:"client"`         // see [Identity]
	MAC    string     `json:"mac"`            // the client's hardware address, as the server was told
	Host   string     `json:"host,omitempty"` // the client's name
	// The times are zero if the lease does not end. Until Rebind the server that has leased the address is asked to renew it, then any.
	Renew   time.Time `json:"renew,omitzero"`
	Rebind  time.Time `json:"rebind,omitzero"`
	Expires time.Time `json:"expires,omitzero"`
}

// Identity returns the client of a lease.
func (l Lease) Identity() Identity { return Identity{ID: l.Client, MAC: l.MAC, Host: l.Host} }

// An Identity is how servers recognize a client.
type Identity struct {
	ID   string // the client identifier (option 61), as text; "" for the MAC
	MAC  string // "" for one that is made from ID
	Host string // the name of the client (option 12); "" for none. What a host name cannot have is replaced
}

// withMAC returns the identity with a hardware address: a locally administered one, the same for the same ID.
func (i Identity) withMAC() Identity {
	if i.MAC == "" {
		sum := sha256.Sum256([]byte(i.ID))
		i.MAC = net.HardwareAddr(append([]byte{0x02}, sum[:5]...)).String()
	}
	return i
}

// modifiers returns what a message of the client has. The identifier's type 0 says that it is no hardware address (RFC 2132 9.14).
func (i Identity) modifiers() ([]dhcpv4.Modifier, error) {
	mac, err := net.ParseMAC(i.withMAC().MAC)
	if err != nil {
		return nil, err
	}
	id := append([]byte{byte(iana.HWTypeEthernet)}, mac...)
	if i.ID != "" {
		id = append([]byte{0}, i.ID...)
	}
	all := []dhcpv4.Modifier{dhcpv4.WithHwAddr(mac), dhcpv4.WithOption(dhcpv4.OptClientIdentifier(id))}
	if host := hostName(i.Host); host != "" {
		all = append(all, dhcpv4.WithOption(dhcpv4.OptHostName(host)))
	}
	return all, nil
}

// hostName returns the label of a host name (RFC 1123 2.1) that is made of a name.
func hostName(name string) string {
	label := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, name)
	return strings.Trim(label[:min(len(label), 63)], "-")
}

// newLease reads a lease from the server's answer, which it gave at a time. The times of renewal are those of RFC 2131 4.4.5 unless the server
// says others.
func newLease(ack *dhcpv4.DHCPv4, who Identity, at time.Time) (netip.Addr, Lease, error) {
	a, server := addrOf(ack.YourIPAddr), addrOf(ack.ServerIdentifier())
	duration := ack.IPAddressLeaseTime(0)
	if !a.IsValid() || !server.IsValid() || duration < time.Second {
		return netip.Addr{}, Lease{}, fmt.Errorf("the answer of DHCP server %s has no address, no server identifier or no lease time", server)
	}
	who = who.withMAC()
	l := Lease{Server: server, Client: who.ID, MAC: who.MAC, Host: who.Host}
	if duration == infinite {
		return a, l, nil
	}
	rebind := ack.IPAddressRebindingTime(duration / 8 * 7)
	rebind = min(rebind, duration)
	renew := min(ack.IPAddressRenewalTime(duration/2), rebind)
	at = at.UTC()
	l.Renew, l.Rebind, l.Expires = at.Add(renew), at.Add(rebind), at.Add(duration)
	return a, l, nil
}

// infinite is the lease time of a lease that does not end (RFC 2131 3.3).
const infinite = time.Duration(0xffffffff) * time.Second

// addrOf returns an IPv4 address; not valid for none.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4()) // not valid for nil
	if a.IsValid() && a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}
