package pool

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"go.uber.org/zap"
)

// Prober asks on the segment of a device which host has an address. It returns the MAC that answers, "" for none.
type Prober func(ctx context.Context, device string, a netip.Addr) (mac string, err error)

const (
	// probeTime bounds the probes of one request.
	probeTime = 300 * time.Millisecond
	// conflictTime is how long an address that was answered for is not allocated.
	conflictTime = 5 * time.Minute
)

// A Probe probes the addresses of one request, as long as its time lasts.
type Probe struct {
	Device string // "" for no probes
	ask    Prober // nil if this is not possible
	log    *zap.Logger
	until  time.Time
}

// NewProbe returns the probe for a request to a pool whose option probe names device.
func NewProbe(ask Prober, device string, log *zap.Logger) Probe {
	p := Probe{Device: device, ask: ask, log: log}
	if device != "" {
		p.until = time.Now().Add(probeTime)
	}
	return p
}

// holder returns the MAC of the host that answers for a. It returns "" if none does, and without asking if there is no device.
func (p Probe) holder(ctx context.Context, a netip.Addr) (string, error) {
	if p.Device == "" {
		return "", nil
	}
	if p.ask == nil {
		return "", Refuse(ErrInvalid, "option probe: not possible here")
	}
	bound, cancel := context.WithDeadline(ctx, p.until)
	defer cancel()
	mac, err := p.ask(bound, p.Device, a)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("option probe: %w", err)
	case mac != "":
		p.log.Warn("address is in use outside; it is skipped", zap.Stringer("address", a), zap.String("device", p.Device),
			zap.String("mac", mac))
	}
	return mac, nil
}

// inTime returns true if there is time to probe another address.
func (p Probe) inTime() bool { return time.Now().Before(p.until) }
