package hwtest

import (
	"net/netip"
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// A NeighbourEnv is an Env whose namespaces have addresses.
type NeighbourEnv interface {
	Env
	// AddAddrIn gives a link in a namespace an address, which nobody has to be asked about first.
	AddAddrIn(t *testing.T, ns, name, cidr string)
}

// NeighbourContract holds an implementation of the kernel seam to what package hw relies on when it asks who has an
// address.
func NeighbourContract(t *testing.T, open func(t *testing.T) (hw.Kernel, NeighbourEnv)) {
	for _, c := range []struct{ family, has, hasNot string }{
		{"IPv4", "192.0.2.5", "192.0.2.6"}, {"IPv6", "2001:db8::5", "2001:db8::6"},
	} {
		t.Run(c.family, func(t *testing.T) {
			k, env := open(t)
			contractNeighbour(t, machine{k, env}, env, netip.MustParseAddr(c.has), netip.MustParseAddr(c.hasNot))
		})
	}
}

func contractNeighbour(t *testing.T, m machine, env NeighbourEnv, has, hasNot netip.Addr) {
	index := m.pair(t)
	mac := m.link(t, "ct1").MAC
	done(t, "move the other end away", m.MoveToNS("far", "ct1", ""))
	env.AddAddrIn(t, "far", "ct1", netip.PrefixFrom(has, has.BitLen()-8).String())
	soon(t, "carrier", func() bool { return m.link(t, "ct0").Carrier })
	for range 2 { // the second time is as the first: nothing is left
		if got, known, err := m.Neighbour(index, has); got != "" || known || err != nil {
			t.Fatalf("nobody was asked, and it is %q, %v (%v)", got, known, err)
		}
		soon(t, "answer", func() bool {
			// The link's own IPv6 address, without which it cannot ask, is there a moment after its carrier.
			done(t, "ask for one that is there", m.Solicit(index, has))
			got, _, err := m.Neighbour(index, has)
			done(t, "look", err)
			return got == mac
		})
		done(t, "ask for one that is not there", m.Solicit(index, hasNot))
		if got, known, err := m.Neighbour(index, hasNot); got != "" || !known || err != nil {
			t.Errorf("one that is not there is %q, %v (%v)", got, known, err)
		}
		for range 2 { // forgetting what is not known is no error
			done(t, "forget", m.ForgetNeighbour(index, has))
			done(t, "forget", m.ForgetNeighbour(index, hasNot))
		}
	}
	refused(t, "ask on a link that is not there", m.Solicit(1<<20, has), syscall.ENODEV)
}
