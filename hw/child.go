package hw

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// madePrefix begins the IDs of links that the plugin creates.
const madePrefix = "made-"

// MadeID returns the identity of a link that the plugin creates; the caller chooses a unique key.
func MadeID(key string) ID { return ID(madePrefix + key) }

// isMade returns true if the device is a link that the plugin creates.
func (id ID) isMade() bool { return strings.HasPrefix(string(id), madePrefix) }

// createdName returns the name of such a link in the host, by which it is found if a crash came before it had its
// alias.
func (id ID) createdName() string {
	return uniqueName(strings.TrimPrefix(string(id), madePrefix))
}

// uniqueName returns a name for a link that no other link has, and that is the same for the same text.
func uniqueName(text string) string {
	sum := sha256.Sum256([]byte(text))
	return fmt.Sprintf("pt%x", sum[:6])
}

// modules are the kernel modules that provide each kind of link.
var modules = map[string]string{Macvlan: "macvlan", IPVlan: "ipvlan", Bond: "bonding", IPoIB: "ib_ipoib", VLANDevice: "8021q"}

// ChildSpec describes a child of a device. It is plain data, which the caller keeps in its ledger.
type ChildSpec struct {
	Key    string // see MadeID
	Parent ID     // stays in the host
	Kind   string // Macvlan, IPVlan or IPoIB
	Mode   string // one of Modes(Kind)
	MAC    MAC    // "" for one derived from the key; in mode passthru "" is the parent's, and another is set on the parent
	PKey   int    // of IPoIB; 0 for the parent's
	Flag   string `json:",omitempty"` // of IPVlan: one of IPVlanFlags; "" for that which the parent's other children have
}

// CreateChild creates a child of a device, which is brought up if it is down, and stays up: without it a child has no
// carrier. It may be repeated, also after a crash: an existing child with that key is completed.
func (h *createdLinks) CreateChild(ctx context.Context, s ChildSpec) (Netdev, error) {
	id := MadeID(s.Key)
	n, err := h.newChild(ctx, id, s)
	if errors.Is(err, fs.ErrExist) {
		if there, findErr := h.Find(id); findErr == nil {
			n, err = there, nil
		}
	}
	if err != nil {
		return Netdev{}, err
	}
	if n, err = h.prepareFound(n, s.MAC); err == nil && s.MAC != "" && s.Mode != "passthru" {
		err = h.tryMAC(ctx, n)
	}
	return n, err
}

// tryMAC sets a macvlan up for a moment: only then does the kernel refuse a MAC that another link on the device has,
// which may be disappearing.
func (h *createdLinks) tryMAC(ctx context.Context, n Netdev) error {
	var last error
	err := wait(ctx, namespaceBound, func() (bool, error) {
		last = h.kernel.SetLink(n.Index, LinkUp, Link{Up: true})
		return !errors.Is(last, syscall.EADDRINUSE), nil
	})
	switch {
	case errors.Is(last, syscall.EADDRINUSE):
		return &Error{Dev: n.Name, Op: "set mac " + string(n.MAC), Err: fmt.Errorf("another on its device has it: %w", last)}
	case last != nil:
		return &Error{Dev: n.Name, Op: "set up", Err: last}
	case err != nil:
		return err
	}
	return h.setLink(n, "set down", LinkUp, Link{})
}

// newChild creates a child; the error matches fs.ErrExist if it exists. In mode passthru the kernel ignores the MAC of
// the request.
func (h *createdLinks) newChild(ctx context.Context, id ID, s ChildSpec) (Netdev, error) {
	parent, err := h.Find(s.Parent)
	if err != nil {
		return Netdev{}, err
	}
	if !parent.Up {
		if err := h.open(ctx, parent); err != nil {
			return Netdev{}, err
		}
	}
	l := NewLink{Name: id.createdName(), Kind: s.Kind, Mode: s.Mode, Parent: parent.Index, MAC: s.mac(), PKey: s.PKey, Flag: s.Flag}
	if err := h.createWhenFree(ctx, l); err != nil {
		op := fmt.Sprintf("make a child (%s, %s)", s.Kind, s.Mode)
		return Netdev{}, &Error{Dev: parent.Name, Op: op, Err: explainCreate(s, err)}
	}
	return h.findCreated(id)
}

// findCreated returns a link that was created just now, and has no alias yet.
func (h *createdLinks) findCreated(id ID) (Netdev, error) {
	l, err := h.kernel.LinkNamed(id.createdName())
	if err != nil {
		return Netdev{}, &Error{Dev: id.createdName(), Op: "read link", Err: err}
	}
	return Netdev{ID: id, Link: l}, nil
}

// createWhenFree creates a child, and waits for others that conflict with it and may be disappearing: the kernel
// removes the links of a namespace some time after its last process (net/core/net_namespace.c, cleanup_net, Linux
// 6.12).
func (h *createdLinks) createWhenFree(ctx context.Context, l NewLink) error {
	var last error
	err := wait(ctx, namespaceBound, func() (bool, error) {
		last = h.kernel.CreateLink(l)
		blocked := l.Kind != IPoIB && (errors.Is(last, ErrBusy) || errors.Is(last, ErrInvalid))
		if blocked {
			return false, nil
		}
		return true, last
	})
	if last != nil {
		return last
	}
	return err
}

// mac returns the MAC that a child is created with. A random one of the kernel would not last: udev replaces it a
// moment later (systemd.link, MACAddressPolicy=persistent, which is its default).
func (s ChildSpec) mac() MAC {
	if s.MAC != "" || s.Kind != Macvlan || s.Mode == "passthru" {
		return s.MAC
	}
	return derivedMAC("child mac\x00" + s.Key)
}

// explainCreate adds to an error of creating a child its likely cause.
func explainCreate(s ChildSpec, err error) error {
	switch {
	case errors.Is(err, ErrUnsupported):
		return fmt.Errorf("%w; load its module: modprobe %s", err, modules[s.Kind])
	case errors.Is(err, ErrBusy):
		return fmt.Errorf("%w; it is a port of a bond or bridge, or has children of another kind", err)
	case errors.Is(err, ErrInvalid) && s.Kind == Macvlan:
		return fmt.Errorf("%w; a macvlan in mode passthru is the only one on its device, and there is another", err)
	}
	return err
}

// RemoveChild deletes a child. One that is not in the host is gone, or is removed with its namespace (nil); but IPoIB
// returns to the host when its namespace ends (drivers/infiniband/ulp/ipoib/ipoib_netlink.c, netns_refund, Linux 6.12):
// the error matches ErrAway until then.
func (h *createdLinks) RemoveChild(id ID, kind string) error {
	if kind == IPoIB {
		if _, err := h.Find(id); errors.Is(err, ErrAway) {
			return err
		}
	}
	return h.removeCreated(id)
}

// removeCreated deletes a link that the plugin created, if it is in the host.
func (h *createdLinks) removeCreated(id ID) error {
	n, err := h.Find(id)
	if errors.Is(err, ErrAway) {
		return nil
	}
	if err == nil {
		err = h.kernel.RemoveLink(n.Index)
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return &Error{Dev: n.Name, Op: "remove", Err: err}
	}
	return nil
}

// BondSpec describes a bond. It is plain data, which the caller keeps in its ledger.
type BondSpec struct {
	Key   string // see MadeID
	Mode  string // one of Modes(Bond)
	Ports []ID   // PCI functions with one netdev each, which are ports of nothing else; the first is the primary one
	MAC   MAC    // "" for the first port's
	MTU   int    // 0 for the first port's
}

// CreateBond creates a bond that is up, over ports that are set down for it; the caller has recorded their state. It
// may be repeated, also after a crash: an existing bond with that key is completed. A bond cannot leave its namespace;
// a macvlan in mode passthru on it can.
func (h *createdLinks) CreateBond(s BondSpec) (Netdev, error) {
	id := MadeID(s.Key)
	n, err := h.Find(id)
	if errors.Is(err, ErrAway) {
		n, err = h.newBond(id, s)
	}
	if err == nil {
		n, err = h.prepareFound(n, "")
	}
	for _, port := range s.Ports {
		if err != nil {
			return Netdev{}, err
		}
		err = h.addPort(port, n)
	}
	if err == nil && !n.Up {
		err = h.setUp(n, true)
	}
	if err != nil {
		return Netdev{}, err
	}
	return h.Find(id)
}

// newBond creates a bond without ports. Its first port is its primary one: bonds whose ports are VFs of the same PFs
// must all use the same PF, because a PF sends a frame for the MAC of one of its VFs to that VF and not to the wire,
// even if that VF is the backup port of its bond and drops it (seen with igb, Linux 6.12).
func (h *createdLinks) newBond(id ID, s BondSpec) (Netdev, error) {
	l := NewLink{Name: id.createdName(), Kind: Bond, Mode: s.Mode, MAC: s.MAC, MTU: s.MTU}
	if len(s.Ports) > 0 {
		first, err := h.Find(s.Ports[0])
		if err != nil {
			return Netdev{}, err
		}
		l.First = first.Index
		l.MTU = cmp.Or(l.MTU, first.MTU)
	}
	err := h.kernel.CreateLink(l)
	if errors.Is(err, ErrUnsupported) {
		err = fmt.Errorf("%w; load its module: modprobe %s", err, modules[Bond])
	}
	if err != nil {
		return Netdev{}, &Error{Op: fmt.Sprintf("make a bond (%s)", s.Mode), Err: err}
	}
	return h.findCreated(id)
}

// addPort makes a device a port of a bond. The bond accepts only devices that are down, and brings them up itself.
func (h *createdLinks) addPort(port ID, bond Netdev) error {
	n, err := h.Find(port)
	if err != nil || n.Master == bond.Index {
		return err
	}
	if n.Master != 0 {
		return &Error{Dev: n.Name, Op: "make it a port of " + bond.Name, Err: fmt.Errorf("it is another's: %w", ErrBusy)}
	}
	if n.Up {
		if err := h.setUp(n, false); err != nil {
			return err
		}
	}
	err = h.setLink(n, "make it a port of "+bond.Name, LinkMaster, Link{Master: bond.Index})
	if errors.Is(err, ErrInvalid) {
		return fmt.Errorf("%w; it has to take the bond's mac %s", err, bond.MAC)
	}
	return err
}

// RemoveBond deletes a bond, and with it its child, in any namespace. Its ports are down then, with their own MAC and
// MTU. It succeeds if the bond is gone.
func (h *createdLinks) RemoveBond(id ID) error { return h.removeCreated(id) }

// vlanPrefix begins the keys of VLAN devices.
const vlanPrefix = "vlan-"

// VLANDeviceID returns the identity of the VLAN device that the plugin creates on a parent. A parent without a PCI address counts as
// the same, after a reboot as well, if it has the same name.
func VLANDeviceID(parent Netdev, vlan int) ID {
	key := string(parent.ID)
	if !parent.ID.IsPCI() {
		key = parent.Name
	}
	return MadeID(fmt.Sprintf("%s%d-%s", vlanPrefix, vlan, key))
}

// vlanOn returns the parent, a PCI function or a name, and the VLAN of an ID of [VLANDeviceID]; 0 for any other ID.
func (id ID) vlanOn() (parent string, vlan int) {
	rest, ok := strings.CutPrefix(string(id), madePrefix+vlanPrefix)
	number, parent, found := strings.Cut(rest, "-")
	if vlan, err := strconv.Atoi(number); ok && found && err == nil {
		return parent, vlan
	}
	return "", 0
}

// findVLANDirect finds a VLAN device under the name that it was created with.
func (h *finder) findVLANDirect(id ID, parent string, vlan int) (n Netdev, ok bool) {
	names := []string{parent}
	if pci := ID(parent).PCI(); pci != "" {
		names, _ = h.netdevsOf(pci) // otherwise it is looked for among all links
	}
	for _, name := range names {
		l, err := h.kernel.LinkNamed(VLANName(name, vlan))
		if err == nil && l.Alias == id.aliasMark() && id.mayBe(l) {
			return Netdev{ID: id, Link: l}, true
		}
	}
	return Netdev{}, false
}

// VLANName returns the name of a VLAN device on the parent of that name, such as eth0.100; or, if the kernel does not take one that long,
// another that no other device has.
func VLANName(parent string, vlan int) string {
	const longest = 15
	name := fmt.Sprintf("%s.%d", parent, vlan)
	if len(name) > longest {
		return uniqueName(name)
	}
	return name
}

// VLANOn returns the VLAN device on a parent, also one that the plugin has not created. Its ifindex is 0 if there is none in the host.
func (h *createdLinks) VLANOn(parent Netdev, vlan int) (Netdev, error) {
	return h.look(VLANName(parent.Name, vlan), func(links []Link) (Netdev, error) {
		for _, l := range links {
			if l.isChildOf(parent.Index) && l.Kind == VLANDevice && l.VLAN == vlan {
				return h.describe(l)
			}
		}
		return Netdev{}, nil
	})
}

// VLANParent returns the device that a VLAN device is on. The error matches ErrNotFound if that is not in the host.
func (h *createdLinks) VLANParent(n Netdev) (Netdev, error) {
	return h.look(n.Name, func(links []Link) (Netdev, error) {
		for _, l := range links {
			if n.isChildOf(l.Index) {
				return h.describe(l)
			}
		}
		return Netdev{}, &Error{Dev: n.Name, Op: "find its parent", Err: ErrNotFound}
	})
}

// CreateVLAN creates the VLAN device of [VLANDeviceID] on a parent and sets it up; the parent is brought up if it is down. The device has
// a name of its own until it has the alias that says who has created it. CreateVLAN may be repeated, also after a crash: it completes
// what is there. The error matches fs.ErrExist if another device has the name, or, in another namespace, the VLAN.
func (h *createdLinks) CreateVLAN(ctx context.Context, parent Netdev, vlan int) (Netdev, error) {
	id, name := VLANDeviceID(parent, vlan), VLANName(parent.Name, vlan)
	if !parent.Up {
		if err := h.open(ctx, parent); err != nil {
			return Netdev{}, err
		}
	}
	n, err := h.Find(id)
	if errors.Is(err, ErrAway) {
		err = h.kernel.CreateLink(NewLink{Name: id.createdName(), Kind: VLANDevice, Parent: parent.Index, VLAN: vlan})
		if errors.Is(err, ErrUnsupported) {
			err = fmt.Errorf("%w; load its module: modprobe %s", err, modules[VLANDevice])
		}
		if err != nil {
			return Netdev{}, &Error{Dev: parent.Name, Op: fmt.Sprintf("create a device for vlan %d", vlan), Err: err}
		}
		n, err = h.findCreated(id)
	}
	if err == nil {
		n, err = h.prepareFound(n, "")
	}
	if err == nil && n.Name != name {
		err = h.setLink(n, "rename to "+name, LinkName, Link{Name: name})
	}
	if err == nil && !n.Up {
		n.Name = name
		err = h.setUp(n, true)
	}
	if err != nil {
		return Netdev{}, err
	}
	return h.Find(id)
}

// FollowMTU gives a device that the plugin has created the MTU of its parent.
func (h *createdLinks) FollowMTU(n, parent Netdev) error {
	if n.MTU == parent.MTU {
		return nil
	}
	return h.setLink(n, fmt.Sprintf("set mtu %d, as %s has", parent.MTU, parent.Name), LinkMTU, Link{MTU: parent.MTU})
}

// RemoveVLAN deletes a VLAN device that the plugin has created. It succeeds if the device is gone.
func (h *createdLinks) RemoveVLAN(id ID) error { return h.removeCreated(id) }

// hostChildPrefix begins the keys of children of the host.
const hostChildPrefix = "host-"

// HostChildKey returns the key of a child of the host; the caller chooses a unique text.
func HostChildKey(text string) string { return hostChildPrefix + text }

// keptName returns the name that a child of the host gets once it has its alias; that of others does not change.
func (id ID) keptName() string {
	const most = 12
	text, ok := strings.CutPrefix(string(id), madePrefix+hostChildPrefix)
	if !ok {
		return id.createdName()
	}
	return "pt-" + text[:min(most, len(text))]
}

// HostChildSpec describes a child of a device that the host keeps for itself: frames do not pass between a device and its children, only
// among the children. It is plain data, which the caller keeps in its ledger.
type HostChildSpec struct {
	ChildSpec              // its key is from HostChildKey
	Addrs     []netip.Addr // of the host; without a subnet, so that the host's own routes stay as they are
	MTU       int          // 0 for the parent's
}

// CreateHostChild creates a child for the host, with its addresses, and sets it up. It answers ARP for its own addresses only, so that the
// other addresses of the host stay where they are, forwards no IPv4 packets, and the host learns nothing from router advertisements on it.
// CreateHostChild may be repeated, also after a crash: it completes what is there.
func (h *createdLinks) CreateHostChild(ctx context.Context, s HostChildSpec) (Netdev, error) {
	n, err := h.Find(MadeID(s.Key))
	if errors.Is(err, ErrAway) {
		n, err = h.CreateChild(ctx, s.ChildSpec)
	} else if err == nil {
		n, err = h.prepareFound(n, "")
	}
	if name := MadeID(s.Key).keptName(); err == nil && n.Name != name {
		err = h.setLink(n, "rename to "+name, LinkName, Link{Name: name})
		n.Name = name
	}
	if err == nil && !n.Up && s.MTU != 0 && n.MTU != s.MTU {
		err = h.setLink(n, fmt.Sprintf("set mtu %d", s.MTU), LinkMTU, Link{MTU: s.MTU})
	}
	if err == nil && !n.Up {
		err = h.keepApart(n, s)
	}
	for _, a := range s.Addrs {
		if err == nil {
			cidr := netip.PrefixFrom(a, a.BitLen()).String()
			err = wrapped(n.Name, "add address "+cidr, h.kernel.AddAddr(n.Index, Addr{CIDR: cidr}))
		}
	}
	if err == nil && !n.Up {
		err = h.setUp(n, true)
	}
	if err != nil {
		return n, err
	}
	return h.Find(n.ID)
}

// keepApart sets, before a child of the host is up, what keeps the rest of the host's network as it is.
func (h *createdLinks) keepApart(n Netdev, s HostChildSpec) error {
	for _, set := range [][2]string{{"arp_ignore", "1"}, {"arp_announce", "2"}, {"forwarding", "0"}} {
		if err := h.kernel.SetSysctl(n.Index, "net.ipv4.conf.*."+set[0], set[1]); err != nil {
			return &Error{Dev: n.Name, Op: fmt.Sprintf("set net.ipv4.conf.%s.%s to %s", n.Name, set[0], set[1]), Err: err}
		}
	}
	const acceptRA = "net.ipv6.conf.*.accept_ra"
	values, err := h.kernel.Sysctls(n.Index)
	if err != nil {
		return &Error{Dev: n.Name, Op: "list sysctls", Err: err}
	}
	switch values[acceptRA] {
	case "", "0": // no IPv6, or none accepted
		return nil
	case "1":
		if values["net.ipv6.conf.*.forwarding"] == "1" { // a router accepts none (net/ipv6/ndisc.c, ipv6_accept_ra, Linux 6.12)
			return nil
		}
	}
	err = h.kernel.SetSysctl(n.Index, acceptRA, "0")
	v6 := slices.ContainsFunc(s.Addrs, netip.Addr.Is6)
	switch {
	case err == nil:
		return nil
	case v6 || s.Kind != Macvlan: // an ipvlan drops frames that are longer than its MTU
		return &Error{Dev: n.Name, Op: fmt.Sprintf("set net.ipv6.conf.%s.accept_ra to 0, so that no container configures the host", n.Name),
			Err: fmt.Errorf("%w; say on the host: sysctl -w net.ipv6.conf.default.accept_ra=0", err)}
	case n.MTU <= quietMTU:
		return nil
	}
	return h.setLink(n, fmt.Sprintf("set mtu %d, with which it has no IPv6", quietMTU), LinkMTU, Link{MTU: quietMTU})
}
