package hw

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// routerAdvertised is RTPROT_RA (include/uapi/linux/rtnetlink.h).
const routerAdvertised = 9

// SnapshotNetdev reads the present state of a netdev that is attached as a whole, with all that is configured on it, see
// [Kernel].Entries. Routes from router advertisements are not included: they expire, and are learnt again.
func (h *netdevs) SnapshotNetdev(n Netdev) (Snapshot, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return Snapshot{}, &Error{Dev: n.Name, Op: "list links", Err: err}
	}
	l := linkState(n.Link, links)
	snap := Snapshot{Link: &l, AltNames: n.altNames(), TakenSec: max(1, int64(h.sinceBoot()/time.Second))}
	if snap.Entries, err = h.kernel.Entries(n.Index); err != nil {
		return Snapshot{}, &Error{Dev: n.Name, Op: "list what is configured on it", Err: err}
	}
	if snap.Sysctls, err = h.ownSysctls(n); err != nil {
		return Snapshot{}, err
	}
	if snap.Addrs, err = h.kernel.Addrs(n.Index); err != nil {
		return Snapshot{}, &Error{Dev: n.Name, Op: "list addresses", Err: err}
	}
	if snap.Routes, err = h.kernel.Routes(n.Index); err != nil {
		return Snapshot{}, &Error{Dev: n.Name, Op: "list routes", Err: err}
	}
	snap.Routes = slices.DeleteFunc(snap.Routes, func(r Route) bool { return r.Protocol == routerAdvertised })
	return snap, nil
}

// An UnrestoredError lists what the kernel did not take back on a device that is otherwise as it was: its name, MAC, MTU,
// bond or bridge and up-state are right. Trying again would not help: what is missing depends on something that has changed
// meanwhile, such as the gateway of a route.
type UnrestoredError struct {
	Errs []error // one for each thing that is missing, which it names
}

// Error returns what is missing, and why.
func (e *UnrestoredError) Error() string {
	var parts []string
	for _, err := range e.Errs {
		parts = append(parts, err.Error())
	}
	return strings.Join(parts, "; ")
}

// With adds what is missing to the error of a further step, which is nil, another UnrestoredError, or a failure, which is returned.
func (e *UnrestoredError) With(err error) error {
	var more *UnrestoredError
	switch {
	case e == nil || err != nil && !errors.As(err, &more):
		return err
	case more != nil:
		return &UnrestoredError{slices.Concat(e.Errs, more.Errs)}
	}
	return e
}

// Unwrap returns the errors of what is missing.
func (e *UnrestoredError) Unwrap() []error { return e.Errs }

// RestoreNetdev restores a netdev from its snapshot: names, MAC, MTU, queue length, flags, bond or bridge, up-state,
// addresses, routes, alias. It changes only what differs, and sets the netdev down only if a driver demands it for what
// differs; if the driver refuses it then, too, the netdev stays down for the next attempt. It adds what is missing and
// removes nothing: what is there beside it was added by an administrator since.
//
// The error matches ErrAway while the netdev is in a container; one that is gone for good counts as restored (nil). The
// error is an [*UnrestoredError] if the netdev is restored but for things that the kernel refuses. RestoreNetdev may be
// repeated after any failure.
func (h *netdevs) RestoreNetdev(id ID, was Snapshot) error {
	return h.restoreNetdev(id, was, h.setDownIfNeeded)
}

// RestoreInUse is RestoreNetdev for a netdev that the host may be using already: it is not set down for an attribute that
// its driver does not change while it is up. That error matches ErrBusy.
func (h *netdevs) RestoreInUse(id ID, was Snapshot) error {
	return h.restoreNetdev(id, was, h.kernel.SetLink)
}

// A setter sets one attribute of the link with an ifindex.
type setter func(index int, a LinkAttr, want Link) error

func (h *netdevs) restoreNetdev(id ID, was Snapshot, set setter) error {
	n, err := h.Find(id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	refused, linkErr := h.restoreLink(n, was, set)
	if n, err = h.Find(id); err != nil {
		return errors.Join(linkErr, err)
	}
	if !errors.Is(linkErr, errStaysDown) {
		var some []error
		some, err = h.restoreIP(n, was)
		refused = append(refused, some...)
	}
	if err := errors.Join(linkErr, err); err != nil {
		return err
	}
	if err := h.setAlias(n, was.Link.Alias); err != nil { // last, because the device is found by it
		return err
	}
	if len(refused) > 0 {
		return &UnrestoredError{refused}
	}
	return nil
}

// restoreLink restores the attributes of a link, its bond or bridge, and its up-state. A bond or bridge that is gone is
// among what is refused; everything else has to succeed. A port gives its bond its own MAC: the bond records it, to give
// it back, and sets its own (drivers/net/bonding/bond_main.c, bond_enslave, Linux 6.12).
func (h *netdevs) restoreLink(n Netdev, was Snapshot, set setter) (refused []error, _ error) {
	want, policy := *was.Link, required[LinkAttr]
	switch {
	case want.PortMAC != "" && n.PortMAC != "":
		policy = func(a LinkAttr) Policy { // MAC and MTU are its bond's
			if a == LinkMAC || a == LinkMTU {
				return Ignore
			}
			return Required
		}
	case want.PortMAC != "":
		want.MAC = want.PortMAC
	}
	err := errors.Join(h.restoreNames(n, was, set), h.applyLink(n.ID, want, set, policy), h.restoreTuning(n.ID, was.Tuned))
	masterErr := h.setMaster(n, was.Link.Master, set)
	if errors.Is(masterErr, ErrNotFound) {
		refused, masterErr = append(refused, masterErr), nil
	}
	if err = errors.Join(err, masterErr); errors.Is(err, errStaysDown) {
		return nil, err
	}
	now, findErr := h.Find(n.ID)
	if findErr != nil {
		return nil, errors.Join(err, findErr)
	}
	some, beforeErr := h.restoreBeforeUp(now, was)
	refused, err = append(refused, some...), errors.Join(err, beforeErr)
	if now.Up != was.Link.Up && (beforeErr == nil || now.Up) {
		err = errors.Join(err, h.setUp(now, was.Link.Up))
	}
	return refused, err
}

// restoreBeforeUp restores what has to be right before a link is up: whether it answers ARP requests and router
// advertisements, and its VLANs, because a bridge has put it into its default one. The link stays down for the next attempt
// if that fails.
func (h *netdevs) restoreBeforeUp(n Netdev, was Snapshot) (refused []error, _ error) {
	refused, err := h.restoreSysctls(n, was)
	if n.Master == 0 {
		return refused, err
	}
	some, portErr := h.restoreEntries(n, was, Entry.ofPort)
	return append(refused, some...), errors.Join(err, portErr)
}

// ownSysctls returns the sysctls of a netdev that are not as those of a new link.
func (h *netdevs) ownSysctls(n Netdev) (map[string]string, error) {
	values, err := h.kernel.Sysctls(n.Index)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list sysctls", Err: err}
	}
	defaults, err := h.kernel.Sysctls(0)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list default sysctls", Err: err}
	}
	maps.DeleteFunc(values, func(name, value string) bool { return value == defaults[name] })
	return values, nil
}

// restoreSysctls restores the sysctls that a netdev has lost: a new namespace gives it its own defaults.
func (h *netdevs) restoreSysctls(n Netdev, was Snapshot) (refused []error, _ error) {
	if len(was.Sysctls) == 0 {
		return nil, nil
	}
	values, err := h.kernel.Sysctls(n.Index)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list sysctls", Err: err}
	}
	adding := adder{dev: n.Name}
	for _, name := range slices.Sorted(maps.Keys(was.Sysctls)) {
		if value := was.Sysctls[name]; values[name] != value {
			adding.did(fmt.Sprintf("set %s to %s", sysctlOf(n, name), value), h.kernel.SetSysctl(n.Index, name, value))
		}
	}
	return adding.refused, errors.Join(adding.errs...)
}

// sysctlOf returns the full name of a sysctl of a netdev.
func sysctlOf(n Netdev, name string) string { return strings.Replace(name, "*", n.Name, 1) }

// NotRestored names what is configured on a netdev and RestoreNetdev cannot restore: sysctls that cannot be written, with
// their values and those that the netdev will have, and filters of tc. It finds out by writing the values that are there.
func (h *netdevs) NotRestored(n Netdev) ([]string, error) {
	lost, err := h.kernel.LeftOut(n.Index)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list what cannot be restored", Err: err}
	}
	own, err := h.ownSysctls(n)
	if err != nil {
		return nil, err
	}
	defaults, err := h.kernel.Sysctls(0)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list default sysctls", Err: err}
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if err := h.kernel.SetSysctl(n.Index, name, own[name]); err != nil {
			lost = append(lost, fmt.Sprintf("%s = %s (will be %s: %v)", sysctlOf(n, name), own[name], defaults[name], err))
		}
	}
	return lost, nil
}

// restoreIP adds what is missing of addresses, routes and all else that is configured on a link. Routes exist only on a
// link that is up. It returns what the kernel refuses.
func (h *netdevs) restoreIP(n Netdev, was Snapshot) (refused []error, _ error) {
	if was.TakenSec == 0 {
		return h.restoreTyped(n, was)
	}
	return h.restoreEntries(n, was, func(e Entry) bool { return !e.ofPort() && (was.Link.Up || e.Kind != EntryRoute) })
}

// ofPort returns true for an entry that belongs to the port of a bridge.
func (e Entry) ofPort() bool { return e.Kind == EntryBridgePort || e.Kind == EntryFDB }

// restoreEntries adds the entries of a snapshot that are missing, of those for which which returns true.
func (h *netdevs) restoreEntries(n Netdev, was Snapshot, which func(Entry) bool) (refused []error, _ error) {
	entries := slices.DeleteFunc(was.alive(h.sinceBoot()), func(e Entry) bool { return !which(e) })
	if len(entries) == 0 {
		return nil, nil
	}
	have, err := h.kernel.Entries(n.Index)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list what is configured on it", Err: err}
	}
	adding := adder{dev: n.Name}
	for _, e := range entries {
		if !slices.ContainsFunc(have, e.Same) {
			adding.add(e.Text, h.kernel.AddEntry(n.Index, e))
		}
	}
	return adding.refused, errors.Join(adding.errs...)
}

// alive returns the entries of a snapshot that have not expired, with what is left of their lives: those go on while the
// device is away, because others may have the address since. A route ends with its source address.
func (s Snapshot) alive(sinceBoot time.Duration) (entries []Entry) {
	passed := max(0, int(int64(sinceBoot/time.Second)-s.TakenSec))
	expired := map[string]bool{}
	for _, e := range s.Entries {
		if e.ValidSec > 0 {
			if e.ValidSec -= passed; e.ValidSec <= 0 {
				if e.Kind == EntryAddress {
					expired[e.Address] = true
				}
				continue
			}
		}
		if e.PrefSec > 0 {
			if e.PrefSec -= passed; e.PrefSec <= 0 {
				e.PrefSec = -1
			}
		}
		if e.Kind != EntryRoute || !expired[e.Address] {
			entries = append(entries, e)
		}
	}
	return entries
}

// An adder collects the errors of adding: what the kernel refuses, and what may be tried again.
type adder struct {
	dev           string
	refused, errs []error
}

// add collects the error of adding something.
func (a *adder) add(what string, err error) { a.did("add "+what, err) }

// did collects the error of an attempt.
func (a *adder) did(op string, err error) {
	err = wrapped(a.dev, op, err)
	if isRefusal(err) {
		a.refused = append(a.refused, err)
	} else {
		a.errs = append(a.errs, err)
	}
}

// restoreTyped restores the addresses and routes of a record that an older release has written: routes without a gateway
// first, because others lead through them.
func (h *netdevs) restoreTyped(n Netdev, was Snapshot) (refused []error, _ error) {
	addrs, err := h.kernel.Addrs(n.Index)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list addresses", Err: err}
	}
	adding := adder{dev: n.Name}
	have := addrKeys(addrs)
	for i, key := range addrKeys(was.Addrs) {
		if !slices.Contains(have, key) {
			adding.add("address "+key.CIDR, h.kernel.AddAddr(n.Index, was.Addrs[i]))
		}
	}
	if !was.Link.Up {
		return adding.refused, errors.Join(adding.errs...)
	}
	routes, err := h.kernel.Routes(n.Index)
	if err != nil {
		return nil, &Error{Dev: n.Name, Op: "list routes", Err: err}
	}
	for _, first := range []bool{true, false} {
		for _, r := range was.Routes {
			direct := r.Gateway == ""
			r.Index = n.Index
			if direct == first && !slices.Contains(routes, r) {
				adding.add("route "+r.Dst, h.kernel.AddRoute(n.Index, r))
			}
		}
	}
	return adding.refused, errors.Join(adding.errs...)
}

// isRefusal returns true for the answer of a kernel that would say the same the next time: not that it is busy or out of
// memory, or that the link was set down meanwhile.
func isRefusal(err error) bool {
	var no unix.Errno
	return errors.As(err, &no) && !errors.Is(err, ErrBusy) && !errors.Is(err, ErrDeviceFault) && no != unix.ENOMEM &&
		no != unix.ENOBUFS
}

// addrKeys returns addresses without their lifetimes.
func addrKeys(addrs []Addr) []Addr {
	keys := slices.Clone(addrs)
	for i := range keys {
		keys[i].ValidSec, keys[i].PrefSec = 0, 0
	}
	return keys
}

// setMaster makes a link a port of a bond or bridge. Open vSwitch, whose ports rtnetlink cannot create
// (net/core/rtnetlink.c, do_set_master, Linux 6.12: EOPNOTSUPP), takes its ports back itself: ovs-vswitchd looks for
// them by name when links change.
func (h *links) setMaster(n Netdev, master string, set setter) error {
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
	return wrapped(n.Name, fmt.Sprintf("make it a port of %q", master), set(n.Index, LinkMaster, Link{Master: index}))
}

// rename gives a device its old name. An alternative name of its own that equals it is removed first: udev adds one
// when a device returns under another name, possibly between two steps of this.
func (h *links) rename(n Netdev, name string, set setter) error {
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
		if err = wrapped(n.Name, "rename to "+name, set(n.Index, LinkName, Link{Name: name})); !errors.Is(err, fs.ErrExist) {
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

// RestoreParent restores what was changed on a device for its child, which is gone: MTU, up-state, alias, and its MAC
// if the kernel has not (macvlan_port_destroy does, Linux 6.12). Addresses and routes were not changed. A device that
// is gone counts as restored (nil).
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
		if a == LinkMAC { // a bond with fail_over_mac=active takes that of its port
			return BestEffort
		}
		return Required
	}
	if err := h.applyLink(id, *was.Link, h.kernel.SetLink, policy); err != nil {
		return err
	}
	if n.Up && !was.Link.Up {
		if err := h.setUp(n, false); err != nil {
			return err
		}
	}
	return h.setAlias(n, was.Link.Alias)
}
