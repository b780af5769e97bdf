package netdrv

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"

	"github.com/mellanox/passthrough/hw"
)

// undivided are PFs whose VFs are to be made without anybody's asking, by PCI address, with what became of the last attempt.
type undivided map[string]retry.Attempt

// goneWith takes note of the PFs that are gone with VFs that containers had: with the machine, or by themselves.
func (u undivided) goneWith(loans alloc.Set, there func(pci string) bool) {
	past := map[string]bool{}
	for _, l := range loans {
		if l.PF != "" {
			past[l.PF] = past[l.PF] || l.FromEarlierBoot()
		}
	}
	for pci, past := range past {
		if _, known := u[pci]; !known && (past || !there(pci)) {
			u[pci] = retry.Attempt{}
		}
	}
}

// tried takes note of an attempt. A PF that has no netdev is looked for whenever there is a look, and has not refused anything.
func (u undivided) tried(pci string, err error) {
	switch {
	case err == nil:
		delete(u, pci)
	case notThere(err):
		u[pci] = retry.Attempt{}
	default:
		u[pci] = u[pci].Failed()
	}
}

// notThere tells whether a PF has no netdev in the host, which may be because its driver is still to come.
func notThere(err error) bool { return errors.Is(err, hw.ErrNotFound) || errors.Is(err, hw.ErrAway) }

// there tells whether a PF is in the host. What cannot be asked is not taken for gone.
func (d *Driver) there(pci string) bool {
	_, err := d.host.PF(pci)
	return !notThere(err)
}

// recreateBackoff is for PFs whose VFs could not be made.
var recreateBackoff = retry.Backoff{First: 2 * time.Minute, Max: time.Hour}

// vfRecreator makes VFs that are missing.
type vfRecreator struct {
	*Driver
	undivided undivided
}

// Observe is goneWith for the driver's host.
func (d vfRecreator) Observe(held alloc.Set) { d.undivided.goneWith(held, d.there) }

// Run makes the VFs that are missing: those that containers had when the machine went down or the PF was taken out, and
// those of a PF that a crash, or a call that ran out of time, has left half divided. The engine starts those containers once
// each, and a call has 10 s (HANDLER_TIMEOUT); a PF may take longer for hundreds of VFs. again tells whether to come again because
// a call was at work on a PF.
func (d vfRecreator) Run(ctx context.Context) (again bool, err error) {
	all, err := ledger.List[sharingRecord](ctx, d.store, sharingPrefix)
	if err != nil {
		return false, err
	}
	var due []string
	for _, r := range all {
		last, known := d.undivided[r.Rec.PCI]
		half := r.Rec.Boot == d.host.Boot() && !r.Rec.Done
		if (known || half) && last.Wait(recreateBackoff) == 0 {
			due = append(due, r.Rec.PCI)
		}
	}
	busy, errs := make([]bool, len(due)), make([]error, len(due))
	var wg sync.WaitGroup
	for i, pci := range due {
		wg.Go(func() { busy[i], errs[i] = d.divideOne(ctx, pci) })
	}
	wg.Wait()
	for i, pci := range due {
		if busy[i] {
			again = true
			continue
		}
		d.undivided.tried(pci, errs[i])
		if notThere(errs[i]) {
			errs[i] = nil
		}
	}
	return again, errors.Join(errs...)
}

// divideOne makes the VFs of one PF, if something stands on them, unless a call is at work on it.
func (d *Driver) divideOne(ctx context.Context, pci string) (busy bool, err error) {
	if err := d.host.WaitName(ctx, hw.ID(pci)); err != nil {
		return false, err
	}
	unlock, ok := d.locks.TryLock("pf " + pci)
	if !ok {
		return true, nil
	}
	defer unlock()
	needed, err := d.sharingNeeded(ctx, pci)
	if err != nil || !needed {
		return false, err
	}
	pf, err := d.host.PF(pci)
	if err != nil {
		return false, err
	}
	return false, d.share(ctx, pf, 0)
}
