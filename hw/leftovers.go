package hw

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
)

// A VF is cleaned by binding it again, see CleanVF. A whole device cannot be: that would harm the host, and its VFs. It is
// searched for what outlives its allocation: XDP programs, and children, which go on working in the container's namespace while the
// host or the next container has the device (macvlan_device_event, ipvlan_device_event and vlan_device_event ignore that a
// device moves; Linux 6.12). Queueing disciplines and what is attached to them go when a device moves.

// SnapshotUses adds to the snapshot of a netdev what it carries before a container has it, and what is thus not the container's.
func (h *netdevs) SnapshotUses(n Netdev, s *Snapshot) error {
	links, err := h.kernel.Links()
	if err != nil {
		return &Error{Dev: n.Name, Op: "list links", Err: err}
	}
	elsewhere, err := h.childrenElsewhere(n)
	s.XDP, s.Shared = n.XDP, childOf(n.Index, links) != "" || len(elsewhere) > 0
	return err
}

// CleanNetdev removes what a container has left on a netdev: XDP programs, and children in any namespace that is known. The
// error says what could not be removed, such as a child in a namespace that only the container knows; the device must not be
// used then. It matches ErrAway while the netdev is in a container; one that is gone counts as clean (nil).
func (h *netdevs) CleanNetdev(id ID, was Snapshot) error {
	n, err := h.Find(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := h.detachXDP(n, was.XDP); err != nil || was.Shared {
		return err
	}
	children, err := h.childrenElsewhere(n)
	if err != nil {
		return err
	}
	for _, c := range children {
		if err := h.kernel.RemoveElsewhere(c); err != nil && !errors.Is(err, ErrNotFound) {
			return &Error{Dev: n.Name, Op: fmt.Sprintf("remove %s %s, which its container has made on it", c.Kind, c.Name), Err: err}
		}
	}
	return h.proveChildless(n)
}

// childrenElsewhere lists the children of a netdev in other namespaces.
func (h *netdevs) childrenElsewhere(n Netdev) ([]ForeignLink, error) {
	children, err := h.kernel.ChildrenElsewhere(n.Index)
	return children, wrapped(n.Name, "look for links on it in other namespaces", err)
}

// detachXDP detaches the XDP programs of a netdev, but for those that were there before. The order does not matter: a program
// in one mode hides the others.
func (h *netdevs) detachXDP(n Netdev, was XDP) error {
	for range 3 {
		left := false
		for a, programs := range map[LinkAttr][2]uint32{
			LinkXDPSKB: {n.XDP.SKB, was.SKB}, LinkXDPDriver: {n.XDP.Driver, was.Driver}, LinkXDPHardware: {n.XDP.Hardware, was.Hardware},
		} {
			if programs[0] == 0 || programs[0] == programs[1] {
				continue
			}
			left = true
			err := h.kernel.SetLink(n.Index, a, Link{})
			if errors.Is(err, ErrBusy) { // net/core/dev.c, dev_xdp_attach, Linux 6.12
				err = fmt.Errorf("a process that its container has left holds it: %w", err)
			}
			if err != nil && !errors.Is(err, ErrUnsupported) {
				return &Error{Dev: n.Name, Op: fmt.Sprintf("detach xdp program %d", programs[0]), Err: err}
			}
		}
		if !left {
			return nil
		}
		var err error
		if n, err = h.Find(n.ID); err != nil {
			return err
		}
	}
	return &Error{Dev: n.Name, Op: "detach xdp programs", Err: fmt.Errorf("they come back: %w", ErrBusy)}
}

// proveChildless creates a macvlan in mode passthru on a netdev for a moment. The kernel refuses that if a macvlan or ipvlan is
// on it, in whatever namespace (macvlan_common_newlink: EINVAL, netdev_rx_handler_register: EBUSY; Linux 6.12).
func (h *netdevs) proveChildless(n Netdev) error {
	if n.Type != "ether" || strings.HasPrefix(n.Kind, Macvlan) || strings.HasPrefix(n.Kind, IPVlan) || n.Master != 0 {
		return nil // on a macvlan it would be created on its parent
	}
	probe := MadeID("probe " + string(n.ID))
	if err := h.removeCreated(probe); err != nil { // of an attempt that was interrupted
		return err
	}
	err := h.kernel.CreateLink(NewLink{Name: probe.createdName(), Kind: Macvlan, Mode: "passthru", Parent: n.Index})
	switch {
	case err == nil || errors.Is(err, fs.ErrExist):
		return h.removeCreated(probe)
	case errors.Is(err, ErrUnsupported): // the kernel has no macvlan
		return nil
	case errors.Is(err, ErrBusy), errors.Is(err, ErrInvalid):
		return &Error{Dev: n.Name, Err: fmt.Errorf("its container has left a macvlan or ipvlan on it, in a namespace that the host "+
			"does not know; it works until that container ends: %w", ErrBusy)}
	}
	return &Error{Dev: n.Name, Op: "look for links on it", Err: err}
}
