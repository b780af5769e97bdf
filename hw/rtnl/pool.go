package rtnl

import (
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Sizes of the pools of sockets.
const (
	// removals is how many links can be on their way out at the same time. The kernel answers only once nobody can be looking at
	// the link any more (net/core/dev.c, netdev_run_todo: 25 ms, Linux 6.18), and many at once take it not much longer than one.
	removals = 16
	// changes is how many links can be read or made, and how many be changed, at the same time.
	changes = 16
)

// A pool is sockets, or handles with one each. Whoever sends a request waits for the kernel's lock of rtnetlink, for which
// everybody on the machine queues, engines that make hundreds of namespaces among them. Requests that shared one socket would queue
// anew for each, one after the other, and behind them whoever only wants to see what links there are.
type pool[S interface{ Close() }] chan S

// openPool opens n of them, in the network namespace that the calling thread is in.
func openPool[S interface{ Close() }](n int, open func() (S, error)) (pool[S], error) {
	p := make(pool[S], n)
	for range n {
		s, err := open()
		if err != nil {
			return p, err
		}
		p <- s
	}
	return p, nil
}

// use does something with one of them, and waits for one to do it over.
func (p pool[S]) use(do func(S) error) error {
	s := <-p
	defer func() { p <- s }()
	return do(s)
}

// close gives them back. Nobody may be using one any more.
func (p pool[S]) close() {
	for len(p) > 0 {
		(<-p).Close()
	}
}

// openPools opens the pools.
func (k *Kernel) openPools() (err error) {
	if k.removers, err = openPool(removals, openHandle); err != nil {
		return err
	}
	if k.changers, err = openPool(changes, openHandle); err != nil {
		return err
	}
	k.sockets, err = openPool(changes, func() (*nl.SocketHandle, error) { return openSocket(unix.NETLINK_ROUTE) })
	return err
}

// openHandle opens a handle of rtnetlink.
func openHandle() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := h.SetSocketTimeout(answerBound); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}
