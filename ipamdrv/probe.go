package ipamdrv

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"go.uber.org/zap"
)

// Prober asks the segment that a device is on who has an address: the MAC that answers, "" for nobody.
type Prober func(ctx context.Context, device string, a netip.Addr) (mac string, err error)

const (
	// probeTime is how long one request may ask around.
	probeTime = 300 * time.Millisecond
	// strangerTime is how long an address that answered is not chosen.
	strangerTime = 5 * time.Minute
)

// device is what the name of a network device looks like (net/core/dev.c, dev_valid_name; IFNAMSIZ is 16).
var device = regexp.MustCompile(`^[^\s/:@]{1,15}$`)

// parseProbe reads the option: the device to ask on, "" for none.
func parseProbe(v string) (string, bool) {
	if v == "off" {
		return "", true
	}
	dev, ok := strings.CutPrefix(v, "arp@")
	return dev, ok && device.MatchString(dev) && dev != "." && dev != ".."
}

// prober asks for one request, as long as the time for that lasts.
type prober struct {
	ask    Prober
	device string
	log    *zap.Logger
	until  time.Time
}

// prober is what a request to a pool with this config asks with.
func (d *Driver) prober(c config) prober {
	return prober{ask: d.probe, device: c.probe, log: d.log, until: time.Now().Add(probeTime)}
}

// holder is who has a, "" for nobody and when nobody is to be asked.
func (p prober) holder(ctx context.Context, a netip.Addr) (string, error) {
	if p.device == "" {
		return "", nil
	}
	if p.ask == nil {
		return "", refuse(ErrInvalid, "option probe: not possible here")
	}
	bound, cancel := context.WithDeadline(ctx, p.until)
	defer cancel()
	mac, err := p.ask(bound, p.device, a)
	switch {
	case ctx.Err() != nil:
		return "", ctx.Err()
	case err != nil:
		return "", fmt.Errorf("option probe: %w", err)
	case mac != "":
		p.log.Warn("address is in use outside; it is passed over", zap.Stringer("address", a), zap.String("device", p.device),
			zap.String("mac", mac))
	}
	return mac, nil
}

// inTime says whether there is time to ask for another address.
func (p prober) inTime() bool { return time.Now().Before(p.until) }
