package hw

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// A VF is cleaned by binding it again, see CleanVF. A whole device cannot be: that would harm the host, and its VFs. It is
// searched for what outlives its allocation: XDP and tcx programs, what ethtool has changed, and children, which go on working in
// the container's namespace while the host or the next container has the device (macvlan_device_event, ipvlan_device_event and
// vlan_device_event ignore that a device moves; Linux 6.12). Queueing disciplines and what is attached to them go when a device
// moves.

// A Control is a setting of a netdev that decides which frames it receives, sends or changes, and that stays when the netdev
// moves to another namespace. Kind and Name identify it.
type Control struct {
	Kind ControlKind
	Name string `json:",omitempty"` // of a private flag; location of a flow rule; ID and direction of a program
	Body []byte `json:",omitempty"` // its value, in the kernel's form
}

// ControlKind is a kind of control.
type ControlKind string

// The kinds of controls, in the order of restoring.
const (
	ControlPrivateFlag ControlKind = "private flag" // ethtool --set-priv-flags
	ControlRSS         ControlKind = "rss"          // hash key and indirection table: ethtool -X
	ControlFlowRule    ControlKind = "flow rule"    // ntuple filter: ethtool -N
	ControlTCX         ControlKind = "tcx program"  // BPF_TCX_INGRESS and BPF_TCX_EGRESS
)

// String returns "private flag NAME", or "rss".
func (c Control) String() string { return strings.TrimSpace(string(c.Kind) + " " + c.Name) }

// PrivateFlag returns the control that switches a private flag on or off.
func PrivateFlag(name string, on bool) Control {
	c := Control{Kind: ControlPrivateFlag, Name: name, Body: []byte{0}}
	if on {
		c.Body[0] = 1
	}
	return c
}

// On returns true for a private flag that is on.
func (c Control) On() bool { return bytes.Equal(c.Body, []byte{1}) }

// is returns true for the control of the same kind and name.
func (c Control) is(o Control) bool { return c.Kind == o.Kind && c.Name == o.Name }

// SnapshotUses adds to the snapshot of a netdev what it carries before a container has it, and what is thus not the container's,
// and how it is tuned.
func (h *netdevs) SnapshotUses(n Netdev, s *Snapshot) error {
	links, err := h.kernel.Links()
	if err != nil {
		return &Error{Dev: n.Name, Op: "list links", Err: err}
	}
	elsewhere, err := h.childrenElsewhere(n)
	s.XDP, s.Shared = n.XDP, childOf(n.Index, links) != "" || len(elsewhere) > 0
	if err != nil {
		return err
	}
	now, err := h.kernel.Tuning(n.Index)
	if err != nil && !errors.Is(err, ErrUnsupported) {
		return &Error{Dev: n.Name, Op: "read its queues, rings and features", Err: err}
	}
	if err == nil {
		s.Whole = now.snapshot()
	}
	if s.Controls, err = h.kernel.Controls(n.Index); err != nil {
		return &Error{Dev: n.Name, Op: "read what ethtool and bpf have set", Err: err}
	}
	s.Controls = append([]Control{}, s.Controls...) // not nil
	return nil
}

// snapshot returns all that can be changed of how a link is tuned.
func (t *Tuning) snapshot() *TuningSnapshot {
	s := &TuningSnapshot{Features: Features{}}
	if t.MaxQueues != (Queues{}) {
		s.Queues = &t.Queues
	}
	if t.MaxRings != (Rings{}) {
		s.Rings = &t.Rings
	}
	for name, f := range t.Features {
		if !f.Fixed {
			s.Features[name] = f.Wanted
		}
	}
	return s
}

// CleanNetdev removes what a container has left on a netdev: XDP and tcx programs, flow rules, and children in any namespace that
// is known. It restores RSS, private flags, queues, rings and offloads, whether the container had an option for them or not. The
// error says what could not be removed, such as a child in a namespace that only the container knows; the device must not be
// used then. It matches ErrAway while the netdev is in a container; one that is gone counts as clean (nil). It is an
// [*UnrestoredError] if nothing of the container is left, but the kernel refuses something that the host had.
func (h *netdevs) CleanNetdev(id ID, was Snapshot) error {
	n, err := h.Find(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if was.Link != nil {
		n.Name = was.Link.Name // for messages: it still has the one under which it was handed over
	}
	refused, err := h.restoreWhole(n, was)
	if err = errors.Join(h.detachXDP(n, was.XDP), err); err != nil {
		return err
	}
	if err := h.removeChildren(n, was); err != nil {
		return err
	}
	if len(refused) > 0 {
		return &UnrestoredError{refused}
	}
	return nil
}

// removeChildren removes the children that a container has left on a netdev. One that had children before is not searched.
func (h *netdevs) removeChildren(n Netdev, was Snapshot) error {
	if was.Shared {
		return nil
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
	childless, err := h.childless(n)
	if err == nil && !childless {
		err = &Error{Dev: n.Name, Err: fmt.Errorf("its container has left a macvlan or ipvlan on it, in a namespace that the host "+
			"does not know; it works until that container ends: %w", ErrBusy)}
	}
	return err
}

// Childless returns true if no macvlan or ipvlan is on a netdev, in whatever namespace. For others it returns true. The frames that
// the netdev receives meanwhile, for some milliseconds, are lost. A process that is killed in it leaves a link, see ForgetProbe.
func (h *netdevs) Childless(id ID) (bool, error) {
	n, err := h.Find(id)
	if err != nil {
		return false, err
	}
	return h.childless(n)
}

// ForgetProbe removes the link that Childless leaves if it is interrupted.
func (h *createdLinks) ForgetProbe(id ID) error { return h.removeCreated(probeOf(id)) }

// probeOf returns the ID of the link that is created on a netdev for a moment.
func probeOf(id ID) ID { return MadeID("probe " + string(id)) }

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
		now, err := h.Find(n.ID)
		if err != nil {
			return err
		}
		n.XDP = now.XDP
	}
	return &Error{Dev: n.Name, Op: "detach xdp programs", Err: fmt.Errorf("they come back: %w", ErrBusy)}
}

// restoreWhole restores how a netdev was tuned, and its controls. What concerns only the host's speed - queues, rings, RSS and rules
// of its own - may be refused.
func (h *netdevs) restoreWhole(n Netdev, was Snapshot) (refused []error, _ error) {
	adding := adder{dev: n.Name}
	var errs []error
	if was.Whole != nil {
		err := h.restoreTuned(n, &TuningSnapshot{Queues: was.Whole.Queues, Rings: was.Whole.Rings})
		if err != nil && !errors.Is(err, ErrBusy) {
			adding.refused, err = append(adding.refused, err), nil
		}
		errs = append(errs, err)
		errs = append(errs, h.restoreTuned(n, &TuningSnapshot{Features: was.Whole.Features}))
	}
	errs = append(errs, h.restoreControls(n, was.Controls, &adding))
	return adding.refused, errors.Join(append(errs, adding.errs...)...)
}

// restoreControls gives the controls of a netdev their values of before, and removes those that there were not. A program of the
// host that is gone cannot be attached again: only its owner has it.
func (h *netdevs) restoreControls(n Netdev, was []Control, adding *adder) error {
	if was == nil {
		return nil
	}
	now, err := h.kernel.Controls(n.Index)
	if err != nil {
		return &Error{Dev: n.Name, Op: "read what ethtool and bpf have set", Err: err}
	}
	var errs []error
	for _, c := range now { // first, for a NIC has a limited number of rules
		if !slices.ContainsFunc(was, c.is) {
			err := h.kernel.SetControl(n.Index, Control{Kind: c.Kind, Name: c.Name})
			errs = append(errs, wrapped(n.Name, fmt.Sprintf("remove %s, which its container has left", c), err))
		}
	}
	for _, c := range was {
		same := func(o Control) bool { return o.is(c) && bytes.Equal(o.Body, c.Body) }
		if c.Kind == ControlTCX || slices.ContainsFunc(now, same) {
			continue
		}
		op, err := fmt.Sprintf("restore %s, which its container has changed", c), h.kernel.SetControl(n.Index, c)
		if c.Kind == ControlRSS || !slices.ContainsFunc(now, c.is) {
			adding.did(op, err)
		} else {
			errs = append(errs, wrapped(n.Name, op, err))
		}
	}
	return errors.Join(errs...)
}

// childless creates a macvlan in mode passthru on a netdev for a moment. The kernel refuses that if a macvlan or ipvlan is
// on it, in whatever namespace (macvlan_common_newlink: EINVAL, netdev_rx_handler_register: EBUSY; Linux 6.12).
func (h *netdevs) childless(n Netdev) (bool, error) {
	if n.Type != "ether" || strings.HasPrefix(n.Kind, Macvlan) || strings.HasPrefix(n.Kind, IPVlan) || n.Master != 0 {
		return true, nil // on a macvlan it would be created on its parent
	}
	probe := probeOf(n.ID)
	if err := h.removeCreated(probe); err != nil { // of an attempt that was interrupted
		return false, err
	}
	err := h.kernel.CreateLink(NewLink{Name: probe.createdName(), Kind: Macvlan, Mode: "passthru", Parent: n.Index})
	switch {
	case err == nil || errors.Is(err, fs.ErrExist):
		return true, h.removeCreated(probe)
	case errors.Is(err, ErrUnsupported): // the kernel has no macvlan
		return true, nil
	case errors.Is(err, ErrBusy), errors.Is(err, ErrInvalid):
		return false, nil
	}
	return false, &Error{Dev: n.Name, Op: "look for links on it", Err: err}
}
