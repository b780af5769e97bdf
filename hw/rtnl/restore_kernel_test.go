//go:build kernel

package rtnl_test

import (
	"fmt"
	"testing"
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
