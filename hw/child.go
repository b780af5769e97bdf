package hw

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
)

// madePrefix begins the IDs of links that are made to be lent.
const madePrefix = "made-"

// MadeID is the identity of a link that is made to be lent; the caller chooses a key that no other has.
func MadeID(key string) ID { return ID(madePrefix + key) }

// IsMade tells whether the device is a link that is made to be lent.
func (id ID) IsMade() bool { return strings.HasPrefix(string(id), madePrefix) }

// createdName is what such a link is called in the host. It is found by it if a crash came before it had its mark.
func (id ID) createdName() string {
	sum := sha256.Sum256([]byte(strings.TrimPrefix(string(id), madePrefix)))
	return fmt.Sprintf("pt%x", sum[:6])
}

// modules are the kernel modules that make each kind of link.
var modules = map[string]string{Macvlan: "macvlan", IPVlan: "ipvlan", Bond: "bonding", IPoIB: "ib_ipoib"}

// ChildSpec says what child of a device is to be made. It is plain data, kept by the caller's ledger.
type ChildSpec struct {
	Key    string // see MadeID
	Parent ID     // stays in the host
	Kind   string // Macvlan, IPVlan or IPoIB
	Mode   string // one of Modes(Kind)
	MAC    MAC    // "" for one made from the key; in mode passthru for the parent's, which is given it otherwise
	PKey   int    // of IPoIB; 0 for the parent's
}

// CreateChild makes a child of a device, which is brought up if it is down, and stays so: a child has no carrier without
// it. It may be called again, also after a crash: a child of that key that is there already is completed.
func (h *netdevs) CreateChild(ctx context.Context, s ChildSpec) (Netdev, error) {
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

// tryMAC sets a macvlan up for a moment: that is when the kernel refuses a MAC that another on the device has, which may
// be on its way out.
func (h *netdevs) tryMAC(ctx context.Context, n Netdev) error {
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

// newChild makes a child; the error matches fs.ErrExist if it is there. In mode passthru the kernel ignores a MAC that is given now.
func (h *netdevs) newChild(ctx context.Context, id ID, s ChildSpec) (Netdev, error) {
	parent, err := h.Find(s.Parent)
	if err != nil {
		return Netdev{}, err
	}
	if !parent.Up {
		if err := h.setUp(parent, true); err != nil {
			return Netdev{}, err
		}
	}
	l := NewLink{Name: id.createdName(), Kind: s.Kind, Mode: s.Mode, Parent: parent.Index, MAC: s.mac(), PKey: s.PKey}
	if err := h.createWhenFree(ctx, l); err != nil {
		op := fmt.Sprintf("make a child (%s, %s)", s.Kind, s.Mode)
		return Netdev{}, &Error{Dev: parent.Name, Op: op, Err: explainCreate(s, err)}
	}
	return h.findCreated(id)
}

// fresh returns a link that was made just now, and has no mark yet.
func (h *netdevs) findCreated(id ID) (Netdev, error) {
	l, err := h.kernel.LinkNamed(id.createdName())
	if err != nil {
		return Netdev{}, &Error{Dev: id.createdName(), Op: "read link", Err: err}
	}
	return Netdev{ID: id, Link: l}, nil
}

// createWhenFree makes a child, and waits for others that leave no room for it, if they are on their way out: the kernel ends
// the links of a namespace some time after its last process (net/core/net_namespace.c, cleanup_net, Linux 6.12).
func (h *netdevs) createWhenFree(ctx context.Context, l NewLink) error {
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

// mac is the MAC that a child is made with. One that the kernel has drawn would not last: udev takes it for nobody's, and
// gives the link another a moment later (systemd.link, MACAddressPolicy=persistent, which is its default).
func (s ChildSpec) mac() MAC {
	if s.MAC != "" || s.Kind != Macvlan || s.Mode == "passthru" {
		return s.MAC
	}
	return derivedMAC("child mac\x00" + s.Key)
}

// explainCreate says in people's words why the kernel did not make a child.
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

// RemoveChild deletes a child. One that is not in the host is gone, or ends with the namespace that it is in (nil); but IPoIB
// comes home when its namespace ends (drivers/infiniband/ulp/ipoib/ipoib_netlink.c, netns_refund, Linux 6.12): the error
// matches ErrAway until then.
func (h *netdevs) RemoveChild(id ID, kind string) error {
	if kind == IPoIB {
		if _, err := h.Find(id); errors.Is(err, ErrAway) {
			return err
		}
	}
	return h.removeCreated(id)
}

// removeCreated deletes a link that was made to be lent, if it is in the host.
func (h *netdevs) removeCreated(id ID) error {
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

// RestoreParent puts back what was changed on a device for its child, which is gone: MTU, up-state, alias, and its MAC
// if the kernel has not (macvlan_port_destroy does, Linux 6.12). Addresses and routes have not been touched, and are not.
// A device that is gone is as good as put back (nil).
func (h *netdevs) RestoreParent(id ID, was Snapshot) error {
	n, err := h.Find(id)
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrAway) {
		return nil
	}
	if err != nil {
		return err
	}
	was.Link.Name = n.Name
	policy := func(a LinkAttr) Policy {
		if a == LinkMAC { // a bond with fail_over_mac=active takes its ports'
			return BestEffort
		}
		return Required
	}
	if err := h.applyLink(id, *was.Link, policy); err != nil {
		return err
	}
	if n.Up && !was.Link.Up {
		if err := h.setUp(n, false); err != nil {
			return err
		}
	}
	return h.setAlias(n, was.Link.Alias)
}
