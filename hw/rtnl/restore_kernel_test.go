//go:build kernel

package rtnl_test

import (
	"fmt"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// TestRestoreOnKernel: what a container with NET_ADMIN does to a whole device is undone: flags, alternative names, and
// all else that stays with the device.
func TestRestoreOnKernel(t *testing.T) {
	w := newWorld(t)
	w.Add(t, "veth", "ct0", "ct1")
	for _, alt := range []string{"kept", "lost"} {
		w.AltName(t, "ct0", alt)
	}
	h := openHost(t)
	n, err := h.Netdev("ct0")
	if err != nil {
		t.Fatal(err)
	}
	was, err := h.SnapshotNetdev(n)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.PrepareNetdev(n.ID, ""); err != nil {
		t.Fatal(err)
	}
	if err := w.MoveToNS("c1", "ct0", "eth0"); err != nil {
		t.Fatal(err)
	}
	in := w.spaces["c1"].NL
	l, err := in.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	for what, do := range map[string]func() error{
		"arp off":       func() error { return in.LinkSetARPOff(l) },
		"multicast off": func() error { return in.LinkSetMulticastOff(l) },
		"allmulti":      func() error { return in.LinkSetAllmulticastOn(l) },
		"mtu":           func() error { return in.LinkSetMTU(l, 1300) },
		"squat":         func() error { return in.LinkAddAltName(l, "ens5f0") },
		"drop a name":   func() error { return in.LinkDelAltName(l, "lost") },
	} {
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	if err := w.MoveHome("c1", "eth0", "ct0"); err != nil {
		t.Fatal(err)
	}
	if err := h.RestoreNetdev(n.ID, was); err != nil {
		t.Fatal(err)
	}
	home, err := h.Netdev("ct0")
	home.Index, home.Peer = n.Index, n.Peer // they change on the way
	if err != nil || fmt.Sprintf("%+v", home) != fmt.Sprintf("%+v", n) {
		t.Errorf("it came back as\n%+v, %v; was\n%+v", home, err, n)
	}
}

// TestCarrierUps: how often a device has had carrier stays with it when it goes to another namespace and comes back.
func TestCarrierUps(t *testing.T) {
	w := newWorld(t)
	w.Add(t, "veth", "ct0", "ct1")
	h := openHost(t)
	ups := func() int {
		t.Helper()
		n, err := h.Netdev("ct0")
		if err != nil {
			t.Fatal(err)
		}
		ups, known := h.CarrierUps(n)
		if !known {
			t.Fatal("the kernel does not tell")
		}
		return ups
	}
	before := ups()
	if err := w.MoveToNS("c1", "ct0", "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := w.MoveHome("c1", "eth0", "ct0"); err != nil {
		t.Fatal(err)
	}
	if got := ups(); got != before {
		t.Errorf("it has had carrier %d times on a way during which it was never up, and %d times before", got, before)
	}
	peer, err := h.Netdev("ct1")
	if err != nil {
		t.Fatal(err)
	}
	k := openKernel(t, sys, "/proc/irq")
	if err := k.SetLink(peer.Index, hw.LinkUp, hw.Link{Up: true}); err != nil {
		t.Fatal(err)
	}
	if err := w.MoveToNS("c1", "ct0", "eth0"); err != nil {
		t.Fatal(err)
	}
	in := w.spaces["c1"].NL
	l, err := in.LinkByName("eth0")
	if err == nil {
		err = in.LinkSetUp(l)
	}
	if err == nil {
		err = in.LinkSetDown(l)
	}
	if err == nil {
		err = w.MoveHome("c1", "eth0", "ct0")
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := ups(); got != before+1 {
		t.Errorf("it has had carrier %d times, want %d", got, before+1)
	}
}
