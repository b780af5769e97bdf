package hw_test

import (
	"strings"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestAltnameInBetween: a device returns as eth0, and udev adds its old name as an alternative one just before it is
// renamed.
func TestAltnameInBetween(t *testing.T) {
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens1", PCI: "0000:01:00.0", Up: true})
	h, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	n, err := h.Netdev("ens1")
	if err != nil {
		t.Fatal(err)
	}
	snap, err := h.SnapshotNetdev(n)
	if err != nil {
		t.Fatal(err)
	}
	before := k.String()
	if err := k.MoveToNS("c", "ens1", "eth0"); err != nil {
		t.Fatal(err)
	}
	k.KillNS("c", 0)
	once := false
	k.OnCall(func(_ int, what string) error {
		if !once && strings.HasSuffix(what, "set name ens1") {
			once = true
			k.GiveAltName("eth0", "ens1")
		}
		return nil
	})
	if err := h.RestoreNetdev(n.ID, snap); err != nil || !once {
		t.Errorf("restore: %v; altname in between: %v", err, once)
	}
	if after := k.String(); after != before {
		t.Errorf("the host is\n%s\nbut was\n%s", after, before)
	}
}

// TestIfindexOfAnother: a device that another link has taken the ifindex of, since it was found, is handed over; the other keeps its name.
func TestIfindexOfAnother(t *testing.T) {
	t.Parallel()
	onBench(t, bare(), func(b *bench) {
		b.k.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0"})
		b.k.AddLink(hw.Link{Name: "nic", MAC: "02:00:00:00:00:07"})
		b.k.AddLink(hw.Link{Name: "other", MAC: "02:00:00:00:00:08"})
		for _, name := range []string{"ens2", "nic"} {
			found, err := b.h.Netdev(name)
			b.must(err)
			was, err := b.h.SnapshotNetdev(found)
			b.must(err)
			found.Index = b.k.Link("other").Index
			handed, err := b.h.HandOver(found, was)
			b.must(err)
			if handed.ID != found.ID || b.k.Link("other").Name != "other" {
				t.Errorf("%s: handed over is %+v\n%s", name, handed, b.k)
			}
		}
	})
}

// slowRename is a kernel on which udev renames a link right after it was read.
type slowRename struct {
	*hwtest.Kernel
	read int // how often
}

func (k *slowRename) LinkNamed(name string) (hw.Link, error) {
	l, err := k.Kernel.LinkNamed(name)
	if name == "eth0" || name == "ens1v0" {
		k.read++
	}
	switch k.read {
	case 2:
		k.BeginRename("eth0", "ens1v0")
	case 5:
		k.EndRename("ens1v0")
	}
	return l, err
}

// TestRenamedInBetween: a new VF's old name looks final while the kernel is renaming it. It is not the name to restore.
func TestRenamedInBetween(t *testing.T) {
	k := &slowRename{Kernel: hwtest.New(t)}
	k.NoUdev = true
	k.AddPF(hwtest.PF{Name: "ens1", PCI: "0000:01:00.0", Up: true, TotalVFs: 1})
	h, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "boot"})
	if err != nil {
		t.Fatal(err)
	}
	pf, err := h.PF("ens1")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.EnableVFs(t.Context(), pf, 1); err != nil {
		t.Fatal(err)
	}
	vfs, err := h.VFs(pf)
	if err != nil {
		t.Fatal(err)
	}
	n, err := h.Bind(t.Context(), pf, vfs[0])
	if err != nil || n.Name != "ens1v0" {
		t.Errorf("its name is %s, %v; want ens1v0", n.Name, err)
	}
	if k.read < 5 {
		t.Errorf("it was read %d times, too few for the name to change", k.read)
	}
}
