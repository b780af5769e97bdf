package netdrv

import (
	"context"
	"errors"
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store"
)

const (
	// passEvery is how often the ledger is held against the kernel when nothing is known to be open.
	passEvery = time.Minute
	// passSoon is how often while a device is on its way back.
	passSoon = 500 * time.Millisecond
	// burst is how long links are left to change before they are looked at: one that comes home, and is named by udev, makes
	// a dozen messages, and 63 that are made many hundreds.
	burst = 100 * time.Millisecond
	// unusualAfter is when a device that has not come home is no longer being waited for every moment.
	unusualAfter = time.Minute
	// countersEvery is how often the log is told how often what was decided.
	countersEvery = time.Hour
)

// nudge wakes the reconciler.
func (d *Driver) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Reconcile finishes what a crash, a lost call or a slow kernel has left open, until ctx ends: devices of allocations that came
// to nothing are put back, quarantined ones tried again, VFs that nobody needs any more removed and those made that are
// missing. It looks at start, when links have changed, when something is due, and every minute. It never acts on what it could
// not find out.
func (d *Driver) Reconcile(ctx context.Context) error {
	changed, err := d.host.Watch(ctx)
	if err != nil { // a device that comes home waits for the next minute then
		d.log.Warn("reconcile", zap.NamedError("err", err))
	}
	m := newMemory()
	told := time.Now()
	for {
		if time.Since(told) > countersEvery {
			told = time.Now()
			d.log.Info("decisions since start", zap.Any("count", d.counters.Snapshot()))
		}
		timer := time.NewTimer(d.pass(ctx, m))
		select {
		case <-ctx.Done():
		case <-d.wake:
		case <-timer.C:
		case _, open := <-changed:
			if !open {
				changed = nil
			}
			d.counters.Count("link_changes")
			quiet(ctx, changed)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// quiet lets a burst of changes pass.
func quiet(ctx context.Context, changed <-chan struct{}) {
	timer := time.NewTimer(burst)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	select {
	case <-changed:
	default:
	}
}

// pass looks at every allocation and every divided PF once. It returns when something is due next.
func (d *Driver) pass(ctx context.Context, m *memory) (next time.Duration) {
	loans, err := d.allocs.List(ctx)
	if err != nil {
		d.complain(ctx, m, "ledger", err)
		return passEvery
	}
	m.forget(loans)
	m.undivided.goneWith(loans, d.there)
	next = passEvery
	again := func(due time.Duration) {
		if due > 0 {
			next = min(next, due)
		}
	}
	for id, l := range loans {
		due := passSoon
		if unlock, ok := d.locks.TryLock(alloc.Key(id)); ok { // otherwise a call is at work on it
			due, err = d.settle(ctx, id, m)
			unlock()
			d.complain(ctx, m, l.Label, err)
		}
		again(due)
	}
	retired, retiring := d.retireAll(ctx)
	divided, dividing := d.divideAgain(ctx, m)
	again(retired)
	again(divided)
	d.complain(ctx, m, "vfs", errors.Join(retiring, dividing))
	return max(next, burst)
}

// complain tells what stands in the way of a decision, when it is news. That we were told to stop is none: what is open
// stays open for the next process.
func (d *Driver) complain(ctx context.Context, m *memory, about string, err error) {
	if ctx.Err() != nil || !m.news(about, err) {
		return
	}
	d.counters.Count("left_alone")
	d.log.Warn("reconcile", zap.String("device", about), zap.NamedError("err", err))
}

// settle moves one allocation on, if there is reason to. The caller holds its lock, so no call of this process is at work on
// it: an allocation that is only claimed was left by a process that died. due is when it is worth another look, 0 for never.
func (d *Driver) settle(ctx context.Context, id hw.ID, m *memory) (due time.Duration, err error) {
	l, err := d.allocs.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if due, err = d.freeOrphan(ctx, l, m); err != nil {
		return 0, err
	}
	if l.State != alloc.Freeing && l.State != alloc.Quarantined {
		return due, nil
	}
	if due = m.rest(l); due > 0 {
		return due, nil
	}
	again := l.State == alloc.Quarantined
	if again {
		d.counters.Count("tried_again")
	}
	if err = d.putBack(ctx, l); again {
		m.tried(l, err)
	}
	switch {
	case errors.Is(err, hw.ErrAway) && time.Since(l.Since) < unusualAfter:
		return passSoon, nil
	case errors.Is(err, hw.ErrAway):
		return 0, d.lost(ctx, l, err)
	case err != nil && l.State == alloc.Freeing:
		return passSoon, err
	case err != nil:
		return m.rest(l), err
	}
	return 0, nil
}

// lost deals with a device that does not come home. One with a PCI address is waited for; why is told, such as that somebody
// has bound it to vfio-pci. One without may have died with its container: it is quarantined for people to see, and forgotten
// with its network.
func (d *Driver) lost(ctx context.Context, l *alloc.Allocation, why error) error {
	if l.Device.IsPCI() {
		return why
	}
	_, err := ledger.Get[ledger.Network](ctx, d.store, ledger.NetworkKey(l.Network))
	if errors.Is(err, store.ErrNotFound) {
		return d.allocs.End(ctx, l)
	}
	if err != nil || l.State == alloc.Quarantined {
		return err
	}
	return d.allocs.Quarantine(ctx, l, errors.New("has not come back; it may have died with its container"))
}

// retireAll removes networks that have outlived their engine, and the VFs that the plugin made and nobody needs any more. due is
// when to come again because a call was at work on networks, 0 if none was: the call may not be about what is left to do.
func (d *Driver) retireAll(ctx context.Context) (due time.Duration, err error) {
	unlock, ok := d.locks.TryLock("networks")
	if !ok {
		return passSoon, nil
	}
	defer unlock()
	errs := []error{d.forgetOutlived(ctx)}
	all, err := ledger.List[sharingRecord](ctx, d.store, sharingPrefix)
	if err != nil {
		return 0, err
	}
	for _, r := range all {
		errs = append(errs, d.retireSharing(ctx, r.Rec.PCI))
	}
	return 0, errors.Join(errs...)
}
