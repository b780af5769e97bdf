package hwtest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// Numbers of rtnetlink.
const (
	mainTable    = 254
	protoKernel  = 2
	protoBoot    = 3
	protoRouter  = 9 // from a router advertisement
	typeUnicast  = 1
	ip6Metric    = 1024  // an IPv6 route without a metric gets it
	noPrefixFlag = 0x200 // IFA_F_NOPREFIXROUTE
)

// Addrs implements hw.Kernel.
func (k *Kernel) Addrs(index int) ([]hw.Addr, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndexLocked(hostNS, index)
	if l == nil {
		return nil, hw.FromErrno(syscall.ENODEV)
	}
	return l.shownAddrs(), nil
}

// AddAddr implements hw.Kernel.
func (k *Kernel) AddAddr(index int, a hw.Addr) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		if l == nil {
			return syscall.ENODEV
		}
		return k.addAddrLocked(l, a)
	}, func() string { return fmt.Sprintf("add address %s to %s", a.CIDR, k.labelLocked(index)) })
}

// Routes implements hw.Kernel.
func (k *Kernel) Routes(index int) ([]hw.Route, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if index != 0 && k.byIndexLocked(hostNS, index) == nil {
		return nil, hw.FromErrno(syscall.ENODEV)
	}
	var rs []hw.Route
	for _, r := range k.routes {
		if (index == 0 || r.Index == index) && r.Protocol != protoKernel {
			rs = append(rs, r)
		}
	}
	// Those without a gateway first, so that they can be added again in this order.
	slices.SortStableFunc(rs, func(a, b hw.Route) int {
		return cmp.Compare(min(len(a.Gateway), 1), min(len(b.Gateway), 1))
	})
	return rs, nil
}

// AddRoute implements hw.Kernel.
func (k *Kernel) AddRoute(index int, r hw.Route) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		if l == nil {
			return syscall.ENODEV
		}
		return k.addRouteLocked(l, r)
	}, func() string { return fmt.Sprintf("add route %s through %s", r.Dst, k.labelLocked(index)) })
}

// RoutesIn implements hw.Kernel.
func (k *Kernel) RoutesIn(table, protocol int) ([]hw.Route, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(k.routes), func(r hw.Route) bool { return r.Table != table || r.Protocol != protocol }), nil
}

// RemoveRoute implements hw.Kernel.
func (k *Kernel) RemoveRoute(index int, r hw.Route) error {
	return k.call(func() error {
		if k.byIndexLocked(hostNS, index) == nil {
			return nil
		}
		dst, err := netip.ParsePrefix(r.Dst)
		if err != nil {
			return fmt.Errorf("%w: %w", err, syscall.EINVAL)
		}
		if dst.Addr().Is6() {
			r.Metric = cmp.Or(r.Metric, ip6Metric)
		}
		k.routes = slices.DeleteFunc(k.routes, func(o hw.Route) bool {
			return o.Index == index && o.Dst == r.Dst && o.Table == cmp.Or(r.Table, mainTable) && o.Metric == r.Metric &&
				(r.Protocol == 0 || o.Protocol == r.Protocol)
		})
		return nil
	}, func() string { return fmt.Sprintf("remove route %s through %s", r.Dst, k.labelLocked(index)) })
}

// DelRoutes removes the routes to a destination from every table, as an administrator does.
func (k *Kernel) DelRoutes(dst string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.routes = slices.DeleteFunc(k.routes, func(r hw.Route) bool { return r.Dst == dst })
}

// Sessions implements hw.Kernel.
func (k *Kernel) Sessions() ([]netip.AddrPort, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.sessions), nil
}

// Connect opens a session of a client with a program that listens on one of the host's addresses: "192.0.2.1:22" or
// "[2001:db8::1]:22".
func (k *Kernel) Connect(local string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.sessions = append(k.sessions, netip.MustParseAddrPort(local))
}

// AddAddrs gives a link in the host addresses, as an administrator does.
func (k *Kernel) AddAddrs(name string, cidrs ...string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	for _, c := range cidrs {
		if err := k.addAddrLocked(l, hw.Addr{CIDR: c}); err != nil {
			k.t.Fatalf("hwtest: add address %s to %s: %v", c, name, err)
		}
	}
}

// AddRoutes gives a link in the host routes, as an administrator does.
func (k *Kernel) AddRoutes(name string, routes ...hw.Route) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	for _, r := range routes {
		if err := k.addRouteLocked(l, r); err != nil {
			k.t.Fatalf("hwtest: add route %s through %s: %v", r.Dst, name, err)
		}
	}
}

// addAddrLocked adds an address, or changes the lives of one that is there.
func (k *Kernel) addAddrLocked(l *link, a hw.Addr) error {
	p, err := netip.ParsePrefix(a.CIDR)
	if err != nil {
		return fmt.Errorf("%w: %w", err, syscall.EINVAL)
	}
	if p.Addr().Is4() {
		a.Label = cmp.Or(a.Label, l.Name)
	} else {
		a.Label, a.Broadcast = "", "" // IPv6 has neither
	}
	same := func(o address) bool { return o.CIDR == a.CIDR && o.Peer == a.Peer }
	until := time.Now().Add(time.Duration(a.ValidSec) * time.Second)
	if i := slices.IndexFunc(l.addrs, same); i >= 0 {
		l.addrs[i].ValidSec, l.addrs[i].PrefSec, l.addrs[i].set = a.ValidSec, a.PrefSec, time.Now()
	} else {
		l.addrs = append(l.addrs, address{a, time.Now()})
	}
	if a.ValidSec > 0 {
		k.afterLocked(time.Until(until), func() {
			l.addrs = slices.DeleteFunc(l.addrs, func(o address) bool {
				return same(o) && o.ValidSec > 0 && !o.set.Add(time.Duration(o.ValidSec)*time.Second).After(time.Now())
			})
		})
	}
	return nil
}

// An address is one with the time at which its lives were set.
type address struct {
	hw.Addr
	set time.Time
}

// shownAddrs are the addresses of a link with what is left of their lives.
func (l *link) shownAddrs() (all []hw.Addr) {
	for _, a := range l.addrs {
		passed := int(time.Since(a.set) / time.Second)
		if a.ValidSec > 0 {
			a.ValidSec = max(1, a.ValidSec-passed)
		}
		if a.PrefSec > 0 {
			if a.PrefSec -= passed; a.PrefSec <= 0 {
				a.PrefSec = -1
			}
		}
		all = append(all, a.Addr)
	}
	return all
}

// addRouteLocked adds a route; one to the same place with the same metric in the same table is there already. IPv6
// takes several of those if their gateways differ.
func (k *Kernel) addRouteLocked(l *link, r hw.Route) error {
	dst, err := netip.ParsePrefix(r.Dst)
	if err != nil {
		return fmt.Errorf("%w: %w", err, syscall.EINVAL)
	}
	r.Index = l.Index
	r.Table, r.Protocol, r.Type = cmp.Or(r.Table, mainTable), cmp.Or(r.Protocol, protoBoot), cmp.Or(r.Type, typeUnicast)
	if dst.Addr().Is6() {
		r.Metric, r.Scope = cmp.Or(r.Metric, ip6Metric), 0
	}
	for _, o := range k.routes {
		same := o.Dst == r.Dst && o.Table == r.Table && o.Metric == r.Metric
		if same && (dst.Addr().Is4() || o.Gateway == r.Gateway && o.Index == r.Index) {
			return nil
		}
	}
	if _, err := netip.ParseAddr(r.Gateway); r.Gateway != "" && err != nil {
		return fmt.Errorf("%w: %w", err, syscall.EINVAL)
	}
	switch {
	case !l.Up:
		return syscall.ENETDOWN
	case r.Src != "" && !k.ownsLocked(r.Src):
		return syscall.EINVAL
	case r.Gateway != "" && !r.OnLink && !k.reachesLocked(l, r.Gateway):
		if dst.Addr().Is6() {
			return syscall.EHOSTUNREACH
		}
		return syscall.ENETUNREACH
	}
	k.routes = append(k.routes, r)
	return nil
}

// dropRoutesLocked removes the routes through a link, as going down does.
func (k *Kernel) dropRoutesLocked(l *link) {
	k.routes = slices.DeleteFunc(k.routes, func(r hw.Route) bool { return l.ns == hostNS && r.Index == l.Index })
}

// ownsLocked tells whether the host has an address.
func (k *Kernel) ownsLocked(ip string) bool {
	return slices.ContainsFunc(k.links, func(l *link) bool {
		return l.ns == hostNS && slices.ContainsFunc(l.addrs,
			func(a address) bool { return strings.HasPrefix(a.CIDR, ip+"/") })
	})
}

// reachesLocked tells whether a gateway is directly behind a link.
func (k *Kernel) reachesLocked(l *link, gateway string) bool {
	gw, err := netip.ParseAddr(gateway)
	if err != nil {
		return false
	}
	for _, a := range l.addrs {
		p, err := netip.ParsePrefix(cmp.Or(a.Peer, a.CIDR))
		if err == nil && a.Flags&noPrefixFlag == 0 && p.Contains(gw) {
			return true
		}
	}
	for _, r := range k.routes {
		p, err := netip.ParsePrefix(r.Dst)
		if err == nil && r.Index == l.Index && r.Gateway == "" && p.Contains(gw) {
			return true
		}
	}
	return gw.IsLinkLocalUnicast()
}

// neighbour is an address on the segment of a link.
type neighbour struct {
	index int
	addr  netip.Addr
}

// Solicit implements hw.Kernel. The other end of a veth answers at once if it is up and has the address.
func (k *Kernel) Solicit(index int, a netip.Addr) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		if l == nil {
			return syscall.ENODEV
		}
		var answer hw.MAC
		if p := l.peer; p != nil && l.carrier() && slices.ContainsFunc(p.addrs, func(has address) bool {
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
	l.addrs = append(l.addrs, address{Addr: hw.Addr{CIDR: cidr}})
}
