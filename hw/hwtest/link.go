package hwtest

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
)

// Values of sysfs's name_assign_type.
const (
	nameByKernel = 1 // eth0
	nameRenamed  = 4
)

// A link is a network device. The fields Carrier and Master of hw.Link are worked out when it is listed.
type link struct {
	hw.Link
	ns         string
	dev        *device // nil for a virtual link
	dir        string  // tree path of what it is in, if that is not dev's, nor the place of virtual ones
	port       int     // dev_port
	portName   string  // phys_port_name of a representor
	represents *device // the VF that it leads to; nil for another link
	wifi       bool
	assign     int    // name_assign_type
	stale      string // the name that sysfs still has while the link is being renamed; "" at other times
	udevName   string // the name that udev gives it; "" for virtual links, which udev leaves alone
	cable      bool   // the other end is connected
	trained    bool   // the medium has come up since the link was last set up
	downs      int    // how often it was set down through hw.Kernel
	ups        int    // how often it, or its PF, went up or down: a late carrier of an earlier time is void
	carriers   int    // how often it has got carrier
	peer       *link  // the other end of a veth
	over       *link  // the device that a vxlan sends through, which rtnetlink does not show as its parent
	below      *link  // the parent of a macvlan, ipvlan or IPoIB child
	master     *link
	ports      []*link      // of a bond or bridge
	vlans      hw.PortVLANs // of a bridge's port
	beforeMAC  hw.MAC       // of a bond's port: its MAC before
	beforeMTU  int          // of a bond's port: its MTU before
	drawnMAC   bool         // the MAC is random (NET_ADDR_RANDOM): a bond takes its first port's
	mode       string       // of a macvlan or ipvlan
	flag       string       // of an ipvlan; "" is bridge
	pkey       int          // of an IPoIB child; 0 for its parent's
	lowerMAC   hw.MAC       // of a device with a macvlan in mode passthru: what it has again when that is gone
	addrs      []address
	entries    []hw.Entry        // what else is configured: see Kernel.Configure
	leftOut    []string          // what cannot be added again: see Kernel.AddFilter
	sysctls    map[string]string // those that are not the default
	tuning     *hw.Tuning        // nil: as its driver makes it
	controls   []hw.Control      // those that its driver has, and what else was set
	stuck      hw.ControlKind    // of the controls that its driver does not change; "" for none
	stuckWhy   syscall.Errno     // its answer
}

// virtual kinds are no hardware.
func (l *link) virtual() bool { return l.Kind != "" || l.Type == "loopback" }

// mortal kinds are deleted with their namespace. Hardware returns to the host, and so does IPoIB (netns_refund in its
// rtnl_link_ops, Linux 6.12).
func (l *link) mortal() bool { return l.virtual() && l.Kind != hw.IPoIB }

// immovableKinds never change their namespace (netns_immutable, Linux 6.15).
var immovableKinds = []string{hw.Bond, "bridge", "team", "vrf", "openvswitch", "batadv", "hsr", "ppp"}

// immovable links never change their namespace.
func (l *link) immovable() bool {
	return l.Type == "loopback" || l.wifi || slices.Contains(immovableKinds, l.Kind)
}

// NetNSImmutable implements hw.Kernel.
func (k *Kernel) NetNSImmutable(index int) (immutable, known bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndexLocked(hostNS, index)
	if l == nil {
		return false, false, hw.FromErrno(syscall.ENODEV)
	}
	return l.immovable() && !k.NoImmutable, !k.NoImmutable, nil
}

// MakeWiFi makes a link in the host a Wi-Fi device.
func (k *Kernel) MakeWiFi(name string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	l.wifi = true
	k.showLocked(l)
}

// carrier tells whether the link could pass a frame now.
func (l *link) carrier() bool {
	if !l.Up || !l.cable {
		return false
	}
	switch {
	case l.peer != nil:
		return l.peer.Up
	case l.below != nil:
		return l.below.carrier()
	case l.Kind == hw.Bond:
		return slices.ContainsFunc(l.ports, (*link).carrier)
	}
	if l.dev != nil && l.dev.pf != nil {
		pf := l.dev.pf
		if l.dev.conf.InfiniBand {
			return l.dev.portState() == portActive
		}
		if l.dev.off || l.dev.port != nil && !l.dev.port.Up { // mlx5e_rep_close, ice_repr_stop
			return false
		}
		return l.trained && !l.dev.dead && !l.dev.cutOff && !slices.Contains(pf.conf.BadVFs, l.dev.index) &&
			(l.dev.state.LinkMode == hw.LinkEnable || pf.net != nil && pf.net.carrier())
	}
	return l.trained
}

// shown is the link as rtnetlink lists it.
func (l *link) shown() hw.Link {
	s := l.Link
	s.AltNames = slices.Clone(l.AltNames)
	s.Carrier = l.carrier()
	s.MaxMTU, s.MaxGSO = l.maxMTU(), l.maxGSO()
	s.Master = 0
	if l.master != nil {
		s.Master = l.master.Index
		if l.master.Kind == hw.Bond {
			s.PortMAC = l.beforeMAC
		}
	}
	return s
}

// AddLink adds a virtual link, such as a bond, a bridge or a macvlan, or with Kind "" a device that is not on the PCI
// bus, to the host, and returns its ifindex. Zero fields get the kernel's defaults. Peer is the ifindex of the parent.
func (k *Kernel) AddLink(l hw.Link) int {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.addLocked(hostNS, l).Index
}

// AddOn adds a netdev to a PCI function beside its own: another port of it, or with port 0 one of its switch's; or, with on,
// one of a device on the function, such as the subfunction "mlx5_core.sf.4" or a USB NIC's "usb1/1-1/1-1:1.0".
func (k *Kernel) AddOn(pci, on string, port int, l hw.Link) int {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.needPFLocked(pci)
	n := k.addLocked(hostNS, l)
	k.hideLocked(n)
	n.dir, n.port = path.Join(d.path, on), port
	k.appearLocked(n)
	return n.Index
}

// AddVeth adds a veth pair to the host.
func (k *Kernel) AddVeth(a, b string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	x, y := k.addLocked(hostNS, hw.Link{Name: a, Kind: "veth"}), k.addLocked(hostNS, hw.Link{Name: b, Kind: "veth"})
	x.peer, y.peer = y, x
	x.Peer, y.Peer = y.Index, x.Index
	k.showLocked(x)
	k.showLocked(y)
}

// Link is the link of that name, or alternative name, in the host; the test ends when there is none.
func (k *Kernel) Link(name string) hw.Link {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.needLocked(hostNS, name).shown()
}

// Downs is how often package hw has set a link down that was up, a link that is in the host now.
func (k *Kernel) Downs(name string) int {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.needLocked(hostNS, name).downs
}

// DownsOf is Downs of a link in a namespace.
func (k *Kernel) DownsOf(ns, name string) int {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.needLocked(ns, name).downs
}

// Plug connects a cable to a link in the host, or removes it.
func (k *Kernel) Plug(name string, in bool) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	l.cable = in
	k.showLocked(l)
}

// GiveAltName gives a link in the host an alternative name, as udev does.
func (k *Kernel) GiveAltName(name, alt string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	if k.namedLocked(hostNS, alt) != nil {
		k.t.Fatalf("hwtest: altname %s for %s: taken", alt, name)
	}
	l.AltNames = append(l.AltNames, alt)
}

// DelLink deletes a link in the host; a veth's peer goes too.
func (k *Kernel) DelLink(name string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.deleteLocked(k.needLocked(hostNS, name))
}

// addLocked makes a link with the kernel's defaults for what l leaves open.
func (k *Kernel) addLocked(ns string, l hw.Link) *link {
	if k.namedLocked(ns, l.Name) != nil {
		k.t.Errorf("hwtest: add link %s: the name is taken", l.Name)
	}
	k.indexes++
	l.Index = k.indexes
	l.Type = cmp.Or(l.Type, "ether")
	l.MTU = cmp.Or(l.MTU, 1500)
	l.TxQLen = cmp.Or(l.TxQLen, 1000)
	l.Segments = cmp.Or(l.Segments, segments)
	drawn := l.MAC == ""
	if drawn {
		l.MAC = k.drawMAC()
	}
	n := &link{Link: l, ns: ns, assign: nameRenamed, cable: true, trained: l.Up, drawnMAC: drawn}
	if m := k.byIndexLocked(ns, l.Master); m != nil {
		n.master, n.beforeMAC, n.beforeMTU = m, l.MAC, l.MTU
		m.ports = append(m.ports, n)
		if m.Kind == "bridge" {
			n.vlans = defaultVLANs()
		}
	}
	if slices.Contains(childKinds, l.Kind) {
		n.below = k.byIndexLocked(ns, l.Peer)
	}
	if l.Kind == "vxlan" {
		n.over, n.Peer = k.byIndexLocked(ns, l.Peer), 0
	}
	if !n.virtual() {
		n.udevName = l.Name
	}
	k.links = append(k.links, n)
	k.appearLocked(n)
	if n.over != nil {
		k.showLocked(n.over)
	}
	return n
}

// deleteLocked ends a link wherever it is.
func (k *Kernel) deleteLocked(l *link) {
	k.endSoftRDMALocked(l)
	k.hideLocked(l)
	if l.dev != nil && l.dir == "" { // with the last netdev goes the net directory (drivers/base/core.c, cleanup_glue_dir, Linux 6.12)
		k.tree.remove(l.parent() + "/net")
	}
	k.dropRoutesLocked(l)
	k.links = slices.DeleteFunc(k.links, func(o *link) bool { return o == l })
	for _, o := range slices.Clone(k.links) {
		switch {
		case o.peer == l:
			o.peer = nil
			k.deleteLocked(o)
		case o.below == l, o.over == l:
			k.deleteLocked(o)
		case o.master == l:
			k.releaseLocked(o)
		}
	}
	if l.master != nil {
		k.releaseLocked(l)
	}
	k.orphanLocked(l)
	if l.over != nil {
		k.tree.remove(path.Join(l.over.parent(), "net", l.over.shownAs(), "upper_"+l.Name))
	}
	if l.dev != nil && l.dev.net == l {
		l.dev.net = nil
	}
}

// namedLocked is the link that a name or alternative name belongs to, nil when it is free.
func (k *Kernel) namedLocked(ns, name string) *link {
	for _, l := range k.links {
		if l.ns == ns && (l.Name == name || slices.Contains(l.AltNames, name)) {
			return l
		}
	}
	return nil
}

// needLocked is namedLocked for a name that the test is sure of.
func (k *Kernel) needLocked(ns, name string) *link {
	k.t.Helper()
	l := k.namedLocked(ns, name)
	if l == nil {
		k.t.Fatalf("hwtest: no link %q in namespace %q", name, ns)
	}
	return l
}

func (k *Kernel) byIndexLocked(ns string, index int) *link {
	for _, l := range k.links {
		if l.ns == ns && l.Index == index {
			return l
		}
	}
	return nil
}

// freeNameLocked is the first of eth0, eth1... that is free in the host.
func (k *Kernel) freeNameLocked(prefix string) string {
	for i := 0; ; i++ {
		if name := prefix + strconv.Itoa(i); k.namedLocked(hostNS, name) == nil {
			return name
		}
	}
}

// shownAs is the name that a link has in the tree.
func (l *link) shownAs() string { return cmp.Or(l.stale, l.Name) }

// parent is the tree path of what a link's net directory is in.
func (l *link) parent() string {
	switch {
	case l.dir != "":
		return l.dir
	case l.dev != nil:
		return l.dev.netParent
	}
	return "devices/virtual"
}

// appearLocked shows a link in the tree of the host, as far as it is there.
func (k *Kernel) appearLocked(l *link) {
	if l.ns != hostNS {
		return
	}
	dir := path.Join(l.parent(), "net", l.shownAs())
	k.tree.files(dir, map[string]string{
		"dev_port": strconv.Itoa(l.port), "dev_id": "0x0", "type": typeNumber(l.Type), "ifindex": strconv.Itoa(l.Index),
		"iflink": strconv.Itoa(cmp.Or(l.Peer, l.Index)),
	})
	if l.dev != nil && l.dev.pf == nil && l.dev.conf.PortName != "" {
		k.tree.file(dir+"/phys_port_name", l.dev.conf.PortName, nil)
	}
	if l.dev != nil && l.dev.pf == nil && (l.dev.conf.SwitchID || l.dev.conf.Switchdev) {
		k.tree.file(dir+"/phys_switch_id", "506b4b0300c0ffee", nil)
	}
	if l.represents != nil {
		k.tree.files(dir, map[string]string{"phys_port_name": l.portName, "phys_switch_id": "506b4b0300c0ffee"})
	}
	if l.Kind == "bridge" {
		k.tree.file(dir+"/bridge/vlan_filtering", "0", func(v string) error {
			k.tree.file(dir+"/bridge/vlan_filtering", v, nil)
			return nil
		})
	}
	k.tree.link(dir+"/subsystem", "class/net")
	if l.dev != nil {
		k.tree.link(dir+"/device", l.parent())
	}
	k.tree.link("class/net/"+l.shownAs(), dir)
	k.showLocked(l)
}

// hideLocked takes a link out of the tree. The net directory of hardware stays, empty.
func (k *Kernel) hideLocked(l *link) {
	k.changedLocked(l)
	if l.ns != hostNS {
		return
	}
	k.tree.remove("class/net/" + l.shownAs())
	k.tree.remove(path.Join(l.parent(), "net", l.shownAs()))
}

// showLocked brings the attributes of a link that change up to date.
func (k *Kernel) showLocked(l *link) {
	k.changedLocked(l)
	if l.ns != hostNS {
		return
	}
	dir := path.Join(l.parent(), "net", l.shownAs())
	state := "down"
	if l.carrier() {
		state = "up"
	}
	k.tree.files(dir, map[string]string{
		"address": string(l.MAC), "operstate": state, "name_assign_type": strconv.Itoa(l.assign),
		"carrier_up_count": strconv.Itoa(l.carriers),
	})
	k.tree.file(dir+"/mtu", strconv.Itoa(l.MTU), number(func(n int) error { return k.setMTULocked(l, n) }))
	k.tree.file(dir+"/tx_queue_len", strconv.Itoa(l.TxQLen), number(func(n int) error { return k.setTxQLenLocked(l, n) }))
	k.tree.file(dir+"/ifalias", l.Alias, func(v string) error { return k.setAliasLocked(l, v) })
	if l.wifi {
		k.tree.dir(dir + "/phy80211")
	}
	for _, o := range k.links {
		if o.over == l {
			k.tree.dir(dir + "/upper_" + o.Name)
		}
	}
}

// number is a store for attributes that take a decimal number.
func number(set func(int) error) func(string) error {
	return func(v string) error {
		n, err := strconv.Atoi(strings.TrimSpace(v))
		if err != nil {
			return syscall.EINVAL
		}
		return set(n)
	}
}

// typeNumber is the ARPHRD_* of a link type.
func typeNumber(t string) string {
	numbers := map[string]int{"ether": 1, "infiniband": 32, "loopback": 772}
	return fmt.Sprint(numbers[t])
}
