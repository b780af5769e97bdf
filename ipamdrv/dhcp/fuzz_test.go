package dhcp

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// FuzzAnswer: whatever a machine of the segment answers, a lease has an address, a server, and times in their order.
func FuzzAnswer(f *testing.F) {
	for _, seconds := range []time.Duration{time.Hour, infinite, infinite - time.Second, 0} {
		answer, err := dhcpv4.New(dhcpv4.WithMessageType(dhcpv4.MessageTypeAck), dhcpv4.WithYourIP(net.IPv4(10, 8, 0, 50)),
			dhcpv4.WithServerIP(net.IPv4(10, 8, 0, 2)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(10, 8, 0, 2))),
			dhcpv4.WithOption(dhcpv4.OptIPAddressLeaseTime(seconds)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(net.IPv4(10, 8, 0, 1)))
		if err != nil {
			f.Fatal(err)
		}
		answer.OpCode = dhcpv4.OpcodeBootReply
		f.Add(answer.ToBytes())
	}
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, data []byte) {
		answer := parse(data)
		if answer == nil {
			return
		}
		if o, err := newOffer(answer); err == nil && (!o.Addr.IsValid() || o.Addr.Bits() == 0) {
			t.Errorf("offer %+v", o)
		}
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		a, l, err := newLease(answer, Identity{ID: "web@1"}, now)
		if err != nil {
			return
		}
		if !a.Is4() || a == (netip.Addr{}) || !l.Server.Is4() || l.MAC == "" {
			t.Errorf("lease of %s: %+v", a, l)
		}
		if !l.Expires.IsZero() && (l.Renew.Before(now) || l.Rebind.Before(l.Renew) || l.Expires.Before(l.Rebind)) {
			t.Errorf("times of %+v", l)
		}
	})
}

// TestHostName: what the server is told as the name of a container is the label of a host name.
func TestHostName(t *testing.T) {
	for name, want := range map[string]string{"web": "web", "shop_web-1": "shop-web-1", "web.1": "web-1", "_": "", "": "", "é": ""} {
		if got := hostName(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}
