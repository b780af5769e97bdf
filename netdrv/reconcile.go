package netdrv

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store"
)

const (
	// passEvery is how often the ledger is held against the kernel when nothing is known to be open.
	passEvery = time.Minute
	// passSoon is how often while a device is on its way back.
	passSoon = 500 * time.Millisecond
	// retryAfter is how long a quarantined device rests before it is tried again.
	retryAfter = 2 * time.Minute
	// unusualAfter is when a device that has not come home is no longer being waited for every moment.
	unusualAfter = time.Minute
)

// nudge wakes the reconciler.
func (d *Driver) nudge() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Reconcile finishes what a crash, a lost call or a slow kernel has left open, until ctx ends: devices of loans that came
// to nothing are put back, quarantined ones tried again, VFs that nobody needs any more removed. It never acts on what
// it could not find out.
func (d *Driver) Reconcile(ctx context.Context) error {
	home := map[hw.ID]time.Time{}
	for {
		wait := passEvery
		if d.pass(ctx, home) {
			wait = passSoon
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-d.wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// pass looks at every loan and every divided PF once. home remembers since when a lent device has been seen in the host.
// soon is true while a device is on its way back.
func (d *Driver) pass(ctx context.Context, home map[hw.ID]time.Time) (soon bool) {
	loans, err := d.loans(ctx)
	if err != nil {
		d.log.Error("reconcile", zap.NamedError("err", err))
		return false
	}
	for id := range home {
		if l := loans[id]; l == nil || l.State != lent {
			delete(home, id)
		}
	}
	for id := range loans {
		unlock, ok := d.locks.tryLock(loanKey(id))
		if !ok { // a call is at work on it
			soon = true
			continue
		}
		open, err := d.settle(ctx, id, home)
		unlock()
		if err != nil {
			d.log.Warn("reconcile", zap.String("device", loans[id].Label), zap.NamedError("err", err))
		}
		soon = soon || open
	}
	if err := d.retireAll(ctx); err != nil {
		d.log.Warn("reconcile", zap.NamedError("err", err))
	}
	return soon
}

// settle moves one loan on, if there is reason to. The caller holds its lock, so no call of this process is at work on
// it: a loan that is only claimed was left by a process that died. open is true when it is worth another look soon.
func (d *Driver) settle(ctx context.Context, id hw.ID, home map[hw.ID]time.Time) (open bool, err error) {
	l, err := d.loan(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := d.freeOrphan(ctx, l, home); err != nil {
		return false, err
	}
	if l.State != freeing && l.State != quarantined {
		return false, nil
	}
	if l.State == quarantined && time.Since(l.Since) < retryAfter {
		return false, nil
	}
	err = d.putBack(ctx, l)
	if !errors.Is(err, hw.ErrAway) {
		return err != nil && l.State == freeing, err
	}
	return time.Since(l.Since) < unusualAfter, d.lost(ctx, l)
}

// freeOrphan has a loan freed that nobody would end. What is part of another goes with that one.
func (d *Driver) freeOrphan(ctx context.Context, l *loan, home map[hw.ID]time.Time) error {
	if l.PartOf != "" && l.State == ready {
		whole, err := d.loan(ctx, l.PartOf)
		alone := errors.Is(err, store.ErrNotFound) || err == nil && whole.Endpoint != l.Endpoint
		if err != nil && !alone {
			return err
		}
		if alone || whole.State == freeing || whole.State == quarantined {
			return d.advance(ctx, l, freeing)
		}
		return nil
	}
	if !d.orphaned(l, home) {
		return nil
	}
	d.log.Warn("endpoint was forgotten by the engine or by a crash", append(l.fields(), stateField(l.State))...)
	if l.PartOf != "" { // the endpoint is that of the loan that it is part of
		return d.advance(ctx, l, freeing)
	}
	return d.advance(ctx, l, freeing, remove(endpointKey(l.Network, l.Endpoint)))
}

// orphaned tells whether a loan has nobody who would end it. A device that is lent and stays in the host has not been
// moved by the engine, or has come back without a DeleteEndpoint: the engine moves it within seconds of Join. None has
// outlived a reboot.
func (d *Driver) orphaned(l *loan, home map[hw.ID]time.Time) bool {
	switch l.State {
	case claimed:
		return true
	case ready:
		return l.past || time.Since(l.Since) > d.orphanAfter
	case lent:
		if l.past {
			return true
		}
		if _, err := d.host.Find(l.Device); err != nil {
			delete(home, l.Device)
			return false
		}
		if home[l.Device].IsZero() {
			home[l.Device] = time.Now()
		}
		return time.Since(home[l.Device]) > d.orphanAfter
	}
	return false
}

// lost deals with a device that does not come home. One without a PCI address may have died with its container: it is
// quarantined for people to see, and forgotten with its network.
func (d *Driver) lost(ctx context.Context, l *loan) error {
	if l.Device.IsPCI() || time.Since(l.Since) < unusualAfter {
		return nil
	}
	_, err := read[networkRecord](ctx, d.store, networkKey(l.Network))
	if errors.Is(err, store.ErrNotFound) {
		return d.end(ctx, l)
	}
	if err != nil || l.State == quarantined {
		return err
	}
	return d.quarantine(ctx, l, errors.New("has not come back; it may have died with its container"))
}

// retireAll removes the VFs that the plugin made and nobody needs any more.
func (d *Driver) retireAll(ctx context.Context) error {
	unlock, ok := d.locks.tryLock("networks")
	if !ok {
		return nil
	}
	defer unlock()
	all, err := list[sharingRecord](ctx, d.store, sharingPrefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range all {
		errs = append(errs, d.retireSharing(ctx, r.rec.PCI))
	}
	return errors.Join(errs...)
}
