package hw

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// routerAdvertised is RTPROT_RA (include/uapi/linux/rtnetlink.h).
const routerAdvertised = 9

// SnapshotNetdev reads the present state of a netdev that is attached as a whole, with its addresses and routes. Routes
// from router advertisements are not included: they expire, and are learnt again.
func (h *netdevs) SnapshotNetdev(n Netdev) (Snapshot, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return Snapshot{}, &Error{Dev: n.Name, Op: "list links", Err: err}
	}
	l := linkState(n.Link, links)
	snap := Snapshot{Link: &l, AltNames: n.altNames()}
	if snap.Addrs, err = h.kernel.Addrs(n.Index); err != nil {
		return Snapshot{}, &Error{Dev: n.Name, Op: "list addresses", Err: err}
	}
	if snap.Routes, err = h.kernel.Routes(n.Index); err != nil {
		return Snapshot{}, &Error{Dev: n.Name, Op: "list routes", Err: err}
	}
	snap.Routes = slices.DeleteFunc(snap.Routes, func(r Route) bool { return r.Protocol == routerAdvertised })
	return snap, nil
}

// PrepareNetdev prepares a netdev for a container: it sets the alias by which the netdev is found again, and mac unless
// that is "".
func (h *netdevs) PrepareNetdev(id ID, mac MAC) (Netdev, error) {
	n, err := h.Find(id)
	if err != nil {
		return Netdev{}, err
	}
	return h.prepareFound(n, mac)
}

// prepareFound is PrepareNetdev for a netdev that was found just now.
func (h *netdevs) prepareFound(n Netdev, mac MAC) (Netdev, error) {
	if !n.ID.IsPCI() {
		mark := n.ID.aliasMark()
		if err := h.setLink(n, "set alias", LinkAlias, Link{Alias: mark}); err != nil {
			return Netdev{}, err
		}
		n.Alias = mark
	}
	if mac == "" || mac == n.MAC {
		return n, nil
	}
	if err := h.setLink(n, "set mac "+string(mac), LinkMAC, Link{MAC: mac}); err != nil {
		return Netdev{}, err
	}
	return h.Find(n.ID)
}

// RestoreNetdev restores a netdev from its snapshot: names, MAC, MTU, queue length, flags, bond or bridge, up-state,
// addresses, routes, alias. The error matches ErrAway while the netdev is in a container; one that is gone for good
// counts as restored (nil). RestoreNetdev may be repeated after any failure.
func (h *netdevs) RestoreNetdev(id ID, was Snapshot) error {
	n, err := h.Find(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if h.intact(n, was) {
		if err := errors.Join(h.restoreTuning(id, was.Tuned), h.restoreAltNames(n, was.AltNames, nil)); err != nil {
			return err
		}
		return h.setAlias(n, was.Link.Alias)
	}
	if err := h.setUp(n, false); err != nil {
		return err
	}
	errs := []error{h.restoreNames(n, was), h.applyLink(id, *was.Link, required),
		h.restoreTuning(id, was.Tuned), h.setMaster(n, was.Link.Master)}
	if was.Link.Up {
		errs = append(errs, h.setUp(n, true))
	}
	errs = append(errs, h.restoreIP(n, was))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return h.setAlias(n, was.Link.Alias) // last, because the device is found by it
}

// intact returns true if a netdev never left the host: setting it down would needlessly lose its routes.
func (h *netdevs) intact(n Netdev, was Snapshot) bool {
	now, err := h.SnapshotNetdev(n)
	if err != nil {
		return false
	}
	a, b := *now.Link, *was.Link
	a.Alias, b.Alias = "", ""
	return a == b && slices.Equal(addrKeys(now.Addrs), addrKeys(was.Addrs)) && slices.Equal(now.Routes, was.Routes)
}

// addrKeys returns addresses without their lifetimes.
func addrKeys(addrs []Addr) []Addr {
	keys := slices.Clone(addrs)
	for i := range keys {
		keys[i].ValidSec, keys[i].PrefSec = 0, 0
	}
	return keys
}

// restoreIP restores addresses and routes: routes without a gateway first, because others lead through them. Routes
// exist only on a link that is up.
func (h *netdevs) restoreIP(n Netdev, was Snapshot) error {
	var errs []error
	for _, a := range was.Addrs {
		if err := h.kernel.AddAddr(n.Index, a); err != nil {
			errs = append(errs, &Error{Dev: n.Name, Op: "add address " + a.CIDR, Err: err})
		}
	}
	if !was.Link.Up {
		return errors.Join(errs...)
	}
	direct := func(r Route) bool { return r.Gateway == "" }
	for _, first := range []bool{true, false} {
		for _, r := range was.Routes {
			if direct(r) != first {
				continue
			}
			r.Index = n.Index
			if err := h.kernel.AddRoute(n.Index, r); err != nil {
				errs = append(errs, &Error{Dev: n.Name, Op: "add route " + r.Dst, Err: err})
			}
		}
	}
	return errors.Join(errs...)
}

// setMaster makes a link a port of a bond or bridge. Open vSwitch, whose ports rtnetlink cannot create
// (net/core/rtnetlink.c, do_set_master, Linux 6.12: EOPNOTSUPP), takes its ports back itself: ovs-vswitchd looks for
// them by name when links change.
func (h *links) setMaster(n Netdev, master string) error {
	index := 0
	if master != "" {
		m, err := h.Netdev(master)
		if err != nil {
			return &Error{Dev: n.Name, Op: "make it a port of " + master, Err: err}
		}
		if m.ofOpenVSwitch() {
			return nil
		}
		index = m.Index
	}
	if index == n.Master {
		return nil
	}
	return h.setLink(n, fmt.Sprintf("make it a port of %q", master), LinkMaster, Link{Master: index})
}

// rename gives a device its old name. An alternative name of its own that equals it is removed first: udev adds one
// when a device returns under another name, possibly between two steps of this.
func (h *links) rename(n Netdev, name string) error {
	var err error
	for range 3 {
		if n.Name == name {
			return nil
		}
		if slices.Contains(n.AltNames, name) {
			err := wrapped(n.Name, "remove alternative name "+name, h.kernel.RemoveAltName(n.Index, name))
			if err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
		}
		if err = h.setLink(n, "rename to "+name, LinkName, Link{Name: name}); !errors.Is(err, fs.ErrExist) {
			return err
		}
		now, findErr := h.Find(n.ID)
		if findErr != nil || now.Name != name && !slices.Contains(now.AltNames, name) {
			return errors.Join(err, findErr) // another device has the name
		}
		n = now
	}
	return err
}

// setAlias restores an alias; "" removes it.
func (h *links) setAlias(n Netdev, alias string) error {
	if n.Alias == alias {
		return nil
	}
	return h.setLink(n, fmt.Sprintf("set alias %q", alias), LinkAlias, Link{Alias: alias})
}
