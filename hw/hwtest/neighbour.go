package hwtest

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/mellanox/passthrough/hw"
)

// neighbour is an address on the segment of a link.
type neighbour struct {
	index int
	addr  netip.Addr
}

// Solicit implements hw.Kernel. Whoever is at the other end of a veth, up and has the address, answers at once.
func (k *Kernel) Solicit(index int, a netip.Addr) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		if l == nil {
			return syscall.ENODEV
		}
		var answer hw.MAC
		if p := l.peer; p != nil && l.carrier() && slices.ContainsFunc(p.addrs, func(has hw.Addr) bool {
			prefix, err := netip.ParsePrefix(has.CIDR)
			return err == nil && prefix.Addr() == a
		}) {
			answer = p.MAC
		}
		k.neighbours[neighbour{index, a}] = answer
		return nil
	}, func() string { return fmt.Sprintf("ask who has %s on %s", a, k.labelLocked(index)) })
}

// Neighbour implements hw.Kernel.
func (k *Kernel) Neighbour(index int, a netip.Addr) (hw.MAC, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	mac, known := k.neighbours[neighbour{index, a}]
	return mac, known, nil
}

// ForgetNeighbour implements hw.Kernel.
func (k *Kernel) ForgetNeighbour(index int, a netip.Addr) error {
	return k.call(func() error {
		if k.byIndexLocked(hostNS, index) == nil {
			return syscall.ENODEV
		}
		delete(k.neighbours, neighbour{index, a})
		return nil
	}, func() string { return fmt.Sprintf("forget who has %s on %s", a, k.labelLocked(index)) })
}

// AddAddr gives a link in the namespace an address.
func (n Namespace) AddAddr(name, cidr string) {
	n.k.t.Helper()
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	l := n.k.needLocked(n.ns, name)
	l.addrs = append(l.addrs, hw.Addr{CIDR: cidr})
}
