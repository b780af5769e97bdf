// Package sandbox makes containers' network namespaces for tests that have no engine.
package sandbox

import (
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A Sandbox is a network namespace. It lives as long as its thread, its file and its sockets.
type Sandbox struct {
	FD netns.NsHandle
	NL *netlink.Handle // of links in it

	stop chan struct{}
	done chan struct{}
}

// New makes one. End ends it.
func New() (*Sandbox, error) {
	s := &Sandbox{stop: make(chan struct{}), done: make(chan struct{})}
	ready := make(chan error)
	go s.live(ready)
	if err := <-ready; err != nil {
		return nil, err
	}
	return s, nil
}

// live is the namespace's thread. It is never unlocked: it ends with the goroutine, and the namespace with it. Only the
// process's first thread does not end, so that one is kept occupied until another has been found.
func (s *Sandbox) live(ready chan<- error) {
	runtime.LockOSThread()
	if unix.Gettid() == os.Getpid() {
		defer runtime.UnlockOSThread()
		found := make(chan error)
		go s.live(found)
		ready <- <-found
		return
	}
	defer close(s.done)
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		s.FD, err = netns.Get()
	}
	if err == nil {
		s.NL, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	ready <- err
	if err == nil {
		<-s.stop
	}
}

// MoveHome moves a device back to the host under the name that it had there, as the engine does.
func (s *Sandbox) MoveHome(name, backName string, host netns.NsHandle) error {
	l, err := s.NL.LinkByName(name)
	if err != nil {
		return err
	}
	if err := s.NL.LinkSetDown(l); err != nil {
		return err
	}
	if err := s.NL.LinkSetName(l, backName); err != nil {
		return err
	}
	return s.NL.LinkSetNsFd(l, int(host))
}

// End ends it; what the kernel does not bring home is gone with it.
func (s *Sandbox) End() {
	s.NL.Close()
	_ = s.FD.Close() // a namespace's descriptor has nothing to lose
	close(s.stop)
	<-s.done
}
