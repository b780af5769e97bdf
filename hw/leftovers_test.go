package hw_test

import (
	"errors"
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestCleanAfterUpgrade: a snapshot of a release that did not look at what ethtool and bpf set does not tell what was there: all of it stays.
// One that found nothing does.
func TestCleanAfterUpgrade(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0"})
	h := open(t, k)
	n, err := h.Netdev("ens2")
	if err != nil {
		t.Fatal(err)
	}
	now, err := h.SnapshotNetdev(n)
	old := now
	if err = errors.Join(err, h.SnapshotUses(n, &now)); err != nil {
		t.Fatal(err)
	}
	k.InNS("").Control("ens2", hw.Control{Kind: hw.ControlFlowRule, Name: "3", Body: []byte{1}})
	k.InNS("").Tune("ens2", hw.TuningRings, hw.Tuning{Rings: hw.Rings{Rx: 512}})
	for _, c := range []struct {
		was   hw.Snapshot
		rules int
		rx    int
	}{{old, 1, 512}, {now, 0, 256}} {
		if err := h.CleanNetdev(n.ID, c.was); err != nil {
			t.Fatal(err)
		}
		controls, err := k.Controls(n.Index)
		if rings := k.InNS("").Tuning("ens2").Rings; err != nil || len(controls) != c.rules || rings.Rx != c.rx {
			t.Errorf("%v, %v, rings %v; want %d rules and a ring of %d", controls, err, rings, c.rules, c.rx)
		}
	}
}
