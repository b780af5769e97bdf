package hwtest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/hw"
)

// String is the whole state in a form that does not depend on what has happened: namespaces, links by name, addresses,
// routes, PFs and VFs. Ifindexes, which change with every probe, are left out.
func (k *Kernel) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var b strings.Builder
	for _, ns := range k.spacesLocked() {
		fmt.Fprintf(&b, "namespace %s\n", cmp.Or(ns, "host"))
		links := slices.DeleteFunc(slices.Clone(k.links), func(l *link) bool { return l.ns != ns })
		slices.SortFunc(links, func(x, y *link) int { return strings.Compare(x.Name, y.Name) })
		for _, l := range links {
			k.printLinkLocked(&b, l)
		}
	}
	devices := slices.Clone(k.devices)
	slices.SortFunc(devices, func(x, y *device) int { return strings.Compare(x.addr, y.addr) })
	for _, d := range devices {
		if d.pf == nil {
			k.printLocked(&b, d)
		}
	}
	return b.String()
}

// spacesLocked lists the namespaces, the host first.
func (k *Kernel) spacesLocked() []string {
	var names []string
	for ns := range k.spaces {
		names = append(names, ns)
	}
	slices.Sort(names)
	return names
}

func (k *Kernel) printLinkLocked(b *strings.Builder, l *link) {
	fmt.Fprintf(b, "  %s:", l.Name)
	say := func(yes bool, format string, args ...any) {
		if yes {
			fmt.Fprintf(b, " "+format, args...)
		}
	}
	say(l.Kind != "", "%s", l.Kind)
	l.printMade(b)
	say(l.dev != nil, "%s", l.pci())
	say(true, "mac %s mtu %d txqueuelen %d", l.MAC, l.MTU, l.TxQLen)
	say(l.Up, "up")
	say(l.carrier(), "carrier")
	say(l.Promisc, "promisc")
	say(l.AllMulti, "allmulti")
	say(l.NoARP, "noarp")
	say(l.NoMulticast, "nomulticast")
	say(l.XDP != hw.XDP{}, "xdp %v", l.XDP)
	say(l.Segments != segments, "segments %+v", l.Segments)
	l.printTuning(say)
	l.printControls(say)
	if l.master != nil {
		say(true, "master %s", l.master.Name)
		say(l.master.Kind == "bridge" && !maps.Equal(l.vlans, defaultVLANs()), "vlans %v", l.vlans)
	}
	say(l.Alias != "", "alias %q", l.Alias)
	say(len(l.AltNames) > 0, "altnames %s", strings.Join(slices.Sorted(slices.Values(l.AltNames)), ","))
	b.WriteByte('\n')
	addrs := l.shownAddrs() // the order is that of adding, within a family
	slices.SortStableFunc(addrs, func(x, y hw.Addr) int {
		return cmp.Compare(min(0, strings.Index(x.CIDR, ":")), min(0, strings.Index(y.CIDR, ":"))) // -1 in IPv4
	})
	for _, a := range addrs {
		fmt.Fprintf(b, "    address %+v\n", a)
	}
	for _, e := range inOrder(slices.Clone(l.entries)) {
		fmt.Fprintf(b, "    %s\n", e.Text)
	}
	for _, name := range slices.Sorted(maps.Keys(l.sysctls)) {
		fmt.Fprintf(b, "    %s = %s\n", name, l.sysctls[name])
	}
	var routes []string
	for _, r := range k.routes {
		if r.Index == l.Index && l.ns == hostNS {
			r.Index = 0
			routes = append(routes, fmt.Sprintf("    route %+v\n", r))
		}
	}
	slices.Sort(routes) // those with different destinations have no order
	b.WriteString(strings.Join(routes, ""))
}

// pci is a link's PCI address, "" when it has none.
func (l *link) pci() string {
	if l.dev == nil {
		return ""
	}
	return l.dev.addr
}

// printLocked is a PF and its VFs.
func (k *Kernel) printLocked(b *strings.Builder, d *device) {
	fmt.Fprintf(b, "pf %s: driver %s", d.addr, cmp.Or(d.driver, "none"))
	if d.conf.TotalVFs > 0 {
		fmt.Fprintf(b, " vfs %d/%d autoprobe %v", len(d.vfs), d.conf.TotalVFs, d.autoprobe)
	}
	b.WriteString(k.printIRQs(d))
	b.WriteByte('\n')
	for i, vf := range d.vfs {
		fmt.Fprintf(b, "  vf %d %s: driver %s override %s mac %s vlan %v spoofchk %v trust %v", i, vf.addr,
			cmp.Or(vf.driver, "none"), cmp.Or(vf.override, "none"), cmp.Or(string(vf.state.MAC), "none"), vf.state.VLAN,
			vf.state.Spoofchk, vf.state.Trust)
		fmt.Fprintf(b, " rate %v link_state %v", vf.state.Rate, vf.state.LinkMode)
		if vf.state.Trunk != "" {
			fmt.Fprintf(b, " trunk %s", vf.state.Trunk)
		}
		if vf.conf.InfiniBand {
			fmt.Fprintf(b, " guids %s %s", cmp.Or(vf.state.NodeGUID, "none"), cmp.Or(vf.state.PortGUID, "none"))
		}
		if vf.off {
			b.WriteString(" off")
		}
		if vf.dead {
			b.WriteString(" dead")
		}
		if vf.cutOff {
			b.WriteString(" cut off")
		}
		b.WriteString(k.printIRQs(vf))
		b.WriteByte('\n')
	}
}
