package hw

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// answerBound is how long the kernel may take to answer one request. Writing sriov_numvfs holds the lock of rtnetlink
// for seconds (igb, 7 VFs to 0: 2.9 s), and every request waits for that lock.
const answerBound = 8 * time.Second

// dumpTries is how often a listing that was changed while it was read is read again before what there is is reported
// as an error. Links come and go in bursts, when VFs are made.
const dumpTries = 10

// netlinkKernel is the running kernel, seen from one network namespace. Its methods may be called at any time from any
// goroutine; one request is in flight at a time.
type netlinkKernel struct {
	nl  *netlink.Handle
	raw *nl.SocketHandle // for what the handle's own parser loses
	sys *os.Root
}

// openKernel returns the running kernel as seen from the network namespace that the calling thread is in, and the sysfs
// at sys, which has to be of the same namespace.
func openKernel(sys string) (*netlinkKernel, error) {
	root, err := os.OpenRoot(sys)
	if err != nil {
		return nil, fmt.Errorf("sysfs: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("rtnetlink: open a socket: %w", err), root.Close())
	}
	k := &netlinkKernel{nl: h, sys: root}
	if err := k.openRaw(); err != nil {
		k.close()
		return nil, fmt.Errorf("rtnetlink: open a socket: %w", err)
	}
	return k, nil
}

// openRaw opens the second socket and gives both their time limit.
func (k *netlinkKernel) openRaw() error {
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	k.raw = &nl.SocketHandle{Socket: s}
	tv := unix.NsecToTimeval(answerBound.Nanoseconds())
	return errors.Join(k.nl.SetSocketTimeout(answerBound), s.SetReceiveTimeout(&tv), s.SetSendTimeout(&tv))
}

// close gives back the sockets and the directory.
func (k *netlinkKernel) close() {
	k.nl.Close()
	if k.raw != nil {
		k.raw.Close()
	}
	// A directory that was only read from has nothing to lose.
	_ = k.sys.Close()
}

// request is a question for the raw socket.
func (k *netlinkKernel) request(msgType int) *nl.NetlinkRequest {
	r := nl.NewNetlinkRequest(msgType, 0)
	r.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: k.raw}
	return r
}

// dump runs a listing until it was not disturbed. The kernel marks a listing that it changed meanwhile
// (NLM_F_DUMP_INTR); entries may be missing from it or be in it twice.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	for try := 1; ; try++ {
		got, err := list()
		disturbed := errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EINTR)
		switch {
		case err == nil:
			return got, nil
		case !disturbed:
			return nil, FromErrno(err)
		case try == dumpTries:
			return nil, fmt.Errorf("listing changed %d times while it was read: %w", try, ErrNotReady)
		}
	}
}
