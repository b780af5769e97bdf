package netdrv

import (
	"context"
	"errors"
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
)

const (
	// waitForHome bounds the wait of DeleteEndpoint for the kernel to bring the device home. It is there already unless
	// the engine was killed; the reconciler waits for the rest.
	waitForHome = 3 * time.Second
	// undoBound bounds what is done after the caller's own time is up.
	undoBound = 8 * time.Second
	// pollEvery is how often a call looks again at a device that it waits for.
	pollEvery = 50 * time.Millisecond
	// insist is for how long a device that cannot be put back is tried again at short intervals.
	insist = 10 * time.Second
)

// freeParts puts back what a bond was made of, once that is gone; otherwise the reconciler does when it is.
func (d *Driver) freeParts(ctx context.Context, whole hw.ID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	loans, err := d.allocs.List(ctx)
	for id, l := range loans {
		if l.PartOf != whole {
			continue
		}
		unlock, ok := d.locks.TryLock(alloc.Key(id))
		if !ok { // the reconciler is at it
			continue
		}
		_, settleErr := d.reconciler.reconcile(ctx, id)
		err = errors.Join(err, settleErr)
		unlock()
	}
	if err != nil {
		d.log.Warn("device not put back yet", zap.String("part_of", string(whole)), zap.NamedError("err", err))
		d.reconciler.nudge()
	}
}

// bringHome waits for a device to come home and puts it back, or leaves it to the reconciler. The caller holds the
// allocation's lock, and has done so since before the allocation was freeing: nobody else can have had the device since.
func (d *Driver) bringHome(ctx context.Context, l *alloc.Allocation, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	var err error
	_ = retry.Poll(ctx, pollEvery, patience, func() (bool, error) { // err says why the device is not back
		err = d.putBack(ctx, l)
		return !errors.Is(err, hw.ErrAway), nil
	})
	if err != nil {
		d.log.Warn("device not put back yet", append(l.Fields(), zap.NamedError("err", err))...)
		d.reconciler.nudge()
	}
}

// putBack puts a device back and ends its allocation. A device that is in the host and cannot be put back is tried again, for a
// while: others may be at it, such as udev; then it is quarantined. The error matches hw.ErrAway while it has not come
// home. After a reboot there is nothing to put back: names and settings are what the host's configuration has made of them
// since. The caller holds the allocation's lock.
func (d *Driver) putBack(ctx context.Context, l *alloc.Allocation) error {
	if l.FromEarlierBoot() {
		return d.allocs.End(ctx, l)
	}
	m, err := d.modes.ByName(l.Mode)
	if err != nil { // the ledger is of a newer version; it is left alone
		return err
	}
	err = m.Release(ctx, l)
	switch {
	case err == nil:
		return d.allocs.End(ctx, l)
	case errors.Is(err, hw.ErrAway), l.State == alloc.Freeing && time.Since(l.Since) < insist:
		return err
	}
	return d.allocs.Quarantine(ctx, l, err)
}
