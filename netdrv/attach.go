package netdrv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

const (
	// claimTimeout bounds the wait for a device that is on its way back: a container that is restarted releases its VF and wants one
	// at once, and the engine does not try a failed start again.
	claimTimeout = 6 * time.Second
	// attachAttempts is how many devices are tried if they turn out to be faulty.
	attachAttempts = 3
)

// An attacher attaches devices to endpoints.
type attacher struct {
	log      *zap.Logger
	locks    *keylock.Map
	allocs   *alloc.Table
	modes    *mode.Set
	releaser *releaser
	timings  *timings
	nudge    func() // wakes the reconciler
	// tryQuarantined tries to release a quarantined device, and returns true if it is not quarantined any more.
	tryQuarantined func(context.Context, hw.ID) bool
}

// attach gives an endpoint a device that is ready. If the device is faulty it tries another.
func (t *attacher) attach(ctx context.Context, req *mode.Request, e ledger.Endpoint) (ledger.Endpoint, error) {
	m, err := t.modes.Of(req.Options)
	if err != nil {
		return e, err
	}
	var fault error
	for range attachAttempts {
		var faulty bool
		e, faulty, err = t.attachOne(ctx, m, req, e, fault == nil)
		switch {
		case !faulty && err != nil && fault != nil && ctx.Err() != nil:
			return e, fmt.Errorf("%w; there was no time to try another: %w", fault, err)
		case !faulty:
			return e, err
		}
		t.log.Warn("device is faulty, trying another", zap.NamedError("err", err))
		fault = err
	}
	return e, err
}

// attachOne claims one device and prepares it. The allocation is durable before the device is touched. faulty is true if attaching failed
// for a fault of the device, so that another may be tried. quarantined as in claim.
func (t *attacher) attachOne(ctx context.Context, m mode.Mode, req *mode.Request, e ledger.Endpoint, quarantined bool) (
	_ ledger.Endpoint, faulty bool, _ error) {
	start := time.Now()
	a, unlock, err := t.claim(ctx, m, req, e, quarantined)
	if err != nil {
		return e, false, err
	}
	defer unlock()
	claimed := time.Now()
	dev, err := m.Prepare(ctx, a, func(a *alloc.Allocation) error { return t.allocs.Save(ctx, a) })
	if err == nil {
		e.Device, e.MAC = a.Device, ""
		if dev.Type == "ether" && dev.Kind != hw.IPVlan { // an ipvlan's is its parent's, and cannot be set
			e.MAC = dev.MAC
		}
		err = t.allocs.MarkReady(ctx, a, e)
	}
	if err == nil {
		err = ctx.Err() // the engine has given up: it would never delete an endpoint that it does not know
	}
	if err == nil {
		t.timings.put(e.ID, timing{req.Container, claimed.Sub(start), time.Since(claimed)})
		return e, false, nil
	}
	faulty = errors.Is(err, hw.ErrDeviceFault) && ctx.Err() == nil
	if !a.HasParts() { // otherwise it is the part that is faulty
		a.Faulty = faulty
	}
	return e, faulty, errors.Join(err, t.undo(ctx, a, err))
}

// claim selects a device and writes its allocation; unlock ends its exclusive use by this call. If all are in use but one is on its
// way back, claim waits for that. With quarantined, one of those that are quarantined is tried before: what kept it from being
// restored may be over.
func (t *attacher) claim(ctx context.Context, m mode.Mode, req *mode.Request, e ledger.Endpoint, quarantined bool) (
	a *alloc.Allocation, unlock func(), err error) {
	var busy *vfpool.BusyError
	err = retry.Poll(ctx, pollEvery, claimTimeout, func() (done bool, err error) {
		a, unlock, err = t.claimNow(ctx, m, req, e)
		if !errors.As(err, &busy) {
			return a != nil, err
		}
		if busy.Quarantined != "" && quarantined {
			quarantined = false // once
			if t.tryQuarantined(ctx, busy.Quarantined) {
				return false, nil
			}
			a, unlock, err = t.claimNow(ctx, m, req, e) // for the reason of now
		}
		if errors.As(err, &busy) && busy.Soon {
			if busy.Releasing != "" { // to look for a device again costs more than a release has left
				waiting, cancel := context.WithTimeout(ctx, time.Second)
				_ = awaitRelease(waiting, t.locks, busy.Releasing) // it is looked for again in any case
				cancel()
			}
			err = nil
		}
		return a != nil, err
	})
	switch {
	case err == nil:
		return a, unlock, nil
	case errors.Is(err, retry.ErrTimeout) && busy != nil:
		err = fmt.Errorf("%w (waited %s)", busy, claimTimeout)
	case busy != nil && ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", busy, ctx.Err())
	}
	return nil, nil, err
}

// claimNow selects a device and writes its allocation. It returns no allocation if the device was claimed first by another call.
func (t *attacher) claimNow(ctx context.Context, m mode.Mode, req *mode.Request, e ledger.Endpoint) (*alloc.Allocation, func(), error) {
	unlockPFs, err := t.lockContenders(ctx, m, req)
	if err != nil {
		return nil, nil, err
	}
	defer unlockPFs()
	a, err := m.Claim(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	var keys []string
	for _, x := range a.All() {
		keys = append(keys, alloc.Key(x.Device))
	}
	unlock, err := keylock.LockAll(ctx, keys, t.locks.Lock)
	if err != nil {
		return nil, nil, err
	}
	e.Device = a.Device
	taken, err := t.allocs.Start(ctx, a, e)
	if err != nil || taken {
		unlock()
		return nil, nil, err
	}
	return a, unlock, nil
}

// lockContenders locks the network's devices, so that what the selection depends on does not change until unlock.
func (t *attacher) lockContenders(ctx context.Context, m mode.Mode, req *mode.Request) (unlock func(), err error) {
	lock := t.locks.RLock
	if m.Competes(req) {
		lock = t.locks.Lock
	}
	var names []string
	for _, dev := range req.Network.Devices {
		names = append(names, vfpool.LockName(dev.ID.PCI()))
	}
	return keylock.LockAll(ctx, names, lock)
}

// undo takes back an allocation that could not be made ready, and then its parts.
func (t *attacher) undo(ctx context.Context, a *alloc.Allocation, why error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	a.Leases = nil // the caller goes on with them, or releases them
	errs := []error{t.undoOne(ctx, a, why, ledger.Del(ledger.EndpointKey(a.Network, a.Endpoint)))}
	for _, p := range a.Parts {
		if a.Ended() {
			errs = append(errs, t.undoOne(ctx, p, why))
		} // otherwise the reconciler releases them, after what they are part of
	}
	return errors.Join(errs...)
}

// undoOne takes back one device. A faulty one is restored as far as possible and quarantined.
func (t *attacher) undoOne(ctx context.Context, a *alloc.Allocation, why error, also ...ledger.Write) error {
	if err := t.allocs.Advance(ctx, a, alloc.Freeing, also...); err != nil {
		return err
	}
	if a.Faulty {
		err := t.allocs.Quarantine(ctx, a, errors.Join(why, t.releaser.restore(ctx, a)))
		if a.State == alloc.Quarantined { // the caller has why
			return nil
		}
		return err
	}
	if err := t.releaser.release(ctx, a, func() bool { return true }); err != nil { // its driver may still be creating the netdev
		logNotReleased(t.log, a, err)
		t.nudge()
	}
	return nil
}
