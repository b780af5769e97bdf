package hw_test

import (
	"slices"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// TestNamesOfUdev: udev may give a VF that returns to the host more names than it had before. Names that udev derives
// from those of the PF, and from the permanent MAC of the VF, stay; names that only look like them are removed.
func TestNamesOfUdev(t *testing.T) {
	t.Parallel()
	onBench(t, igb(), func(b *bench) {
		b.k.GiveAltName("ens1f0", "enp1s0f0np0")
		was, n, err := b.attach(privileged())
		b.must(err)
		b.must(b.k.MoveToNS("c", n.Name, "eth0"))
		udev := []string{"enp1s0f0v0", "ens1f0v0np1", "enx" + "020000000001"}
		for _, name := range append([]string{"ens1f0v1", "enp1s0f0np0v0", "ens1f0v0x", "enx020000000002"}, udev...) {
			b.k.InNS("c").GiveAltName("eth0", name)
		}
		b.k.KillNS("c", 0)
		b.must(b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was))
		l := b.k.Link("ens1f0v0")
		if got := slices.Sorted(slices.Values(l.AltNames)); !slices.Equal(got, slices.Sorted(slices.Values(udev))) {
			t.Errorf("alternative names of %+v are %q, want %q", l, got, udev)
		}
	})
}

// TestOldSnapshot: a record from before alternative names were recorded restores none.
func TestOldSnapshot(t *testing.T) {
	t.Parallel()
	onBench(t, igb(), func(b *bench) {
		b.k.GiveAltName("ens1f0v0", "mine")
		was, _, err := b.attach(privileged())
		b.must(err)
		was.AltNames = nil
		b.must(b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was))
		if l := b.k.Link("ens1f0v0"); !slices.Equal(l.AltNames, []string{"mine"}) {
			t.Errorf("alternative names are %q", l.AltNames)
		}
	})
}

// TestOnlyAltNames: a device that was down, without addresses, and returns with only another alternative name, is not
// intact.
func TestOnlyAltNames(t *testing.T) {
	t.Parallel()
	onBench(t, bare(), func(b *bench) {
		b.k.AddLink(hw.Link{Name: "nic"})
		before := b.k.String()
		n, err := b.h.Netdev("nic")
		b.must(err)
		was, err := b.h.SnapshotNetdev(n)
		b.must(err)
		_, err = b.h.PrepareNetdev(n.ID, "")
		b.must(err)
		b.must(b.k.MoveToNS("c", "nic", "eth0"))
		b.k.InNS("c").GiveAltName("eth0", "ens5f0")
		b.must(b.k.MoveHome("c", "eth0", "nic"))
		b.must(b.h.RestoreNetdev(n.ID, was))
		b.k.KillNS("c", 0)
		b.wantHost(before)
	})
}
