// Package rtnl is the running kernel: [Open] returns a [Kernel], which implements [hw.Kernel] with rtnetlink, ethtool and
// devlink over generic netlink, sysfs and /proc. It is the only package that imports a netlink library.
//
// One file covers one subject: link.go and newlink.go, vf.go, addr.go, route.go, neighbour.go, bridge.go, qdisc.go,
// ethtool.go, devlink.go, irq.go, sysfs.go, sessions.go (TCP connections) and watch.go. entry.go has what is configured on a
// link as messages that can be sent again. pool.go and listing.go let many callers read and change links at the same time.
//
// It translates and decides nothing: what an errno means is in [hw.FromErrno], what is set and in which order in package
// hw.
package rtnl
