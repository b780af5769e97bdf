package hw_test

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// TestProbeAddress: which MAC has an address, how long it takes to find that none has, and what cannot be asked.
func TestProbeAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := hwtest.New(t)
		k.AddVeth("lan0", "far")
		k.AddLink(hw.Link{Name: "off"})
		k.AddLink(hw.Link{Name: "loose", Up: true})
		h := open(t, k)
		wantError(t, probe(t, h, "off", "192.0.2.5", ""), "off: ask who has 192.0.2.5: it is down: device not ready")
		wantError(t, probe(t, h, "nosuch", "192.0.2.5", ""), "nosuch: ask who has 192.0.2.5: no such device")
		up := true
		if err := k.SetLink(k.Link("lan0").Index, hw.LinkUp, hw.Link{Up: up}); err != nil {
			t.Fatal(err)
		}
		wantError(t, probe(t, h, "lan0", "192.0.2.5", ""), "lan0: ask who has 192.0.2.5: it has no carrier: device not ready")
		mac := k.Link("far").MAC
		if err := k.MoveToNS("c1", "far", "eth0"); err != nil {
			t.Fatal(err)
		}
		k.InNS("c1").AddAddr("eth0", "192.0.2.5/24")
		for range 2 {
			start := time.Now()
			if err := probe(t, h, "lan0", "192.0.2.5", mac); err != nil || time.Since(start) > 20*time.Millisecond {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
			start = time.Now()
			if err := probe(t, h, "lan0", "192.0.2.6", ""); err != nil || time.Since(start) > 300*time.Millisecond {
				t.Errorf("after %v: %v", time.Since(start), err)
			}
		}
	})
}

// probe asks for the MAC of an address and compares it.
func probe(t *testing.T, h *hw.Host, device, addr string, want hw.MAC) error {
	t.Helper()
	got, err := h.ProbeAddress(t.Context(), device, netip.MustParseAddr(addr))
	if got != want {
		t.Errorf("%s on %s: %q has it, want %q", addr, device, got, want)
	}
	return err
}
