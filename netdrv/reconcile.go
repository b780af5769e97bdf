package netdrv

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/engineview"
	"github.com/mellanox/passthrough/netdrv/health"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store"
)

const (
	// passEvery is how often the ledger is compared with the kernel if nothing is known to be open.
	passEvery = time.Minute
	// passSoon is how often while a device is on its way back, or a call is at work on what is to be looked at.
	passSoon = 500 * time.Millisecond
	// passWithoutLedger is how often while the ledger cannot be read: it may have been locked for a moment.
	passWithoutLedger = 5 * time.Second
	// debounceTime is how long links may change before they are looked at: one that comes home, and is named by udev, makes a dozen
	// messages, and 63 that are created many hundreds.
	debounceTime = 100 * time.Millisecond
	// awaitBound is how long a device that has not come home is looked for at short intervals.
	awaitBound = time.Minute
	// reportEvery is how often an error is logged that lasts.
	reportEvery = time.Hour
	// countersEvery is how often the counters are logged.
	countersEvery = time.Hour
)

// A reconciler finishes what a crash, a lost call or a slow kernel has left open: it frees the devices of orphans, tries quarantined ones
// again, removes stale networks and VFs that are not needed any more, creates missing ones, and repairs announced routes. It never acts
// on a fact that it could not find out.
type reconciler struct {
	host     *hw.Host
	store    store.Store
	log      *zap.Logger
	locks    *keylock.Map
	counters *metrics.Counters
	allocs   *alloc.Table
	engine   *engineview.View
	wake     chan struct{} // has a message if there is something to finish

	releaser  *releaser
	announcer *announcer
	// addressesForgotten is told the addresses of an endpoint that was removed because the engine forgot it; it may be nil.
	addressesForgotten func(network string, addresses []string)
	// removeUnneeded removes stale networks, and VFs that are not needed any more. The caller holds the lock of all networks.
	removeUnneeded func(context.Context) error
	// unrecorded says which devices look as if the plugin had set them up, and have no record.
	unrecorded func(context.Context) []string
	vfs        *vfpool.Recreator
	bare       func(context.Context) []string // PFs whose VFs are to be created before a container wants them
	settings   *health.Settings
	lost       *health.LostDevices
	passed     atomic.Bool // a pass has ended that could read the ledger

	// The state below is of this process: one that was restarted looks at everything as for the first time.
	mu       sync.Mutex // guards all below: a call that ends a bond has its ports looked at
	home     map[hw.ID]health.Home
	attempts map[hw.ID]attempt
	reported map[string]report // errors that were logged, by what they are about
}

// A report is an error that was logged.
type report struct {
	text string
	at   time.Time
}

// nudge wakes the reconciler.
func (r *reconciler) nudge() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// run makes passes until ctx ends: at once, when links have changed, when something is due, and every minute.
func (r *reconciler) run(ctx context.Context) error {
	links := &watcher{host: r.host, log: r.log}
	logged := time.Now()
	for {
		if time.Since(logged) > countersEvery {
			logged = time.Now()
			r.log.Info("decisions since start", zap.Any("count", r.counters.Snapshot()))
		}
		again := links.ensure(ctx) // before the pass, which finds what was not reported
		next := r.pass(ctx)
		if again > 0 {
			next = min(next, again)
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-timer.C:
		case _, open := <-links.changed:
			links.received(ctx, open)
			r.counters.Count("link_changes")
			debounce(ctx, links.changed)
		}
		timer.Stop()
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// debounce waits until a burst of changes is over.
func debounce(ctx context.Context, changed <-chan struct{}) {
	_ = retry.Sleep(ctx, debounceTime) // the caller looks at ctx
	select {
	case <-changed:
	default:
	}
}

// pass looks at every allocation, network and PF once. It returns how long to wait for the next pass.
func (r *reconciler) pass(ctx context.Context) (next time.Duration) {
	held, err := r.allocs.List(ctx)
	if err != nil {
		r.logOnce(ctx, "ledger", err)
		return passWithoutLedger
	}
	r.forgetEnded(held)
	r.lost.ForgetEnded(held)
	r.vfs.Observe(held)
	next = passEvery
	for _, a := range held.InOrder() {
		due := passSoon
		if unlock, ok := r.locks.TryLock(alloc.Key(a.Device)); ok { // otherwise a call is at work on it
			due, err = r.reconcile(ctx, a)
			unlock()
			r.logOnce(ctx, a.Label, err)
		}
		if due > 0 {
			next = min(next, due)
		}
	}
	r.logOnce(ctx, "announced routes", r.announcer.reconcile(ctx))
	next = min(next, r.settings.Pass(ctx, held))
	removeBusy, removeErr := r.cleanUp(ctx)
	bare := r.bare(ctx)
	r.vfs.Missing(bare)
	createBusy, createErr := r.vfs.Run(ctx)
	if len(bare) > 0 && len(r.bare(ctx)) < len(bare) { // cleanUp writes CDI specs
		next = 0
	}
	if removeBusy || createBusy {
		next = min(next, passSoon)
	}
	r.logOnce(ctx, "vfs", errors.Join(removeErr, createErr))
	r.release(ctx)
	if !r.passed.Swap(true) {
		r.logHeld(ctx, held)
	}
	return max(next, debounceTime)
}

// release releases addresses and pools that owners do not have any more.
func (r *reconciler) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, releaseBound)
	defer cancel()
	r.releaser.leases.release(ctx)
}

// logHeld logs what the ledger had when the process was started: an operator sees there that the plugin knows his networks, or that their
// records are lost.
func (r *reconciler) logHeld(ctx context.Context, held alloc.Set) {
	networks, err := ledger.List[ledger.Network](ctx, r.store, ledger.NetworkPrefix)
	if err != nil {
		r.logOnce(ctx, "ledger", err)
		return
	}
	for _, what := range r.unrecorded(ctx) {
		r.log.Warn("device without a record; it is left as it is", zap.String("found", what), zap.String(admin.EventKey, admin.EventWarning))
	}
	if len(networks) == 0 && len(held) == 0 {
		r.log.Info("ledger is empty, as after an installation; networks that the engine has from before have no records: " +
			"passthroughctl status names them, passthroughctl restore brings back those of a backup")
		return
	}
	quarantined := 0
	for _, a := range held {
		if a.State == alloc.Quarantined {
			quarantined++
		}
	}
	r.log.Info("ledger was read", zap.Int("networks", len(networks)), zap.Int("devices", len(held)), zap.Int("quarantined", quarantined))
}

// reconcile moves one allocation on if there is a reason. The caller holds the device's lock, so no call of this process is at work on
// it: an allocation that is still claimed was left by a process that died. due is when to look at it again; 0 for never.
func (r *reconciler) reconcile(ctx context.Context, a *alloc.Allocation) (due time.Duration, err error) {
	a, err = r.allocs.Current(ctx, a)
	if errors.Is(err, store.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if a.Manual {
		return 0, nil
	}
	switch whole, ending, err := r.whole(ctx, a); {
	case err != nil:
		return 0, err
	case whole == engineview.WholeHeld && (ending || a.State != alloc.Ready): // it ends after what it is part of
		return passSoon, nil
	}
	if !a.Ending() {
		if due, err = r.freeOrphan(ctx, a); err != nil {
			return due, err
		}
		if !a.Ending() {
			if soon := r.lost.Look(a, r.homecoming(a.Device)); soon > 0 && (due == 0 || soon < due) { // 0 is never
				due = soon
			}
			return due, nil
		}
	}
	if due = r.backoff(a); due > 0 {
		return due, nil
	}
	if a.State == alloc.Quarantined {
		r.counters.Count("tried_again")
	}
	switch err = r.attempt(ctx, a); {
	case errors.Is(err, mode.ErrUnknown):
		return 0, err
	case errors.Is(err, hw.ErrAway) && r.triedFor(a.Device) < awaitBound:
		return passSoon, nil
	case errors.Is(err, hw.ErrAway):
		return 0, r.handleMissing(ctx, a, err)
	case err != nil && ofDevice(err): // it is quarantined if that lasts, which is logged with the reason
		return r.backoff(a), nil
	case err != nil:
		return r.backoff(a), err
	}
	return 0, nil
}

// handleMissing deals with a device that does not come home. One with a PCI address is waited for, and why is reported, such as that an
// administrator has bound it to vfio-pci; so is one whose container uses addresses of the IPAM driver. Another one may have died with its container: it is quarantined, so that people see it,
// and its allocation ends once its network is gone.
func (r *reconciler) handleMissing(ctx context.Context, a *alloc.Allocation, why error) error {
	if a.Device.IsPCI() || len(a.Leases) > 0 {
		return why
	}
	_, err := ledger.Get[ledger.Network](ctx, r.store, ledger.NetworkKey(a.Network))
	if errors.Is(err, store.ErrNotFound) {
		return r.allocs.End(ctx, a)
	}
	if err != nil || a.State == alloc.Quarantined {
		return err
	}
	return r.allocs.Quarantine(ctx, a, errors.New("has not come back; it may have died with its container"))
}

// cleanUp removes stale networks and VFs that are not needed any more. It returns busy if it has to come again because a call is at work on
// networks: that call may be about something else.
func (r *reconciler) cleanUp(ctx context.Context) (busy bool, err error) {
	unlock, ok := r.locks.TryLock(networksLock)
	if !ok {
		return true, nil
	}
	defer unlock()
	return false, r.removeUnneeded(ctx)
}

// logOnce logs an error that keeps the reconciler from a decision; if it is that of the last time, only once an hour. If ctx has ended the
// plugin is being stopped: the next process finishes what is open.
func (r *reconciler) logOnce(ctx context.Context, about string, err error) {
	if ctx.Err() != nil || !r.changed(about, err) {
		return
	}
	r.counters.Count("left_alone")
	r.log.Warn("reconcile", zap.String("device", about), zap.NamedError("err", err))
}

// changed reports whether an error is not the one that was logged last, or was logged long ago.
func (r *reconciler) changed(about string, err error) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		delete(r.reported, about)
		return false
	}
	was, now := r.reported[about], report{err.Error(), time.Now()}
	if was.text == now.text && now.at.Sub(was.at) < reportEvery {
		return false
	}
	r.reported[about] = now
	return true
}
