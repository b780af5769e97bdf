package rtnl

import (
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Sizes of the pools of sockets.
const (
	// removals is how many links can be removed at the same time. The kernel answers only when all references to the link are
	// gone (net/core/dev.c, netdev_run_todo: 25 ms, Linux 6.18), and many at once take it not much longer than one.
	removals = 16
	// changes is how many links can be read or made, and how many be changed, at the same time.
	changes = 16
)

// A pool is sockets of rtnetlink. A request waits for the kernel's RTNL lock, for which everything on the machine queues, engines
// that create hundreds of namespaces among them. Requests over one shared socket would queue again for each, one after the
// other, and delay those that only read links.
type pool chan *nl.SocketHandle

// openPool opens n sockets, in the network namespace of the calling thread.
func openPool(n int) (pool, error) {
	p := make(pool, n)
	for range n {
		s, err := openSocket(unix.NETLINK_ROUTE)
		if err != nil {
			return p, err
		}
		p <- s
	}
	return p, nil
}

// use calls do with one of the sockets, when one is free.
func (p pool) use(do func(*nl.SocketHandle) error) error {
	s := <-p
	defer func() { p <- s }()
	return do(s)
}

// close closes the sockets. None may be in use.
func (p pool) close() {
	for len(p) > 0 {
		(<-p).Close()
	}
}

// openPools opens the pools.
func (k *Kernel) openPools() (err error) {
	if k.removers, err = openPool(removals); err != nil {
		return err
	}
	if k.changers, err = openPool(changes); err != nil {
		return err
	}
	if k.sockets, err = openPool(changes); err != nil {
		return err
	}
	k.strict, err = openStrict()
	return err
}
