//go:build kernel || lab

package rtnl_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/test/harness/sandbox"
)

// mountSys mounts a sysfs of the new network namespace. The one that is there shows the machine's links.
func mountSys() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("sysfs", sys, "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	return nil
}

// sys is where the tests' own sysfs is mounted, over the machine's.
const sys = "/sys"

// world implements conformance.Env: it makes links as the administrator does and moves them as the engine does.
type world struct {
	t      testing.TB
	fd     netns.NsHandle // of the host's namespace
	host   *netlink.Handle
	spaces map[string]*sandbox.Sandbox
}

func newWorld(t testing.TB) *world {
	t.Helper()
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, fd: fd, host: h, spaces: map[string]*sandbox.Sandbox{}}
	t.Cleanup(w.tidy)
	return w
}

// tidy ends the namespaces and removes every link but the loopback one.
func (w *world) tidy() {
	defer w.host.Close()
	defer w.fd.Close()
	for ns := range w.spaces {
		w.EndNS(ns)
	}
	links, err := w.host.LinkList()
	if err != nil {
		w.t.Error(err)
	}
	for _, l := range links {
		var gone netlink.LinkNotFoundError
		if l.Attrs().Name == "lo" {
			continue
		}
		// The peer of one that has just been removed is gone as well.
		if err := w.host.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) && !errors.As(err, &gone) {
			w.t.Errorf("remove %s: %v", l.Attrs().Name, err)
		}
	}
}

func (w *world) Add(t *testing.T, kind, name, other string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	var l netlink.Link
	switch kind {
	case "veth":
		l = &netlink.Veth{LinkAttrs: attrs, PeerName: other}
	case "bridge":
		l = &netlink.Bridge{LinkAttrs: attrs}
	case "macvlan":
		parent, err := w.host.LinkByName(other)
		if err != nil {
			t.Fatal(err)
		}
		attrs.ParentIndex = parent.Attrs().Index
		l = &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
	default:
		t.Fatalf("no kind %q", kind)
	}
	if err := w.host.LinkAdd(l); err != nil {
		t.Fatalf("add %s %s: %v", kind, name, err)
	}
}

func (w *world) AltName(t *testing.T, name, alt string) {
	t.Helper()
	l, err := w.host.LinkByName(name)
	if err == nil {
		err = w.host.LinkAddAltName(l, alt)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) MoveToNS(ns, name, newName string) error {
	s := w.spaces[ns]
	if s == nil {
		var err error
		if s, err = sandbox.New(); err != nil {
			return err
		}
		w.spaces[ns] = s
	}
	l, err := w.host.LinkByName(name)
	if err != nil {
		return err
	}
	if err := w.host.LinkSetNsFd(l, int(s.FD)); err != nil {
		return err
	}
	if l, err = s.NL.LinkByName(name); err != nil {
		return err
	}
	if newName != "" {
		if err := s.NL.LinkSetName(l, newName); err != nil {
			return err
		}
	}
	return s.NL.LinkSetUp(l)
}

func (w *world) MoveHome(ns, name, backName string) error {
	return w.spaces[ns].MoveHome(name, backName, w.fd)
}

func (w *world) AddAddrIn(t *testing.T, ns, name, cidr string) {
	t.Helper()
	s := w.spaces[ns]
	l, err := s.NL.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	a, err := netlink.ParseAddr(cidr)
	if err != nil {
		t.Fatal(err)
	}
	a.Flags = unix.IFA_F_NODAD
	if err := s.NL.AddrAdd(l, a); err != nil {
		t.Fatal(err)
	}
}

func (w *world) EndNS(ns string) {
	w.spaces[ns].End()
	delete(w.spaces, ns)
}
