package hwtest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
)

// entryOrder is the order in which entries are listed.
var entryOrder = []hw.EntryKind{hw.EntryBridgePort, hw.EntryFDB, hw.EntryQdisc, hw.EntryClass, hw.EntryAddress, hw.EntryNeighbour,
	hw.EntryRoute}

// Configure gives a link in the host entries of kinds that this kernel keeps as they are, as an administrator does: all but
// addresses and routes. Their text is what they are.
func (k *Kernel) Configure(name string, entries ...hw.Entry) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	for _, e := range entries {
		e.Body = []byte(e.Text)
		if err := k.addEntryLocked(l, e); err != nil {
			k.t.Fatalf("hwtest: add %s to %s: %v", e.Text, name, err)
		}
	}
}

// AddFilter gives a link in the host something that cannot be added again, such as "filters of qdisc clsact ffff:".
func (k *Kernel) AddFilter(name, what string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	l.leftOut = append(l.leftOut, what)
}

// LeftOut implements hw.Kernel.
func (k *Kernel) LeftOut(index int) ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndexLocked(hostNS, index)
	if l == nil {
		return nil, hw.FromErrno(syscall.ENODEV)
	}
	return slices.Clone(l.leftOut), nil
}

// sysctls are the settings that a new link has.
var sysctls = map[string]string{"net.ipv4.conf.*.rp_filter": "0", "net.ipv4.conf.*.arp_ignore": "0",
	"net.ipv4.conf.*.arp_announce": "0", "net.ipv4.conf.*.forwarding": "1", "net.ipv6.conf.*.forwarding": "0",
	"net.ipv4.neigh.*.gc_stale_time": "60",
	"net.ipv6.neigh.*.gc_stale_time": "60", "net.ipv6.conf.*.accept_ra": "1", "net.ipv6.conf.*.addr_gen_mode": "0"}

// Sysctls implements hw.Kernel.
func (k *Kernel) Sysctls(index int) (map[string]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	values := maps.Clone(sysctls)
	if index == 0 {
		return values, nil
	}
	l := k.byIndexLocked(hostNS, index)
	if l == nil {
		return nil, hw.FromErrno(syscall.ENODEV)
	}
	maps.Copy(values, l.sysctls)
	return values, nil
}

// SetSysctl implements hw.Kernel.
func (k *Kernel) SetSysctl(index int, name, value string) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		switch {
		case l == nil:
			return syscall.ENODEV
		case sysctls[name] == "":
			return syscall.ENOENT
		case !k.ProcSys && strings.HasPrefix(name, "net.ipv6.conf.") && name != "net.ipv6.conf.*.addr_gen_mode":
			return syscall.EROFS
		}
		l.setSysctl(name, value)
		return nil
	}, func() string { return fmt.Sprintf("set %s of %s to %s", name, k.labelLocked(index), value) })
}

// WriteSysctl sets a sysctl of a link in the host, as an administrator does.
func (k *Kernel) WriteSysctl(name, sysctl, value string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.needLocked(hostNS, name).setSysctl(sysctl, value)
}

// setSysctl sets a sysctl of a link.
func (l *link) setSysctl(name, value string) {
	if l.sysctls == nil {
		l.sysctls = map[string]string{}
	}
	l.sysctls[name] = value
	if value == sysctls[name] {
		delete(l.sysctls, name)
	}
}

// Entries implements hw.Kernel. The bodies are the entries of this kernel as JSON.
func (k *Kernel) Entries(index int) ([]hw.Entry, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndexLocked(hostNS, index)
	if l == nil {
		return nil, hw.FromErrno(syscall.ENODEV)
	}
	all := slices.Clone(l.entries)
	for _, a := range l.shownAddrs() {
		e := hw.Entry{Kind: hw.EntryAddress, Text: "address " + a.CIDR, ValidSec: a.ValidSec, PrefSec: a.PrefSec}
		e.Address, _, _ = strings.Cut(a.CIDR, "/")
		a.ValidSec, a.PrefSec = 0, 0
		e.Body = body(a)
		all = append(all, e)
	}
	for _, direct := range []bool{true, false} {
		for _, r := range k.routes {
			if r.Index != index || (r.Gateway == "") != direct || l.makesAgain(r) {
				continue
			}
			r.Index = 0
			all = append(all, hw.Entry{Kind: hw.EntryRoute, Text: routeText(r), Address: r.Src, Body: body(r)})
		}
	}
	return inOrder(all), nil
}

// inOrder sorts entries by their kinds.
func inOrder(all []hw.Entry) []hw.Entry {
	slices.SortStableFunc(all, func(x, y hw.Entry) int {
		return slices.Index(entryOrder, x.Kind) - slices.Index(entryOrder, y.Kind)
	})
	return all
}

// routeText describes a route.
func routeText(r hw.Route) string {
	text := "route " + r.Dst
	if r.Gateway != "" {
		text += " via " + r.Gateway
	}
	if r.Table != mainTable {
		text += fmt.Sprintf(" table %d", r.Table)
	}
	if r.Metric != 0 {
		text += fmt.Sprintf(" metric %d", r.Metric)
	}
	return text
}

// body returns a value as the body of an entry.
func body(v any) []byte {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // neither hw.Addr nor hw.Route has what JSON has not
	}
	return text
}

// makesAgain returns true for a route that the kernel makes for an address, or learns from a router.
func (l *link) makesAgain(r hw.Route) bool {
	return r.Protocol == protoRouter || r.Protocol == protoKernel && slices.ContainsFunc(l.addrs, func(a address) bool {
		p, err := netip.ParsePrefix(a.CIDR)
		return err == nil && a.Flags&noPrefixFlag == 0 && r.Metric == 0 && p.Masked().String() == r.Dst
	})
}

// AddEntry implements hw.Kernel.
func (k *Kernel) AddEntry(index int, e hw.Entry) error {
	to := "to"
	if e.Kind == hw.EntryRoute {
		to = "through"
	}
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		if l == nil {
			return syscall.ENODEV
		}
		return k.addEntryLocked(l, e)
	}, func() string { return fmt.Sprintf("add %s %s %s", e.Text, to, k.labelLocked(index)) })
}

// addEntryLocked adds an entry to a link.
func (k *Kernel) addEntryLocked(l *link, e hw.Entry) error {
	switch {
	case e.Kind == hw.EntryAddress:
		var a hw.Addr
		if err := json.Unmarshal(e.Body, &a); err != nil {
			return syscall.EINVAL
		}
		a.ValidSec, a.PrefSec = e.ValidSec, e.PrefSec
		return k.addAddrLocked(l, a)
	case e.Kind == hw.EntryRoute:
		var r hw.Route
		if err := json.Unmarshal(e.Body, &r); err != nil {
			return syscall.EINVAL
		}
		return k.addRouteLocked(l, r)
	case !slices.Contains(entryOrder, e.Kind), len(e.Body) == 0:
		return syscall.EINVAL
	case e.Kind == hw.EntryBridgePort && (l.master == nil || l.master.Kind != "bridge"):
		return syscall.EOPNOTSUPP
	case e.Kind == hw.EntryBridgePort:
		l.drop(hw.EntryBridgePort)
	case slices.ContainsFunc(l.entries, e.Same):
		return nil
	}
	l.entries = append(l.entries, e)
	return nil
}

// drop removes the entries of some kinds.
func (l *link) drop(kinds ...hw.EntryKind) {
	l.entries = slices.DeleteFunc(l.entries, func(e hw.Entry) bool { return slices.Contains(kinds, e.Kind) })
}
