package vfpool

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// recreateBackoff is how long a PF is left alone whose VFs could not be created again.
var recreateBackoff = retry.Backoff{First: 2 * time.Minute, Max: time.Hour}

// A Recreator creates VFs again before a container asks for them: those that containers had when the machine went down or the PF was
// taken out, and those whose creation a crash, or a call that ran out of time, has interrupted. The engine starts each of these
// containers once, with 10 s for a call (HANDLER_TIMEOUT); a PF may take longer for hundreds of VFs.
type Recreator struct {
	pool    *Pool
	pending map[string]retry.Attempt // PFs whose VFs are missing, by PCI address
}

// NewRecreator returns a recreator that has seen nothing yet. Its methods are not for concurrent use.
func NewRecreator(p *Pool) *Recreator {
	return &Recreator{pool: p, pending: map[string]retry.Attempt{}}
}

// Observe notes the PFs of allocations whose VFs are gone: the machine was rebooted since, or the PF is absent.
func (r *Recreator) Observe(held alloc.Set) {
	rebooted := map[string]bool{}
	for _, a := range held {
		if a.PF != "" {
			rebooted[a.PF] = rebooted[a.PF] || a.FromEarlierBoot()
		}
	}
	for pci, rebooted := range rebooted {
		if _, known := r.pending[pci]; !known && (rebooted || !r.pool.present(pci)) {
			r.pending[pci] = retry.Attempt{}
		}
	}
}

// Missing notes PFs whose VFs are to be there before a container asks for them.
func (r *Recreator) Missing(pcis []string) {
	for _, pci := range pcis {
		if _, known := r.pending[pci]; !known {
			r.pending[pci] = retry.Attempt{}
		}
	}
}

// Run creates the VFs that are missing and due. It returns busy if it has to come again because a call was at work on a PF.
func (r *Recreator) Run(ctx context.Context) (busy bool, err error) {
	due, err := r.due(ctx)
	if err != nil {
		return false, err
	}
	atWork, errs := make([]bool, len(due)), make([]error, len(due))
	var wg sync.WaitGroup
	for i, pci := range due {
		wg.Go(func() { atWork[i], errs[i] = r.pool.recreate(ctx, pci) })
	}
	wg.Wait()
	for i, pci := range due {
		if atWork[i] {
			busy = true
			continue
		}
		r.record(pci, errs[i])
		if absent(errs[i]) {
			errs[i] = nil
		}
	}
	return busy, errors.Join(errs...)
}

// due returns the PFs that the plugin created VFs on, whose VFs are missing, and for which it is time to try.
func (r *Recreator) due(ctx context.Context) ([]string, error) {
	all, err := ledger.List[pfRecord](ctx, r.pool.Store, pfPrefix)
	if err != nil {
		return nil, err
	}
	var due []string
	for _, rec := range all {
		last, pending := r.pending[rec.Rec.PCI]
		interrupted := rec.Rec.Boot == r.pool.Host.Boot() && !rec.Rec.Done
		if (pending || interrupted) && last.Wait(recreateBackoff) == 0 {
			due = append(due, rec.Rec.PCI)
		}
	}
	return due, nil
}

// record notes the outcome of an attempt. An absent PF has refused nothing: it is looked for each time.
func (r *Recreator) record(pci string, err error) {
	switch {
	case err == nil:
		delete(r.pending, pci)
	case absent(err):
		r.pending[pci] = retry.Attempt{}
	default:
		r.pending[pci] = r.pending[pci].Failed()
	}
}

// recreate creates the VFs of one PF if they are needed. It returns busy if a call is at work on the PF.
func (p *Pool) recreate(ctx context.Context, pci string) (busy bool, err error) {
	id := hw.ID(pci)
	if n, err := p.Host.Netdev(pci); err == nil { // it may have a port number
		id = n.ID
	}
	if err := p.Host.WaitName(ctx, id); err != nil {
		return false, err
	}
	unlock, ok := p.Locks.TryLock(LockName(pci))
	if !ok {
		return true, nil
	}
	defer unlock()
	needed, err := p.needed(ctx, pci)
	if err != nil || !needed {
		return false, err
	}
	pf, err := p.Host.PF(pci)
	if err != nil {
		return false, err
	}
	if err := p.CheckUp(ctx, pf.Netdev); err != nil {
		return false, err
	}
	return false, p.ensureLocked(ctx, pf, 0)
}
