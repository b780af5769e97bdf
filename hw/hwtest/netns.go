package hwtest

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// NotYet, given to KillNS, leaves the namespace's end to ReleaseNS: a process still holds it.
const NotYet time.Duration = -1

// MoveToNS does what the engine does to give a link to a container: move it from the host to the namespace ns, which is
// made when it does not exist, set it down, rename it to newName (unless ""), and set it up. Addresses, routes and
// master stay behind; name, MAC, MTU, alias, alternative names, promiscuity and queue length go along.
func (k *Kernel) MoveToNS(ns, name, newName string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.namedLocked(hostNS, name)
	if l == nil {
		return fmt.Errorf("%s: %w", name, syscall.ENODEV)
	}
	k.spaces[ns] = true
	if !slices.Contains(k.known, ns) {
		k.known = append(k.known, ns)
	}
	if err := k.moveLocked(l, ns); err != nil {
		return fmt.Errorf("move %s to %s: %w", name, ns, err)
	}
	if newName != "" {
		if err := k.renameLocked(l, newName); err != nil {
			return fmt.Errorf("rename %s to %s in %s: %w", name, newName, ns, err)
		}
	}
	if k.macBusyLocked(l, l.MAC) {
		return fmt.Errorf("set %s up in %s: %w", l.Name, ns, syscall.EADDRINUSE)
	}
	k.setUpLocked(l, true)
	return nil
}

// MoveHome does what the engine does to take a link from a container: set it down, rename it to backName in the
// namespace, and move it to the host. When the host has no room for it, it stays in the namespace under backName.
func (k *Kernel) MoveHome(ns, name, backName string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.namedLocked(ns, name)
	if l == nil {
		return fmt.Errorf("%s in %s: %w", name, ns, syscall.ENODEV)
	}
	k.setUpLocked(l, false)
	if err := k.renameLocked(l, backName); err != nil {
		return fmt.Errorf("rename %s to %s in %s: %w", name, backName, ns, err)
	}
	if err := k.moveLocked(l, hostNS); err != nil {
		return fmt.Errorf("move %s to the host: %w", backName, err)
	}
	k.arrivedLocked(l)
	return nil
}

// KillNS ends a namespace after a time, as the kernel does when its last process has ended; NotYet leaves that to
// ReleaseNS. Hardware, and IPoIB, returns to the host down, under the name that it had in the namespace, or as devN with its ifindex
// when that is taken; alternative names that are taken are lost. Other virtual links are deleted.
func (k *Kernel) KillNS(ns string, after time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.afterLocked(after, func() { k.endLocked(ns) })
}

// ReleaseNS ends a namespace that KillNS has left for later.
func (k *Kernel) ReleaseNS(ns string) { k.KillNS(ns, 0) }

// endLocked sends a namespace's links home or to their end.
func (k *Kernel) endLocked(ns string) {
	for _, l := range slices.Clone(k.links) {
		switch {
		case l.ns != ns || !slices.Contains(k.links, l): // elsewhere, or gone with its peer
		case l.mortal():
			k.deleteLocked(l)
		default:
			k.homeLocked(l)
		}
	}
	k.homeRDMALocked(ns)
	delete(k.spaces, ns)
}

// homeLocked returns hardware to the host from a namespace that ends.
func (k *Kernel) homeLocked(l *link) {
	l.AltNames = slices.DeleteFunc(l.AltNames, func(n string) bool { return k.namedLocked(hostNS, n) != nil })
	k.leaveLocked(l)
	if k.namedLocked(hostNS, l.Name) != nil {
		name := fmt.Sprintf("dev%d", l.Index)
		if k.namedLocked(hostNS, name) != nil {
			name = k.freeNameLocked("dev")
		}
		l.Name = name
	}
	l.ns = hostNS
	k.appearLocked(l)
	k.arrivedLocked(l)
}

// moveLocked moves a link to another namespace, where neither its name nor one of its alternative names may be in use.
func (k *Kernel) moveLocked(l *link, ns string) error {
	if l.ns == ns {
		return nil
	}
	if l.immovable() {
		return syscall.EINVAL
	}
	for _, n := range append([]string{l.Name}, l.AltNames...) {
		if k.namedLocked(ns, n) != nil {
			return syscall.EEXIST
		}
	}
	k.leaveLocked(l)
	l.ns = ns
	k.appearLocked(l)
	return nil
}

// leaveLocked is the part of a move that the old namespace sees: down, without master, addresses and routes.
func (k *Kernel) leaveLocked(l *link) {
	if l.master != nil {
		k.releaseLocked(l)
	}
	k.endSoftRDMALocked(l)
	k.setUpLocked(l, false)
	l.addrs, l.entries, l.leftOut, l.sysctls = nil, nil, nil, nil
	k.hideLocked(l)
}

// arrivedLocked is udev seeing a link return to the host. It does not rename what has been renamed before, but adds the
// predictable name as an alternative one; later renaming to that fails with EEXIST.
func (k *Kernel) arrivedLocked(l *link) {
	if k.NoUdev {
		return
	}
	k.afterLocked(k.UdevAfter, func() {
		if l.udevName != "" && l.ns == hostNS && slices.Contains(k.links, l) && k.namedLocked(hostNS, l.udevName) == nil {
			l.AltNames = append(l.AltNames, l.udevName)
		}
	})
}

// A Namespace is the inside of one, where a container does as it likes.
type Namespace struct {
	k  *Kernel
	ns string
}

// InNS is the inside of a namespace, which is made when it does not exist.
func (k *Kernel) InNS(ns string) Namespace {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.spaces[ns] = true
	return Namespace{k, ns}
}

// Links lists the links in the namespace, in order of their ifindex.
func (n Namespace) Links() []hw.Link {
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	var ls []hw.Link
	for _, l := range n.k.links {
		if l.ns == n.ns {
			ls = append(ls, l.shown())
		}
	}
	return ls
}

// SetLink sets attributes of a link in the namespace to their values in want, in this order. The kernel's rules hold: a VF may
// refuse a MAC.
func (n Namespace) SetLink(name string, want hw.Link, attrs ...hw.LinkAttr) error {
	for _, a := range attrs {
		if err := n.change(name, func(l *link) error { return n.k.setLocked(l, a, want) }); err != nil {
			return err
		}
		if a == hw.LinkName {
			name = want.Name
		}
	}
	return nil
}

// RemoveAltName removes an alternative name of a link in the namespace.
func (n Namespace) RemoveAltName(name, alt string) error {
	return n.change(name, func(l *link) error { return n.k.delAltNameLocked(l, alt) })
}

// change changes a link in the namespace.
func (n Namespace) change(name string, change func(*link) error) error {
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	l := n.k.namedLocked(n.ns, name)
	if l == nil {
		return hw.FromErrno(syscall.ENODEV)
	}
	defer n.k.showLocked(l)
	return hw.FromErrno(change(l))
}

// AddLink makes a virtual link in the namespace, such as a macvlan on the link that the container was given, and returns
// its ifindex.
func (n Namespace) AddLink(l hw.Link) int {
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	return n.k.addLocked(n.ns, l).Index
}

// GiveAltName gives a link in the namespace an alternative name.
func (n Namespace) GiveAltName(name, alt string) {
	n.k.t.Helper()
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	l := n.k.needLocked(n.ns, name)
	l.AltNames = append(l.AltNames, alt)
}

// Move moves a link of the namespace to another one, of which the host does not know.
func (n Namespace) Move(name, ns string) {
	n.k.t.Helper()
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	n.k.spaces[ns] = true
	if err := n.k.moveLocked(n.k.needLocked(n.ns, name), ns); err != nil {
		n.k.t.Fatalf("hwtest: move %s to %s: %v", name, ns, err)
	}
}

// ChildrenElsewhere implements hw.Kernel.
func (k *Kernel) ChildrenElsewhere(index int) ([]hw.ForeignLink, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var children []hw.ForeignLink
	for _, l := range k.links {
		if ns := slices.Index(k.known, l.ns); ns >= 0 && l.below != nil && l.below.ns == hostNS && l.below.Index == index {
			children = append(children, hw.ForeignLink{Namespace: ns, Index: l.Index, Name: l.Name, Kind: l.Kind, Alias: l.Alias})
		}
	}
	return children, nil
}

// RemoveElsewhere implements hw.Kernel.
func (k *Kernel) RemoveElsewhere(f hw.ForeignLink) error {
	return k.call(func() error {
		l := k.byIndexLocked(k.known[f.Namespace], f.Index)
		if l == nil {
			return syscall.ENODEV
		}
		k.deleteLocked(l)
		return nil
	}, func() string { return "remove elsewhere " + f.Name })
}

// AttachXDP attaches XDP programs to a link in the namespace, as with netlink: they stay when their process ends, and when the link
// moves.
func (n Namespace) AttachXDP(name string, programs hw.XDP) {
	n.k.t.Helper()
	n.k.mu.Lock()
	defer n.k.mu.Unlock()
	n.k.needLocked(n.ns, name).XDP = programs
}
