package ipamdrv_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/mellanox/passthrough/ipamdrv"
)

// segment is the other hosts of a segment, by their addresses. A probe without an answer takes 250 ms.
type segment struct {
	machines map[string]string
	asked    int
}

func (s *segment) ask(ctx context.Context, device string, a netip.Addr) (string, error) {
	s.asked++
	if device != "lan0" {
		return "", errors.New(device + ": no such device")
	}
	took := time.NewTimer(20 * time.Millisecond)
	if s.machines[a.String()] == "" {
		took.Reset(250 * time.Millisecond)
	}
	select {
	case <-took.C:
	case <-ctx.Done():
	}
	return s.machines[a.String()], nil
}

// withSegment replaces the driver by one that probes a segment.
func (b *fixture) withSegment(machines map[string]string) *segment {
	b.Helper()
	s := &segment{machines: machines}
	var err error
	if b.d, err = ipamdrv.New(ipamdrv.Config{Store: b.store, Probe: s.ask}); err != nil {
		b.Fatal(err)
	}
	return s
}

// TestProbe: an address that another host has is skipped for a while.
func TestProbe(t *testing.T) {
	withFixture(t, func(b *fixture) {
		s := b.withSegment(map[string]string{"10.99.0.2": "02:00:00:00:00:02", "10.99.0.3": "02:00:00:00:00:03"})
		n := b.poolWith("10.99.0.0/29", "probe=arp@lan0", "sticky=1h")
		start := time.Now()
		b.gives(n, "", by("web"), "10.99.0.4/29")
		if took := time.Since(start); s.asked != 3 || took > 300*time.Millisecond {
			t.Errorf("asked %d times in %v", s.asked, took)
		}
		b.gives(n, "10.99.0.3", nil, "10.99.0.3/29") // an --aux-address may be another host's
		b.refuses(n, "10.99.0.2", by("db"), ipamdrv.ErrInUse,
			"pool 10.99.0.0/29: request address 10.99.0.2: 02:00:00:00:00:02 has it, says option probe (lan0)")
		b.gives(n, "", nil, "10.99.0.5/29")
		b.gives(n, "", nil, "10.99.0.6/29")
		b.refuses(n, "", nil, ipamdrv.ErrFull, "pool 10.99.0.0/29: request address: all 5 addresses are taken, "+
			"1 of them outside, says option probe; remove a container, or create the network with a larger --subnet; "+
			"10.99.0.1 is kept for a router, a container can have it with --ip")
		delete(s.machines, "10.99.0.2")
		wait(5 * time.Minute)
		b.gives(n, "", nil, "10.99.0.2/29")

		b.release(n, "10.99.0.4") // another host took the address meanwhile
		b.release(n, "10.99.0.6")
		s.machines["10.99.0.4"] = "02:00:00:00:00:04"
		b.gives(n, "", by("web"), "10.99.0.6/29")
		b.d = newDriver(t, b.store) // conflicts are not in the ledger, so that the cache differs from it until then
	})
}

// TestProbeGivesUp: a request that finds conflicts for too long fails, and the next one continues behind them.
func TestProbeGivesUp(t *testing.T) {
	withFixture(t, func(b *fixture) {
		s := b.withSegment(map[string]string{})
		for a := netip.MustParseAddr("10.99.0.2"); a.String() != "10.99.0.30"; a = a.Next() {
			s.machines[a.String()] = "02:00:00:00:00:01"
		}
		n := b.poolWith("10.99.0.0/24", "probe=arp@lan0")
		b.refuses(n, "", nil, ipamdrv.ErrInUse, "pool 10.99.0.0/24: request address: others have the 15 addresses that were "+
			"tried, says option probe (lan0); try again, or exclude them")
		b.gives(n, "", nil, "10.99.0.30/24")
		bad := b.poolWith("10.99.0.0/24", "probe=arp@lan1")
		b.refuses(bad, "", nil, nil, "pool 10.99.0.0/24: request address: option probe: lan1: no such device")
		b.gives(bad, "10.99.0.1", asGateway, "10.99.0.1/24")
		b.d = newDriver(t, b.store)
	})
}
