package hw_test

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// errKilled is the error of every call after the process was killed.
var errKilled = errors.New("killed")

// A virtualLink is a link that is created and removed: the specs as in a ledger.
type virtualLink struct {
	make   func(h *hw.Host) (hw.Netdev, error)
	remove func(h *hw.Host) error
}

// parents are devices to create links on: two NICs, a bond of the host, and one with IP over InfiniBand.
func parents(t *testing.T) (*hwtest.Kernel, *hw.Host) {
	t.Helper()
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens1", PCI: "0000:01:00.0", Up: true})
	k.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0", Up: true})
	k.AddPF(hwtest.PF{Name: "ens3", PCI: "0000:03:00.0"})
	k.AddPF(hwtest.PF{Name: "ens4", PCI: "0000:04:00.0"})
	bond := k.AddLink(hw.Link{Name: "bond0", Kind: hw.Bond, MTU: 9000})
	for _, port := range []string{"ens3", "ens4"} {
		if err := k.SetLink(k.Link(port).Index, hw.LinkMaster, hw.Link{Master: bond}); err != nil {
			t.Fatal(err)
		}
	}
	k.AddLink(hw.Link{Name: "ib0", Type: "infiniband", MTU: 2044, Up: true,
		MAC: "80:00:02:08:fe:80:00:00:00:00:00:00:00:02:c9:03:00:a1:b2:c3"})
	return k, open(t, k)
}

// virtualLinks are all kinds of link that are created.
func virtualLinks(t *testing.T, h *hw.Host) map[string]virtualLink {
	t.Helper()
	id := func(name string) hw.ID {
		n, err := h.Netdev(name)
		if err != nil {
			t.Fatal(err)
		}
		return n.ID
	}
	child := func(s hw.ChildSpec) virtualLink {
		s.Key = "a"
		return virtualLink{func(h *hw.Host) (hw.Netdev, error) { return h.CreateChild(t.Context(), s) },
			func(h *hw.Host) error { return h.RemoveChild(hw.MadeID("a"), hw.Macvlan) }}
	}
	bond := hw.BondSpec{Key: "b", Mode: "active-backup", MAC: "02:00:00:00:00:42", Ports: []hw.ID{id("ens1"), id("ens2")}}
	bond0 := id("bond0")
	was := must(h.SnapshotNetdev(must(h.Find(bond0))))
	ports := map[hw.ID]hw.Snapshot{}
	for _, p := range bond.Ports {
		ports[p] = must(h.SnapshotNetdev(must(h.Find(p))))
	}
	return map[string]virtualLink{
		"macvlan": child(hw.ChildSpec{Parent: id("ens1"), Kind: hw.Macvlan, Mode: "bridge", MAC: "02:00:00:00:00:42"}),
		"ipvlan":  child(hw.ChildSpec{Parent: id("ens1"), Kind: hw.IPVlan, Mode: "l2"}),
		"ipoib":   child(hw.ChildSpec{Parent: id("ib0"), Kind: hw.IPoIB, Mode: "connected", PKey: 0x8001}),
		"macvlan in place of a bond": {
			func(h *hw.Host) (hw.Netdev, error) {
				if _, err := h.PrepareNetdev(bond0, ""); err != nil {
					return hw.Netdev{}, err
				}
				return h.CreateChild(t.Context(), hw.ChildSpec{Key: "a", Parent: bond0, Kind: hw.Macvlan, Mode: "passthru",
					MAC: "02:00:00:00:00:42"})
			},
			func(h *hw.Host) error {
				return errors.Join(h.RemoveChild(hw.MadeID("a"), hw.Macvlan), h.RestoreParent(bond0, was))
			},
		},
		"bond with a macvlan in its place": {
			func(h *hw.Host) (hw.Netdev, error) {
				if _, err := h.CreateBond(bond); err != nil {
					return hw.Netdev{}, err
				}
				return h.CreateChild(t.Context(), hw.ChildSpec{Key: "a", Parent: hw.MadeID("b"), Kind: hw.Macvlan, Mode: "passthru"})
			},
			func(h *hw.Host) error {
				errs := []error{h.RemoveChild(hw.MadeID("a"), hw.Macvlan), h.RemoveBond(hw.MadeID("b"))}
				for p, was := range ports {
					errs = append(errs, h.RestoreNetdev(p, was))
				}
				return errors.Join(errs...)
			},
		},
	}
}

// must is for calls that cannot fail on the fake kernel.
func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestCreateAndRemove: a link is created once, is found whatever its name and namespace, and leaves no trace.
func TestCreateAndRemove(t *testing.T) {
	t.Parallel()
	_, names := parents(t)
	for name := range virtualLinks(t, names) {
		t.Run(name, func(t *testing.T) {
			k, h := parents(t)
			before, m := k.String(), virtualLinks(t, h)[name]
			n, err := m.make(h)
			if err != nil {
				t.Fatal(err)
			}
			made := k.String()
			again, err := m.make(h)
			if err != nil || again.Index != n.Index || k.String() != made {
				t.Errorf("made again: %+v, %v\n%s\nbut was\n%s", again, err, k, made)
			}
			if n.ID != hw.MadeID("a") || n.ID.IsPCI() || n.ID.PCI() != "" {
				t.Errorf("its identity is %s", n.ID)
			}
			if err := errors.Join(k.MoveToNS("c1", n.Name, "eth0"), k.MoveHome("c1", "eth0", "other")); err != nil {
				t.Fatal(err)
			}
			if home, err := h.Find(n.ID); err != nil || home.Name != "other" {
				t.Errorf("came home as %+v, %v", home, err)
			}
			k.KillNS("c1", 0)
			for range 2 {
				if err := m.remove(h); err != nil {
					t.Error(err)
				}
			}
			if after := k.String(); after != before {
				t.Errorf("the machine is\n%s\nbut was\n%s", after, before)
			}
		})
	}
}

// TestCreateInterrupted: a process that dies at any step leaves a link that can be completed, or removed without a
// trace; so does the end of the namespace that the child is in.
func TestCreateInterrupted(t *testing.T) {
	t.Parallel()
	_, names := parents(t)
	for name := range virtualLinks(t, names) {
		for at, again := 0, true; again; at++ {
			t.Run(fmt.Sprintf("%s/%d", name, at), func(t *testing.T) {
				k, h := parents(t)
				before, m := k.String(), virtualLinks(t, h)[name]
				k.FailFrom(at, errKilled)
				_, err := m.make(h)
				again = err != nil
				k.OnCall(nil)
				if err := m.remove(h); err != nil {
					t.Error(err)
				}
				if after := k.String(); after != before {
					t.Errorf("the machine is\n%s\nbut was\n%s", after, before)
				}
				k.FailFrom(at, errKilled)
				_, err = m.make(h)
				again = again && err != nil
				k.OnCall(nil)
				n, err := m.make(h)
				if err != nil {
					t.Fatal(err)
				}
				if err := k.MoveToNS("c1", n.Name, "eth0"); err != nil {
					t.Fatal(err)
				}
				k.KillNS("c1", 0)
				if err := m.remove(h); err != nil {
					t.Error(err)
				}
				if after := k.String(); after != before {
					t.Errorf("the machine is\n%s\nbut was\n%s", after, before)
				}
			})
		}
	}
}

// TestCreateFails: the error says why a child cannot be created.
func TestCreateFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, notMade)
}

func notMade(t *testing.T) {
	k, h := parents(t)
	spec := func(parent, kind, mode string) hw.ChildSpec {
		return hw.ChildSpec{Key: parent + kind + mode, Parent: must(h.Netdev(parent)).ID, Kind: kind, Mode: mode}
	}
	_ = must(h.CreateChild(t.Context(), spec("ens2", hw.Macvlan, "bridge")))
	k.NoKinds = []string{hw.IPVlan, hw.Bond}
	before := k.String()
	for _, c := range []struct {
		spec hw.ChildSpec
		want string
	}{
		{spec("ens1", hw.IPVlan, "l2"), "ens1: make a child (ipvlan, l2): not supported by the driver (operation not " +
			"supported); load its module: modprobe ipvlan"},
		{spec("ens3", hw.Macvlan, "bridge"), "ens3: make a child (macvlan, bridge): device busy (device or resource " +
			"busy); it is a port of a bond or bridge, or has children of another kind"},
		{spec("ens2", hw.Macvlan, "passthru"), "ens2: make a child (macvlan, passthru): invalid " +
			"argument; a macvlan in mode passthru is the only one on its device, and there is another"},
	} {
		_, err := h.CreateChild(t.Context(), c.spec)
		wantError(t, err, c.want)
	}
	_, err := h.CreateBond(hw.BondSpec{Key: "b", Mode: "802.3ad"})
	if err == nil || !errors.Is(err, hw.ErrUnsupported) {
		t.Errorf("a bond without its module: %v", err)
	}
	if after := k.String(); after != before {
		t.Errorf("the machine is\n%s\nbut was\n%s", after, before)
	}
}

// TestCreateWhenFree: a macvlan in mode passthru waits for the one before it, whose namespace is ending.
func TestCreateWhenFree(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		k, h := parents(t)
		before := k.String()
		for _, key := range []string{"a", "b"} {
			n, err := h.CreateChild(t.Context(), hw.ChildSpec{Key: key, Parent: "0000:01:00.0", Kind: hw.Macvlan, Mode: "passthru"})
			if err != nil {
				t.Fatal(err)
			}
			if err := k.MoveToNS(key, n.Name, "eth0"); err != nil {
				t.Fatal(err)
			}
			k.KillNS(key, time.Second)
		}
		time.Sleep(time.Minute)
		if after := k.String(); after != before {
			t.Errorf("the machine is\n%s\nbut was\n%s", after, before)
		}
	})
}

// TestForgedAlias: a container can give its device any alias; hardware is never deleted because of it.
func TestForgedAlias(t *testing.T) {
	t.Parallel()
	k, h := parents(t)
	alias := "lent by passthrough: made-a"
	if err := k.SetLink(k.Link("ens1").Index, hw.LinkAlias, hw.Link{Alias: alias}); err != nil {
		t.Fatal(err)
	}
	if err := h.RemoveChild(hw.MadeID("a"), hw.Macvlan); err != nil {
		t.Error(err)
	}
	if _, err := h.Netdev("ens1"); err != nil {
		t.Error(err)
	}
}

// TestForgedAliasOfAnother: a container with a VF cannot have the VF taken for another device, such as the veth of
// another container: a PCI device is found by its address.
func TestForgedAliasOfAnother(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(igb())
	k.AddVeth("tap0", "tap1")
	h := open(t, k)
	tap, err := h.Netdev("tap0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.PrepareNetdev(tap.ID, ""); err != nil {
		t.Fatal(err)
	}
	alias := k.Link("tap0").Alias
	if err := k.MoveToNS("web", "tap0", "eth0"); err != nil {
		t.Fatal(err)
	}
	if err := k.SetLink(k.Link("ens1f0v0").Index, hw.LinkAlias, hw.Link{Alias: alias}); err != nil {
		t.Fatal(err)
	}
	if n, err := h.Find(tap.ID); !errors.Is(err, hw.ErrAway) {
		t.Errorf("%s is found as %s, %v; it is in a container", tap.ID, n.Name, err)
	}
	if err := k.MoveHome("web", "eth0", "dev7"); err != nil {
		t.Fatal(err)
	}
	if n, err := h.Find(tap.ID); err != nil || n.Name != "dev7" {
		t.Errorf("%s is found as %s, %v", tap.ID, n.Name, err)
	}
}
