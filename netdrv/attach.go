package netdrv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/vfpool"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/internal/retry"
)

const (
	// waitForDevice bounds the wait for a device that is on its way back: a container that is restarted gives its VF back
	// and wants one at once, and the engine does not try a failed start again.
	waitForDevice = 6 * time.Second
	// tries is how many devices are tried before broken hardware is the answer.
	tries = 3
)

// lend tries devices until one is ready.
func (d *Driver) lend(ctx context.Context, n *mode.Request, e ledger.Endpoint) (ledger.Endpoint, error) {
	var err error
	for range tries {
		var done bool
		if e, done, err = d.lendOne(ctx, n, e); done {
			return e, err
		}
		d.log.Warn("device is broken, trying another", zap.NamedError("err", err))
	}
	return e, err
}

// lendOne claims one device and makes it ready. done is false when the device is broken and another may be tried.
func (d *Driver) lendOne(ctx context.Context, n *mode.Request, e ledger.Endpoint) (_ ledger.Endpoint, done bool, _ error) {
	m, err := d.modes.Of(n.Options)
	if err != nil {
		return e, true, err
	}
	l, unlock, err := d.claim(ctx, m, n, e)
	if err != nil {
		return e, true, err
	}
	defer unlock()
	dev, err := m.Prepare(ctx, l, func(a *alloc.Allocation) error { return d.allocs.Save(ctx, a) })
	if err == nil {
		e.Device, e.MAC = l.Device, ""
		if dev.Type == "ether" && dev.Kind != hw.IPVlan { // an ipvlan's is its parent's, and cannot be set
			e.MAC = dev.MAC
		}
		err = d.allocs.MarkReady(ctx, l, e)
	}
	if err == nil {
		err = ctx.Err() // the engine has given up: it would never delete what it does not know
	}
	if err == nil {
		return e, true, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	broken := errors.Is(err, hw.ErrDeviceFault) && ctx.Err() == nil
	if len(l.Parts) == 0 {
		l.Faulty = broken
	}
	return e, !broken, errors.Join(err, d.giveUp(undo, l, err))
}

// giveUp takes back an allocation that came to nothing, and then its parts.
func (d *Driver) giveUp(ctx context.Context, l *alloc.Allocation, why error) error {
	errs := []error{d.giveUpOne(ctx, l, why, ledger.Del(ledger.EndpointKey(l.Network, l.Endpoint)))}
	for _, p := range l.Parts {
		errs = append(errs, d.giveUpOne(ctx, p, why))
	}
	return errors.Join(errs...)
}

// giveUpOne takes back one device. A broken one is put back as well as it goes and kept out of use.
func (d *Driver) giveUpOne(ctx context.Context, l *alloc.Allocation, why error, also ...ledger.Write) error {
	if err := d.allocs.Advance(ctx, l, alloc.Freeing, also...); err != nil {
		return err
	}
	if l.Faulty {
		m, err := d.modes.ByName(l.Mode)
		if err == nil {
			err = m.Release(ctx, l)
		}
		return d.allocs.Quarantine(ctx, l, errors.Join(why, err))
	}
	if err := d.putBack(ctx, l); err != nil { // its driver may still be making the netdev
		d.log.Warn("device not put back yet", append(l.Fields(), zap.NamedError("err", err))...)
		d.reconciler.nudge()
	}
	return nil
}

// claim chooses a device and writes the allocation down; unlock ends its exclusive use by this call. If all are in use but one
// is on its way back, it waits for that.
func (d *Driver) claim(ctx context.Context, m mode.Mode, n *mode.Request, e ledger.Endpoint) (*alloc.Allocation, func(), error) {
	var l *alloc.Allocation
	var unlock func()
	var busy *vfpool.BusyError
	err := retry.Poll(ctx, pollEvery, waitForDevice, func() (done bool, err error) {
		l, unlock, err = d.claimNow(ctx, m, n, e)
		if errors.As(err, &busy) && busy.Soon {
			err = nil
		}
		return l != nil, err
	})
	switch {
	case err == nil:
		return l, unlock, nil
	case errors.Is(err, retry.ErrTimeout) && busy != nil:
		err = fmt.Errorf("%w (waited %s)", busy, waitForDevice)
	case busy != nil && ctx.Err() != nil:
		err = fmt.Errorf("%w: %w", busy, ctx.Err())
	}
	return nil, nil, err
}

// claimNow chooses a device and writes the allocation down. The allocation is nil when somebody else was quicker.
func (d *Driver) claimNow(ctx context.Context, m mode.Mode, n *mode.Request, e ledger.Endpoint) (*alloc.Allocation, func(), error) {
	unlockPFs, err := d.lockContenders(ctx, m, n)
	if err != nil {
		return nil, nil, err
	}
	defer unlockPFs()
	l, err := m.Claim(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	var keys []string
	for _, x := range l.All() {
		keys = append(keys, alloc.Key(x.Device))
	}
	unlock, err := keylock.LockAll(ctx, keys, d.locks.Lock)
	if err != nil {
		return nil, nil, err
	}
	e.Device = l.Device
	taken, err := d.allocs.Start(ctx, l, e)
	if err != nil || taken {
		unlock()
		return nil, nil, err
	}
	return l, unlock, nil
}

// lockContenders keeps others from changing what the choice of a device depends on, until unlock.
func (d *Driver) lockContenders(ctx context.Context, m mode.Mode, n *mode.Request) (unlock func(), err error) {
	lock := d.locks.RLock
	if m.Competes(n) {
		lock = d.locks.Lock
	}
	var names []string
	for _, dev := range n.Network.Devices {
		names = append(names, vfpool.LockName(dev.ID.PCI()))
	}
	return keylock.LockAll(ctx, names, lock)
}
