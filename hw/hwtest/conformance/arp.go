package conformance

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// An ARPEnv is an Env whose namespaces have addresses.
type ARPEnv interface {
	Env
	// AddAddrIn adds an address to a link in a namespace, without duplicate address detection.
	AddAddrIn(t *testing.T, ns, name, cidr string)
}

// ARP tests the neighbour methods of an hw.Kernel for IPv4 (ARP) and IPv6 (neighbour discovery).
func ARP(t *testing.T, open func(t *testing.T) (hw.Kernel, ARPEnv)) {
	for _, c := range []struct{ family, has, hasNot string }{
		{"IPv4", "192.0.2.5", "192.0.2.6"}, {"IPv6", "2001:db8::5", "2001:db8::6"},
	} {
		t.Run(c.family, func(t *testing.T) {
			k, env := open(t)
			testSolicit(t, machine{k, env}, env, netip.MustParseAddr(c.has), netip.MustParseAddr(c.hasNot))
		})
	}
}

func testSolicit(t *testing.T, m machine, env ARPEnv, has, hasNot netip.Addr) {
	index := m.pair(t)
	mac := m.link(t, "ct1").MAC
	done(t, "move the other end away", m.MoveToNS("far", "ct1", ""))
	env.AddAddrIn(t, "far", "ct1", netip.PrefixFrom(has, has.BitLen()-8).String())
	soon(t, "carrier", func() bool { return m.link(t, "ct0").Carrier })
	for range 2 { // the second round gives the same results: the first leaves no neighbour entry
		if got, known, err := m.Neighbour(index, has); got != "" || known || err != nil {
			t.Fatalf("before the first solicitation the neighbour is %q, known %v (%v)", got, known, err)
		}
		soon(t, "answer", func() bool {
			// The link gets its own IPv6 address, from which it solicits, a moment after its carrier.
			done(t, "solicit an address in use", m.Solicit(index, has))
			got, _, err := m.Neighbour(index, has)
			done(t, "read the neighbour", err)
			return got == mac
		})
		done(t, "solicit an unused address", m.Solicit(index, hasNot))
		if got, known, err := m.Neighbour(index, hasNot); got != "" || !known || err != nil {
			t.Errorf("the neighbour of an unused address is %q, known %v (%v)", got, known, err)
		}
		for range 2 { // to forget an unknown neighbour is no error
			done(t, "forget", m.ForgetNeighbour(index, has))
			done(t, "forget", m.ForgetNeighbour(index, hasNot))
		}
	}
	refused(t, "solicit on a missing link", m.Solicit(1<<20, has), syscall.ENODEV)
}
