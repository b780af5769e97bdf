//go:build kernel

package rtnl_test

import (
	"testing"

	"golang.org/x/sys/unix"
)

// fakeIB creates a link with the link type of InfiniBand: a tun device with another type. It has no address of 20
// octets, and nothing can be created on it (Linux 6.12 crashes over an IPoIB child).
func fakeIB(t *testing.T, name string) {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal("/dev/net/tun:", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal("make a tun device:", err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETLINK, unix.ARPHRD_INFINIBAND); err != nil {
		t.Fatal("set its link type:", err)
	}
}

// TestInfiniBand: a device of another link type, without an Ethernet address, is attached as a whole and restored.
func TestInfiniBand(t *testing.T) {
	w := newWorld(t)
	fakeIB(t, "ib0")
	h := openHost(t)
	n, err := h.Netdev("ib0")
	if err != nil || n.Type != "infiniband" || n.ID.IsPCI() || h.CheckMovable(n) != nil {
		t.Fatalf("it is %+v, %v", n, err)
	}
	was, err := h.SnapshotNetdev(n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.PrepareNetdev(n.ID, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.MoveToNS("c1", "ib0", "eth0"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Find(n.ID); err == nil {
		t.Error("it is in the host still")
	}
	if err := w.MoveHome("c1", "eth0", "other"); err != nil {
		t.Fatal(err)
	}
	if err := h.RestoreNetdev(n.ID, was); err != nil {
		t.Error(err)
	}
	home, err := h.Netdev("ib0")
	if err != nil || home.Alias != "" || home.Up || home.MTU != n.MTU {
		t.Errorf("it came back as %+v, %v; was %+v", home, err, n)
	}
}
