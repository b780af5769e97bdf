package netdrv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/mode"
)

const (
	// returnTimeout bounds the wait of DeleteEndpoint for the kernel to move the device home. It is there already unless the engine was
	// killed; for the rest of the time the reconciler waits.
	returnTimeout = 3 * time.Second
	// undoBound bounds what is done after the caller's own time is up.
	undoBound = 8 * time.Second
	// pollEvery is how often a call looks again at a device that it waits for.
	pollEvery = 50 * time.Millisecond
	// retryWindow is for how long a device that is home and cannot be restored is tried again at short intervals, from when it was first
	// seen there, and again from when what may be the cause of its quarantine has ended.
	retryWindow = 10 * time.Second
)

// A releaser restores devices and ends their allocations.
type releaser struct {
	allocs    *alloc.Table
	modes     *mode.Set
	announcer *announcer
	leases    *leases
}

// restore restores a device from its snapshot. The error matches hw.ErrAway while the device is not in the host.
func (l *releaser) restore(ctx context.Context, a *alloc.Allocation) error {
	m, err := l.modes.ByName(a.Mode)
	if err != nil {
		return err
	}
	return m.Release(ctx, a)
}

// release restores a device and ends its allocation, with a warning if the kernel refuses a part of what was there, such as a route whose
// gateway is gone: the host is using the device again, and trying again would not help. A device that is in the host and cannot be
// restored is quarantined, or left for another attempt if again returns true, because others may be at work on it, such as udev. The
// error matches hw.ErrAway while the device is not in the host. After a reboot there is nothing to restore: names and settings are those of
// the host's configuration. Announced routes are withdrawn first. An allocation of an unknown mode is left as it is. What addresses an owner had
// is noted for release once its device is out of the container. The caller holds the device's lock.
func (l *releaser) release(ctx context.Context, a *alloc.Allocation, again func() bool) error {
	defer l.leases.outOf(a)
	if a.FromEarlierBoot() {
		return l.allocs.End(ctx, a)
	}
	if err := l.announcer.withdraw(ctx, a); err != nil {
		return err
	}
	if a.Child != nil && l.leases.mayBeUsed(a) {
		return fmt.Errorf("%s: is in its container, which uses its addresses: %w", a.Label, hw.ErrAway)
	}
	err := l.restore(ctx, a)
	var partly *hw.UnrestoredError
	switch {
	case err == nil:
		return l.allocs.End(ctx, a)
	case errors.As(err, &partly):
		if err := l.allocs.End(ctx, a); err != nil {
			return err
		}
		l.allocs.Log.Warn("device restored, but the kernel refuses a part of what it had", append(a.Fields(), zap.NamedError("err", partly))...)
		return nil
	case errors.Is(err, hw.ErrAway), errors.Is(err, mode.ErrUnknown):
		return err
	case a.State == alloc.Freeing && again():
		return err
	}
	return l.allocs.Quarantine(ctx, a, err)
}

// awaitReturn waits at most timeout for a device to come home and releases it, and then the allocations that are part of its own. What is
// left it leaves to the passes. The caller holds the device's lock since before the allocation was freeing, so no other endpoint can
// have had the device since.
func (r *reconciler) awaitReturn(ctx context.Context, a *alloc.Allocation, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	var err error
	_ = retry.Poll(ctx, pollEvery, timeout, func() (done bool, _ error) { // err says why the device is not released
		err = r.attempt(ctx, a)
		return !errors.Is(err, hw.ErrAway), nil
	})
	if err != nil {
		logNotReleased(r.log, a, err)
		r.nudge()
	}
	if a.HasParts() {
		r.releaseParts(ctx, a.Device)
	}
}

// releaseParts releases the devices that a bond was made of, once the bond is gone.
func (r *reconciler) releaseParts(ctx context.Context, whole hw.ID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	held, err := r.allocs.List(ctx)
	for id, a := range held {
		if a.PartOf != whole {
			continue
		}
		unlock, ok := r.locks.TryLock(alloc.Key(id))
		if !ok { // a pass is at work on it
			continue
		}
		_, releaseErr := r.reconcile(ctx, a)
		err = errors.Join(err, releaseErr)
		unlock()
	}
	if err != nil {
		r.log.Warn("device not released yet", zap.String("part_of", string(whole)), zap.NamedError("err", err))
	}
	r.nudge()
}

// logNotReleased logs why a device is not released. That it is not home yet, or busy, is the ordinary end of many containers: it is tried
// again. A warning follows if it stays away, and an error if it is quarantined.
func logNotReleased(log *zap.Logger, a *alloc.Allocation, err error) {
	level := zapcore.WarnLevel
	if ofDevice(err) {
		level = zapcore.InfoLevel
	}
	log.Log(level, "device not released yet", append(a.Fields(), zap.NamedError("err", err))...)
}

// ofDevice reports whether an error is about a device, and not about the ledger.
func ofDevice(err error) bool {
	var e *hw.Error
	return errors.Is(err, hw.ErrAway) || errors.As(err, &e)
}
