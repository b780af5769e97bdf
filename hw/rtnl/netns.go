package rtnl

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// A Netns is the network namespace of a container, for programs that may enter it. The plugin may not, and has none.
type Netns struct {
	path string
	file *os.File
	host *os.File // the namespace of the calling thread
	in   *netlink.Handle
	out  *netlink.Handle
}

// OpenNetns opens the namespace whose file is at a path. The error matches hw.ErrNotFound if there is none.
func OpenNetns(path string) (s *Netns, err error) {
	s = &Netns{path: path}
	defer func() {
		if err != nil {
			s.Close()
			s, err = nil, fmt.Errorf("network namespace %s: %w", path, err)
		}
	}()
	if s.file, err = os.Open(path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = hw.ErrNotFound
		}
		return s, err
	}
	var fs unix.Statfs_t
	if err = unix.Fstatfs(int(s.file.Fd()), &fs); err != nil {
		return s, err
	}
	if fs.Type != unix.NSFS_MAGIC { // what is left of one that was unmounted
		return s, fmt.Errorf("it is a file of another kind: %w", hw.ErrNotFound)
	}
	if s.host, err = os.Open("/proc/thread-self/ns/net"); err != nil {
		return s, err
	}
	if s.out, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return s, err
	}
	s.in, err = netlink.NewHandleAt(netns.NsHandle(s.file.Fd()), unix.NETLINK_ROUTE)
	return s, err
}

// Close closes the files and sockets.
func (s *Netns) Close() {
	for _, h := range []*netlink.Handle{s.in, s.out} {
		if h != nil {
			h.Close()
		}
	}
	for _, f := range []*os.File{s.file, s.host} {
		if f != nil {
			_ = f.Close() // nothing was written
		}
	}
}

// MoveIn moves a link of the host, which has a name that no other has, into the namespace, and gives it a name there. If the name is taken there
// the link is moved back.
func (s *Netns) MoveIn(index int, hostName, name string) error {
	if err := s.out.LinkSetNsFd(at(index), int(s.file.Fd())); err != nil {
		return fmt.Errorf("move %s to network namespace %s: %w", hostName, s.path, hw.FromErrno(err))
	}
	l, err := s.in.LinkByName(hostName)
	if err == nil && hostName != name {
		err = s.in.LinkSetName(l, name)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rename %s to %s in network namespace %s: %w", hostName, name, s.path, hw.FromErrno(err)),
			s.MoveOut(hostName, hostName))
	}
	return nil
}

// MoveOut moves a link back to the host, down and under a name that no other link has there. One that is not there is no error.
func (s *Netns) MoveOut(name, hostName string) error {
	l, err := s.in.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		err = s.in.LinkSetDown(l)
	}
	if err == nil && name != hostName {
		err = s.in.LinkSetName(l, hostName)
	}
	if err == nil {
		err = s.in.LinkSetNsFd(l, int(s.host.Fd()))
	}
	if err != nil {
		return fmt.Errorf("move %s home from network namespace %s: %w", name, s.path, hw.FromErrno(err))
	}
	return nil
}

// Configure sets a link of the namespace up, and adds addresses and then routes in their order.
func (s *Netns) Configure(name string, addrs []hw.Addr, routes []hw.Route) error {
	k := &Kernel{nl: s.in} // what it is used for here needs no more
	failed := func(what string, err error) error {
		return fmt.Errorf("%s in network namespace %s: %s: %w", name, s.path, what, hw.FromErrno(err))
	}
	l, err := s.in.LinkByName(name)
	if err != nil {
		return failed("read link", err)
	}
	for _, a := range addrs {
		if err := k.AddAddr(l.Attrs().Index, a); err != nil {
			return failed("add address "+a.CIDR, err)
		}
	}
	if err := s.in.LinkSetUp(l); err != nil {
		return failed("set up", err)
	}
	for _, r := range routes {
		if err := k.AddRoute(l.Attrs().Index, r); err != nil {
			return failed("add route "+r.Dst, err)
		}
	}
	return nil
}

// Link returns a link of the namespace and its addresses. The error matches hw.ErrNotFound if there is none.
func (s *Netns) Link(name string) (hw.Link, []hw.Addr, error) {
	l, err := s.in.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return hw.Link{}, nil, fmt.Errorf("%s in network namespace %s: %w", name, s.path, hw.ErrNotFound)
	case err != nil:
		return hw.Link{}, nil, hw.FromErrno(err)
	}
	found, err := dump(func() ([]netlink.Addr, error) { return s.in.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return hw.Link{}, nil, err
	}
	var addrs []hw.Addr
	for _, a := range found {
		addrs = append(addrs, toAddr(a))
	}
	a := l.Attrs()
	return hw.Link{Index: a.Index, Name: a.Name, MAC: hw.MAC(a.HardwareAddr.String()), MTU: a.MTU, Up: a.RawFlags&unix.IFF_UP != 0}, addrs, nil
}
