//go:build kernel

package rtnl_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestWatchEnds: a message that cannot be read, as another process can send it, ends a watch, which shows at the channel. The links can be watched again.
func TestWatchEnds(t *testing.T) {
	k := openKernel(t, sys, "/proc/irq")
	changed, err := k.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	send(t, watchingPort(t))
	for open := true; open; {
		select {
		case _, open = <-changed:
		case <-time.After(5 * time.Second):
			t.Fatal("the channel is still open")
		}
	}
	if changed, err = k.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "watched"}, PeerName: "watched-peer"}); err != nil {
		t.Fatal(err)
	}
	select {
	case _, open := <-changed:
		if !open {
			t.Error("the new watch has ended")
		}
	case <-time.After(5 * time.Second):
		t.Error("no change was reported")
	}
}

// watchingPort returns the address of the rtnetlink socket that is subscribed to links.
func watchingPort(t *testing.T) uint32 {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/net/netlink")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(table), "\n")[1:] {
		var sk string
		var protocol int
		var port, groups uint32
		if _, err := fmt.Sscanf(line, "%s %d %d %x", &sk, &protocol, &port, &groups); err != nil {
			continue
		}
		if protocol == unix.NETLINK_ROUTE && groups == 1<<(unix.RTNLGRP_LINK-1) {
			return port
		}
	}
	t.Fatalf("no socket is subscribed to links:\n%s", table)
	return 0
}

// send sends less than a message to a netlink socket, for which a process needs CAP_NET_ADMIN.
func send(t *testing.T, port uint32) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	short := make([]byte, unix.NLMSG_HDRLEN/2)
	if err := unix.Sendto(fd, short, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: port}); err != nil {
		t.Fatal(err)
	}
}
