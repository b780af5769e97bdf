package hw

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// routerAdvertised is RTPROT_RA (include/uapi/linux/rtnetlink.h).
const routerAdvertised = 9

// SnapshotNetdev reads what a netdev that is to be lent whole is now, with its addresses and routes. Routes learnt from
// router advertisements are not among them: they expire, and are learnt again.
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

// PrepareNetdev makes a netdev fit to be lent: marked, so that it is found again, and with the wished MAC unless that is
// "".
func (h *netdevs) PrepareNetdev(id ID, mac MAC) (Netdev, error) {
	n, err := h.Find(id)
	if err != nil {
		return Netdev{}, err
	}
	return h.prepareFound(n, mac)
}

// prepareFound is PrepareNetdev for one that was found just now.
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

// RestoreNetdev puts a netdev that was lent whole back as it was: names, MAC, MTU, queue length, flags, bond or bridge,
// up-state, addresses, routes, alias. The error matches ErrAway while it has not come home; one that is gone
// for good is as good as put back (nil). It may be called again after any failure.
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
	return h.setAlias(n, was.Link.Alias) // last: it is what the device is found by
}

// intact tells whether a netdev never left: setting it down would lose its routes for nothing.
func (h *netdevs) intact(n Netdev, was Snapshot) bool {
	now, err := h.SnapshotNetdev(n)
	if err != nil {
		return false
	}
	a, b := *now.Link, *was.Link
	a.Alias, b.Alias = "", ""
	return a == b && slices.Equal(addrKeys(now.Addrs), addrKeys(was.Addrs)) && slices.Equal(now.Routes, was.Routes)
}

// addrKeys are addresses without what passes with time.
func addrKeys(addrs []Addr) []Addr {
	keys := slices.Clone(addrs)
	for i := range keys {
		keys[i].ValidSec, keys[i].PrefSec = 0, 0
	}
	return keys
}

// restoreIP puts back addresses and routes: first the routes that others lead through, those without a gateway. Routes
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

// setMaster makes a link a port of the bond or bridge it was a port of. Open vSwitch, of which rtnetlink can make
// no port (net/core/rtnetlink.c, do_set_master, Linux 6.12: EOPNOTSUPP), takes its ports back itself: ovs-vswitchd looks for
// them by their names when links change.
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

// rename gives a device its old name. An alternative name of its own that equals it is in the way and goes: udev leaves
// one when a device comes home under another name, and may do so between two steps of this.
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
			return errors.Join(err, findErr) // the name is another device's
		}
		n = now
	}
	return err
}

// setAlias puts back an alias; "" removes it.
func (h *links) setAlias(n Netdev, alias string) error {
	if n.Alias == alias {
		return nil
	}
	return h.setLink(n, fmt.Sprintf("set alias %q", alias), LinkAlias, Link{Alias: alias})
}
