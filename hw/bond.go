package hw

import (
	"cmp"
	"errors"
	"fmt"
)

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
func (h *netdevs) CreateBond(s BondSpec) (Netdev, error) {
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
func (h *netdevs) newBond(id ID, s BondSpec) (Netdev, error) {
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
func (h *netdevs) addPort(port ID, bond Netdev) error {
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
func (h *netdevs) RemoveBond(id ID) error { return h.removeCreated(id) }
