package rtnl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
)

// answerBound is how long the kernel may take to answer one request. Writing sriov_numvfs holds the RTNL lock for seconds
// (igb, 7 VFs to 0: 2.9 s), and every request waits for that lock.
const answerBound = 8 * time.Second

// dumpTries is how often a listing is read that is changed while it is read, before that is reported as an error. Links come
// and go in bursts, when VFs are created.
const dumpTries = 10

// Kernel is the running kernel, seen from one network namespace. Its methods may be called at any time from any
// goroutine. One listing of links is in progress at a time; links are read, created, changed and removed in parallel to
// it.
type Kernel struct {
	irqDir
	ethtoolConn
	otherNamespaces
	controls
	devlink

	nl       *netlink.Handle
	sys      *os.Root
	sysfs    fs.FS
	closeSys func() // of sysfs

	sockets  pool // for messages that the library's handle cannot send, or whose answers it loses
	changers pool
	strict   pool // of one, see RoutesIn
	removers pool

	links *listing[hw.Link]
}

// Open returns the running kernel, seen from the network namespace of the calling thread, with the sysfs at sys, which has
// to belong to the same namespace. irq is the path of /proc/irq; if it is "" or does not exist, the methods that need it
// fail and the others work.
func Open(sys, irq string) (*Kernel, error) {
	root, err := os.OpenRoot(sys)
	if err != nil {
		return nil, fmt.Errorf("sysfs: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE, unix.NETLINK_GENERIC)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rtnetlink: open a socket: %w", err), root.Close())
	}
	self, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		h.Close()
		return nil, errors.Join(fmt.Errorf("network namespace: %w", err), root.Close())
	}
	k := &Kernel{nl: h, otherNamespaces: otherNamespaces{self: self}, sys: root, irqDir: openIRQ(irq), links: newListing[hw.Link]()}
	k.sysfs, k.closeSys = openBeneath(root)
	if err := k.openSockets(); err != nil {
		k.Close()
		return nil, fmt.Errorf("netlink: open a socket: %w", err)
	}
	return k, nil
}

// Sysfs returns the sysfs of Open. Paths and links that lead out of it are refused.
func (k *Kernel) Sysfs() fs.FS { return k.sysfs }

// openSockets opens the sockets beside the handle, and sets the time limit of all.
func (k *Kernel) openSockets() (err error) {
	if k.socket, err = openSocket(unix.NETLINK_GENERIC); err != nil {
		return err
	}
	if err := k.nl.SetSocketTimeout(answerBound); err != nil {
		return err
	}
	if err := k.openPools(); err != nil {
		return err
	}
	k.otherNamespaces.sockets, k.otherNamespaces.removers = k.sockets, k.removers
	k.devlink = devlink{k.nl, k.socket}
	k.ethtool = &k.ethtoolConn
	k.nameOf = func(index int) (string, error) {
		l, err := k.LinkAt(index)
		return l.Name, err
	}
	k.ioctl = func(name string, c command) error { return callEthtool(k.controls.fd, name, c) }
	if k.controls.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return err
	}
	k.family, err = findEthtool(k.nl)
	return err
}

// openSocket opens a socket of a netlink family.
func openSocket(family int) (*nl.SocketHandle, error) {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), family)
	if err != nil {
		return nil, err
	}
	tv := unix.NsecToTimeval(answerBound.Nanoseconds())
	return &nl.SocketHandle{Socket: s}, errors.Join(s.SetReceiveTimeout(&tv), s.SetSendTimeout(&tv))
}

// Close closes the sockets and directories. No other method may be in progress.
func (k *Kernel) Close() {
	k.nl.Close()
	k.sockets.close()
	k.changers.close()
	k.removers.close()
	k.strict.close()
	if k.socket != nil {
		k.socket.Close()
	}
	if k.controls.fd > 0 {
		_ = unix.Close(k.controls.fd)
	}
	k.irqDir.close()
	_ = k.self.Close() // nothing was written
	k.closeSys()
	// Nothing was written through the directory.
	_ = k.sys.Close()
}

// request begins a message that is sent over a socket of rtnetlink.
func request(s *nl.SocketHandle, msgType, flags int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(msgType, flags)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: s}
	return r
}

// dump runs a listing until it was not interrupted. The kernel marks a listing that it changed meanwhile (NLM_F_DUMP_INTR);
// entries may be missing from it or be in it twice.
func dump[T any](list func() ([]T, error)) (got []T, err error) {
	interrupted := func(err error) bool {
		return errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EINTR)
	}
	err = retry.Times(dumpTries, interrupted, func() (err error) {
		got, err = list()
		return err
	})
	switch {
	case err == nil:
		return got, nil
	case interrupted(err):
		return nil, fmt.Errorf("listing changed %d times while it was read: %w", dumpTries, hw.ErrBusy)
	}
	return nil, hw.FromErrno(err)
}
