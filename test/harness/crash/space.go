package crash

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/test/harness/sandbox"
)

// host is the network namespace of this thread, whose devices the plugin uses.
type host struct {
	fd     netns.NsHandle
	nl     *netlink.Handle
	spaces []*space
	// virtual: devices end with their namespace, unlike hardware, so the test moves them to the host in place of the kernel.
	virtual bool
}

// openHost opens the host of this thread.
func openHost(virtual bool) (*host, error) {
	fd, err := netns.Get()
	if err != nil {
		return nil, err
	}
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	return &host{fd: fd, nl: nl, virtual: virtual}, nil
}

// close removes what is left of the host.
func (h *host) close() {
	for _, s := range h.spaces {
		s.end()
	}
	h.nl.Close()
	_ = h.fd.Close() // closing a namespace descriptor loses no data
}

// space is a container's network namespace.
type space struct {
	*sandbox.Sandbox
	host   *host
	inside string // name of the device there
	file   string // of an owner's namespace; "" for none
	ended  bool
}

// newSpace creates a namespace.
func (h *host) newSpace() (*space, error) {
	made, err := sandbox.New()
	if err != nil {
		return nil, err
	}
	s := &space{Sandbox: made, host: h}
	h.spaces = append(h.spaces, s)
	return s, nil
}

// moveIn moves a device into a new container, as the engine does: under another name, with an address, up. Then the
// container changes what it can.
func (h *host) moveIn(name, inside, address string) (*space, error) {
	s, err := h.newSpace()
	if err != nil {
		return nil, err
	}
	return s, s.moveIn(name, inside, address)
}

// moveIn moves a device into a container that has its namespace already.
func (s *space) moveIn(name, inside, address string) error {
	l, err := s.host.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := s.host.nl.LinkSetNsFd(l, int(s.FD)); err != nil {
		return fmt.Errorf("move %s in: %w", name, err)
	}
	s.inside = inside
	if l, err = s.NL.LinkByName(name); err != nil {
		return err
	}
	a, err := netlink.ParseAddr(address)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return s.NL.LinkSetDown(l) },
		func() error { return s.NL.LinkSetName(l, inside) },
		func() error { return s.NL.AddrAdd(l, a) },
		func() error { return s.NL.LinkSetMTU(l, 1280) },
		func() error { return s.NL.SetPromiscOn(l) },
		func() error { return s.NL.LinkSetAllmulticastOn(l) },
		func() error { return s.NL.LinkSetTxQLen(l, 77) },
		func() error { return s.NL.LinkSetGSOMaxSize(l, 30000) },
		func() error { return s.NL.LinkSetGROMaxSize(l, 150000) },
		func() error { return s.NL.LinkSetUp(l) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// moveHome moves the container's device back under its old name, as the engine does.
func (s *space) moveHome(name string) error { return s.MoveHome(s.inside, name, s.host.fd) }

// die ends a container whose engine has died: the kernel moves hardware to the host under its current name.
func (s *space) die() {
	s.unbind()
	l, err := s.NL.LinkByName(s.inside)
	if err == nil && s.host.virtual {
		if _, made := l.(*netlink.Macvlan); !made { // they are deleted with their namespace
			_ = s.NL.LinkSetDown(l) // a failure is found by the later check
			_ = s.NL.LinkSetNsFd(l, int(s.host.fd))
		}
	}
	s.end()
}

// end ends the namespace, once.
func (s *space) end() {
	if !s.ended {
		s.unbind()
		s.End()
		s.ended = true
	}
}

// privately runs fn on a thread that has a network and a mount namespace of its own, with its sysfs at /sys. Programs that
// fn starts are there, too. The thread ends with it, and what was in them.
func privately(fn func()) error {
	failed := make(chan error)
	go private(fn, failed)
	return <-failed
}

// private is privately's goroutine.
func private(fn func(), failed chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() { // the first thread does not end
		defer runtime.UnlockOSThread()
		found := make(chan error)
		go private(fn, found)
		failed <- <-found
		return
	}
	var err error
	defer func() { failed <- err }()
	if err = unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		err = fmt.Errorf("private namespaces: %w", err)
		return
	}
	if err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		err = fmt.Errorf("make mounts private: %w", err)
		return
	}
	if err = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		err = fmt.Errorf("mount sysfs: %w", err)
		return
	}
	fn()
}

// lines are the lines of a text that are not empty.
func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}
