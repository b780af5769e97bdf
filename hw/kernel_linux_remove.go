package hw

import (
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// removals is how many links can be on their way out at the same time.
const removals = 16

// removers are handles that remove links, each with a socket of its own. The kernel answers only once nobody can be looking
// at the link any more (net/core/dev.c, netdev_run_todo: 25 ms, Linux 6.18). Many links at once take it not much longer than one,
// and whoever only wants to see what links there are need not wait for any of them.
type removers chan *netlink.Handle

// openRemovers opens their sockets, in the network namespace that the calling thread is in.
func openRemovers() (removers, error) {
	r := make(removers, removals)
	for range removals {
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return r, err
		}
		r <- h
		if err := h.SetSocketTimeout(answerBound); err != nil {
			return r, err
		}
	}
	return r, nil
}

// remove removes a link, and waits for a socket to do it over.
func (r removers) remove(index int) error {
	h := <-r
	defer func() { r <- h }()
	return h.LinkDel(at(index))
}

// close gives back the sockets. Nothing may be on its way out any more.
func (r removers) close() {
	for len(r) > 0 {
		(<-r).Close()
	}
}
