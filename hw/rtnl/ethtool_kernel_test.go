//go:build kernel

package rtnl_test

import (
	"slices"
	"testing"

	"github.com/safchain/ethtool"

	"github.com/mellanox/passthrough/hw"
)

// TestKernelEthtoolAgrees: another library reads over the ioctl what is read and set over netlink.
func TestKernelEthtoolAgrees(t *testing.T) {
	newWorld(t).Add(t, "veth", "veth0", "veth1")
	k := openKernel(t, sys, "")
	links, err := k.Links()
	if err != nil {
		t.Fatal(err)
	}
	index := links[slices.IndexFunc(links, func(l hw.Link) bool { return l.Name == "veth0" })].Index
	other, err := ethtool.NewEthtool()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	agree := func() {
		t.Helper()
		ours, err := k.Tuning(index)
		if err != nil {
			t.Fatal(err)
		}
		features, err := other.FeaturesWithState("veth0")
		if err != nil {
			t.Fatal(err)
		}
		for name, theirs := range features {
			// The ioctl calls fixed also what is always on or off.
			if f, ok := ours.Features[name]; !ok || f.Active != theirs.Active || f.Wanted != theirs.Requested {
				t.Errorf("%s is %+v over netlink (there: %v) and %+v over the ioctl", name, f, ok, theirs)
			}
		}
		c, err := other.GetChannels("veth0")
		if err != nil {
			t.Fatal(err)
		}
		if want := (hw.Queues{Combined: int(c.CombinedCount), Rx: int(c.RxCount), Tx: int(c.TxCount)}); ours.Queues != want {
			t.Errorf("queues are %+v over netlink and %+v over the ioctl", ours.Queues, want)
		}
		if want := (hw.Queues{Combined: int(c.MaxCombined), Rx: int(c.MaxRx), Tx: int(c.MaxTx)}); ours.MaxQueues != want {
			t.Errorf("there can be %+v over netlink and %+v over the ioctl", ours.MaxQueues, want)
		}
	}
	agree()
	before, err := other.Features("veth0")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"rx-gro", "tx-generic-segmentation"} {
		want := hw.Tuning{Features: map[string]hw.Feature{name: {Wanted: !before[name]}}}
		if err := k.SetTuning(index, hw.TuningFeatures, want); err != nil {
			t.Fatal(err)
		}
		if now, err := other.Features("veth0"); err != nil || now[name] == before[name] {
			t.Errorf("%s is %v over the ioctl after it was set to %v (%v)", name, now[name], !before[name], err)
		}
		agree()
	}
}
