package netdrv

import (
	"context"
	"errors"
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
)

// roomToPrepare is what is left of a call's time for making a device ready, when its driver has been waited for.
const roomToPrepare = 4 * time.Second

// awaitDrivers waits, on a machine that was started a short time ago, until the drivers of a network's devices have made their
// netdevs: the engine starts its containers once, early, and does not try those again that fail. What has not come until there
// is only just time to make a device ready is the affair of whoever wants it then.
func (d *Driver) awaitDrivers(ctx context.Context, n ledger.Network) error {
	if !d.host.RecentlyBooted() {
		return nil
	}
	loans, err := d.allocs.List(ctx)
	if err != nil {
		return err
	}
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-roomToPrepare))
		defer cancel()
	}
	for _, dev := range n.Devices {
		if !dev.ID.IsPCI() || lentNow(loans, dev.ID) {
			continue
		}
		if err := d.host.WaitNetdev(ctx, dev.ID); errors.Is(err, hw.ErrAway) {
			d.log.Warn("device has no driver yet", zap.String("device", string(dev.ID)), zap.String("network", ledger.ShortID(n.ID)))
		}
	}
	return nil
}

// lentNow tells whether a device is in a container, or may be.
func lentNow(loans alloc.Set, id hw.ID) bool {
	l := loans[id]
	return l != nil && !l.FromEarlierBoot()
}
