package hwtest

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// Links implements hw.Kernel.
func (k *Kernel) Links() ([]hw.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ls []hw.Link
	for _, l := range k.links {
		if l.ns == hostNS {
			ls = append(ls, l.shown())
		}
	}
	return ls, nil
}

// LinkAt implements hw.Kernel.
func (k *Kernel) LinkAt(index int) (hw.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return shownOrMissing(k.byIndexLocked(hostNS, index))
}

// LinkNamed implements hw.Kernel.
func (k *Kernel) LinkNamed(name string) (hw.Link, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.namedLocked(hostNS, name)
	if l != nil && l.Name != name { // it is an alternative name
		l = nil
	}
	return shownOrMissing(l)
}

// shownOrMissing is how a link is read.
func shownOrMissing(l *link) (hw.Link, error) {
	if l == nil {
		return hw.Link{}, hw.FromErrno(syscall.ENODEV)
	}
	return l.shown(), nil
}

// SetLink implements hw.Kernel.
func (k *Kernel) SetLink(index int, a hw.LinkAttr, want hw.Link) error {
	return k.changeLink(index, a.Op(want), func(l *link) error {
		if a == hw.LinkUp && l.Up && !want.Up {
			l.downs++
		}
		return k.setLocked(l, a, want)
	})
}

// AddAltName implements hw.Kernel.
func (k *Kernel) AddAltName(index int, name string) error {
	return k.changeLink(index, "add altname "+name, func(l *link) error { return k.addAltNameLocked(l, name) })
}

// RemoveAltName implements hw.Kernel.
func (k *Kernel) RemoveAltName(index int, name string) error {
	return k.changeLink(index, "remove altname "+name, func(l *link) error { return k.delAltNameLocked(l, name) })
}

// changeLink is a call that changes a link in the host.
func (k *Kernel) changeLink(index int, op string, change func(*link) error) error {
	return k.call(func() error {
		l := k.byIndexLocked(hostNS, index)
		if l == nil {
			return syscall.ENODEV
		}
		defer k.showLocked(l)
		return change(l)
	}, func() string { return fmt.Sprintf("set %s: %s", k.labelLocked(index), op) })
}

// labelLocked names a link for the log of calls.
func (k *Kernel) labelLocked(index int) string {
	if l := k.byIndexLocked(hostNS, index); l != nil {
		return l.Name
	}
	return fmt.Sprintf("link %d", index)
}

// setLocked sets one attribute of a link.
func (k *Kernel) setLocked(l *link, a hw.LinkAttr, want hw.Link) error {
	defer k.showLocked(l)
	switch a {
	case hw.LinkUp:
		if want.Up && k.macBusyLocked(l, l.MAC) {
			return syscall.EADDRINUSE
		}
		if want.Up && l.Kind == hw.VLANDevice && !l.below.Up {
			return syscall.ENETDOWN // vlan_dev_open
		}
		if want.Up && !l.Up && l.dev != nil && time.Now().Before(l.dev.opens) {
			return syscall.EBUSY
		}
		k.setUpLocked(l, want.Up)
		return nil
	case hw.LinkMaster:
		return k.setMasterLocked(l, want.Master)
	case hw.LinkName:
		return k.renameLocked(l, want.Name)
	case hw.LinkAlias:
		return k.setAliasLocked(l, want.Alias)
	case hw.LinkMAC:
		return k.setMACLocked(l, want.MAC)
	case hw.LinkMTU:
		return k.setMTULocked(l, want.MTU)
	case hw.LinkTxQLen:
		return k.setTxQLenLocked(l, want.TxQLen)
	case hw.LinkGSOMaxSize, hw.LinkGSOIPv4MaxSize, hw.LinkGROMaxSize, hw.LinkGROIPv4MaxSize:
		return l.setMaxSize(a, want)
	}
	a.Copy(&l.Link, &want)
	return nil
}

func (k *Kernel) addAltNameLocked(l *link, name string) error {
	if k.namedLocked(l.ns, name) != nil {
		return syscall.EEXIST
	}
	l.AltNames = append(l.AltNames, name)
	return nil
}

func (k *Kernel) delAltNameLocked(l *link, name string) error {
	i := slices.Index(l.AltNames, name)
	switch {
	case i >= 0:
		l.AltNames = slices.Delete(l.AltNames, i, i+1)
		return nil
	case k.namedLocked(l.ns, name) != nil: // a name proper, or an altname of another link
		return syscall.EINVAL
	}
	return syscall.ENOENT
}

// setUpLocked sets a link up or down. Going down costs it its routes, neighbours and IPv6 addresses.
func (k *Kernel) setUpLocked(l *link, up bool) {
	if l.Up == up {
		return
	}
	l.Up, l.trained = up, false
	l.ups++
	if up {
		k.requestIRQsLocked(l)
		k.trainLocked(l, l.trainingTime())
	} else {
		k.dropRoutesLocked(l)
		l.addrs = slices.DeleteFunc(l.addrs, func(a address) bool { return strings.Contains(a.CIDR, ":") })
		l.drop(hw.EntryNeighbour)
		for _, vf := range l.vfLinks() {
			vf.trained = false
			vf.ups++
		}
	}
	for _, o := range k.vlansLocked(l) { // they follow (vlan_device_event)
		k.setUpLocked(o, up)
	}
	if l.represents != nil && l.represents.net != nil {
		k.showLocked(l.represents.net)
	}
	k.showPeersLocked(l)
}

// trainLocked gives a link that has been set up its carrier after a while, and then the VFs that wait for their PF's.
func (k *Kernel) trainLocked(l *link, after time.Duration) {
	ups := l.ups
	k.afterLocked(after, func() {
		if !l.Up || l.ups != ups {
			return
		}
		l.trained = true
		if l.carrier() {
			l.carriers++
		}
		k.showLocked(l)
		k.hearLocked(l)
		k.showPeersLocked(l)
		for _, vf := range l.vfLinks() {
			if vf.Up && !vf.trained {
				k.trainLocked(vf, l.dev.conf.VFsRecover)
			}
		}
	})
}

// hearLocked is the host hearing what is said on the segment of a VF that is up in the host: the advertisements of a router,
// and ARP requests, which it answers for each of its addresses.
func (k *Kernel) hearLocked(l *link) {
	if l.ns != hostNS || l.dev == nil || l.dev.pf == nil || !l.carrier() || l.Type != "ether" {
		return
	}
	if l.MTU >= leastForIPv6 {
		k.heard = append(k.heard, l.Name+" hears a router")
	}
	if !l.NoARP {
		k.heard = append(k.heard, l.Name+" answers arp")
	}
}

// Heard is what the host has heard on the segments of VFs while they were up in the host, such as "ens1f0v0 hears a router".
func (k *Kernel) Heard() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.heard)
}

// vfLinks are the netdevs of a PF's VFs, wherever they are; none for other links.
func (l *link) vfLinks() []*link {
	var links []*link
	if l.dev == nil {
		return nil
	}
	for _, vf := range l.dev.vfs {
		if vf.net != nil {
			links = append(links, vf.net)
		}
	}
	return links
}

// showPeersLocked brings up to date the links whose carrier depends on l's.
func (k *Kernel) showPeersLocked(l *link) {
	for _, o := range k.links {
		if o.peer == l || o.dev != nil && o.dev.pf != nil && o.dev.pf.net == l {
			k.showLocked(o)
		}
		if o.below == l || o == l.master {
			k.showLocked(o)
			k.showPeersLocked(o)
		}
	}
}

// renameLocked renames a link. Any name or alternative name that is in use is in the way, its own too.
func (k *Kernel) renameLocked(l *link, name string) error {
	if name == l.Name {
		return nil
	}
	if err := validName(name); err != nil {
		return err
	}
	if k.namedLocked(l.ns, name) != nil {
		return syscall.EEXIST
	}
	if l.Up && k.NoLiveRename {
		return syscall.EBUSY
	}
	k.hideLocked(l)
	for i := range l.addrs { // labels follow the name, aliases such as eth0:1 too
		if rest, ok := strings.CutPrefix(l.addrs[i].Label, l.Name); ok {
			l.addrs[i].Label = name + rest
		}
	}
	l.Name, l.assign = name, nameRenamed
	k.appearLocked(l)
	return nil
}

// BeginRename is the first half of udev renaming a link in the host: rtnetlink has the new name, and the old one, which
// sysfs still has, is marked as given already (net/core/dev.c, dev_change_name; Linux 6.12). EndRename is the second.
func (k *Kernel) BeginRename(name, newName string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, name)
	l.Name, l.stale, l.assign = newName, name, nameRenamed
	k.showLocked(l)
}

// EndRename ends what BeginRename has begun.
func (k *Kernel) EndRename(newName string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.needLocked(hostNS, newName)
	k.hideLocked(l)
	l.stale = ""
	k.appearLocked(l)
}

// validName is the kernel's rule for names.
func validName(name string) error {
	switch {
	case len(name) > 15:
		return syscall.ERANGE
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/: \t\n"):
		return syscall.EINVAL
	}
	return nil
}

func (k *Kernel) setAliasLocked(l *link, alias string) error {
	if len(alias) > 255 {
		return syscall.ERANGE
	}
	l.Alias = alias
	k.showLocked(l)
	return nil
}

// setMACLocked changes the MAC of a netdev; for a VF's the PF has a say.
func (k *Kernel) setMACLocked(l *link, mac hw.MAC) error {
	hwaddr, err := net.ParseMAC(string(mac))
	old, _ := net.ParseMAC(string(l.MAC))
	if err != nil || len(hwaddr) != len(old) {
		return syscall.EINVAL
	}
	if l.Kind == hw.IPVlan {
		return syscall.EOPNOTSUPP
	}
	if hwaddr[0]&1 != 0 || !slices.ContainsFunc(hwaddr, func(b byte) bool { return b != 0 }) {
		return syscall.EADDRNOTAVAIL
	}
	if l.Up && k.NoLiveMAC && !l.virtual() {
		return syscall.EBUSY
	}
	mac = hw.MAC(hwaddr.String())
	const gid = 4 // octets of the flags and the queue pair, which are not for choosing (ipoib_main.c, ipoib_check_lladdr)
	if l.Type == "infiniband" && !slices.Equal(hwaddr[:gid], old[:gid]) {
		return syscall.EINVAL
	}
	if d := l.dev; d != nil && d.pf != nil && !d.dead && l.Type == "ether" {
		if d.adminMAC && !d.state.Trust && !d.conf.VFChoosesMAC && d.state.MAC != mac {
			return syscall.EADDRNOTAVAIL
		}
		d.reportMAC(mac)
	}
	if mac != l.MAC && k.macBusyLocked(l, mac) {
		return syscall.EADDRINUSE
	}
	return k.passMACLocked(l, mac)
}

func (k *Kernel) setMTULocked(l *link, mtu int) error {
	if mtu < 68 || mtu > l.maxMTU() || l.Kind == hw.Macvlan && mtu > l.below.MTU {
		return syscall.EINVAL
	}
	if l.Kind == hw.VLANDevice && mtu > l.below.MTU {
		return syscall.ERANGE // vlan_dev_change_mtu
	}
	l.MTU = mtu
	if mtu < leastForIPv6 {
		l.addrs = slices.DeleteFunc(l.addrs, func(a address) bool { return strings.Contains(a.CIDR, ":") })
		k.routes = slices.DeleteFunc(k.routes, func(r hw.Route) bool {
			return l.ns == hostNS && r.Index == l.Index && strings.Contains(r.Dst, ":")
		})
	}
	k.showLocked(l)
	k.passMTULocked(l)
	return nil
}

// leastForIPv6 is the MTU below which a link has no IPv6 (IPV6_MIN_MTU): it loses its IPv6 addresses and hears no router.
const leastForIPv6 = 1280

// maxMTU is the highest MTU that a link's driver accepts.
func (l *link) maxMTU() int {
	if l.dev != nil {
		return 9216 // igb, igbvf
	}
	return 65535 // veth
}

// segments are those of a new link.
var segments = hw.Segments{GSOMaxSize: legacyMaxSize, GSOMaxSegs: 65535, GROMaxSize: legacyMaxSize, GSOIPv4MaxSize: legacyMaxSize, GROIPv4MaxSize: legacyMaxSize}

// legacyMaxSize is the largest size that older drivers and programs know (include/linux/netdevice.h, GSO_LEGACY_MAX_SIZE).
const legacyMaxSize = 65536

// maxGSO is the largest packet that a link's driver cuts into frames.
func (l *link) maxGSO() int {
	if l.dev != nil {
		return legacyMaxSize // igb, igbvf
	}
	return 8 * 65535 // veth
}

// setMaxSize sets one of the sizes of a link's Segments. A size that is not above legacyMaxSize is that of IPv4, too (net/core/dev.h,
// netif_set_gso_max_size, Linux 6.12). None is above what the driver can send (IFLA_TSO_MAX_SIZE), or GRO_MAX_SIZE.
func (l *link) setMaxSize(a hw.LinkAttr, want hw.Link) error {
	s, sent := &l.Segments, l.maxGSO()
	set := func(size *int, n, most int, ipv4 *int) error {
		if n > most {
			return syscall.EINVAL
		}
		if *size = n; n <= legacyMaxSize {
			*ipv4 = n
		}
		return nil
	}
	switch a {
	case hw.LinkGSOMaxSize:
		return set(&s.GSOMaxSize, want.Segments.GSOMaxSize, sent, &s.GSOIPv4MaxSize)
	case hw.LinkGSOIPv4MaxSize:
		return set(&s.GSOIPv4MaxSize, want.Segments.GSOIPv4MaxSize, sent, &s.GSOIPv4MaxSize)
	case hw.LinkGROMaxSize:
		return set(&s.GROMaxSize, want.Segments.GROMaxSize, 8*65535, &s.GROIPv4MaxSize)
	default:
		return set(&s.GROIPv4MaxSize, want.Segments.GROIPv4MaxSize, 8*65535, &s.GROIPv4MaxSize)
	}
}

func (k *Kernel) setTxQLenLocked(l *link, n int) error {
	if n < 0 {
		return syscall.ERANGE
	}
	l.TxQLen = n
	k.showLocked(l)
	return nil
}
