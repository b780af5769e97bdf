package vfpool

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
)

// EnsureAll ensures that several PFs have VFs; want is how many to create on a PF that has none, 0 for all that it can have. It
// works on the PFs concurrently: a PF without a cable takes as long as the slowest link, and several of them one after the other
// longer than a call may take. Of several errors it returns that of the first PF. The caller holds none of the PFs' locks.
func (p *Pool) EnsureAll(ctx context.Context, pfs []hw.PF, want int) error {
	errs := make([]error, len(pfs))
	var wg sync.WaitGroup
	for i, pf := range pfs {
		wg.Go(func() { errs[i] = p.ensure(ctx, pf, want) })
	}
	wg.Wait()
	for _, pf := range pfs { // together: of what has taken longer than a call may, no part is to be done again
		p.keep(pf.PCI(), ctx.Err() != nil)
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// ensure is ensureLocked for a caller without the PF's lock.
func (p *Pool) ensure(ctx context.Context, pf hw.PF, want int) error {
	unlock, err := p.Locks.Lock(ctx, LockName(pf.PCI()))
	if err != nil {
		return err
	}
	defer unlock()
	if pf, err = p.Host.PF(pf.PCI()); err != nil { // another call may have created VFs meanwhile
		return err
	}
	if users, err := p.users(ctx, pf.PCI()); err != nil {
		return err
	} else if len(users) > 0 && pf.NumVFs == 0 { // they are going to be created
		if err := p.CheckUp(ctx, pf.Netdev); err != nil {
			return err
		}
	}
	if err := p.ensureLocked(ctx, pf, want); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishBound)
	defer cancel()
	return p.Raised(ctx, pf.ID)
}

// Plan returns how many VFs EnsureAll would create on a PF, and refuses what that would refuse before it changes anything.
func (p *Pool) Plan(ctx context.Context, pf hw.PF, want int) (int, error) {
	if users, err := p.users(ctx, pf.PCI()); err != nil {
		return 0, err
	} else if len(users) > 0 && pf.NumVFs == 0 {
		if _, _, err := p.seenUp(ctx, pf.Netdev); err != nil {
			return 0, err
		}
	}
	n, _, err := p.missing(ctx, pf, want)
	return n, err
}

// ensureLocked ensures that a PF has VFs: if it has none, want of them, or all for 0, are recorded and created. The caller holds the
// PF's lock.
func (p *Pool) ensureLocked(ctx context.Context, pf hw.PF, want int) error {
	n, r, err := p.missing(ctx, pf, want)
	recorded := r.KV.Key != ""
	switch {
	case err != nil:
		return err
	case recorded && p.ownedByAdmin(pf, r.Rec):
		_, err = ledger.Commit(ctx, p.Store, store.Unchanged(r.KV), ledger.Del(r.KV.Key))
	case recorded && n > 0:
		return p.create(ctx, pf, r)
	}
	if err != nil || n == 0 {
		return err
	}
	return p.createNew(ctx, pf, n)
}

// missing returns how many VFs are to be created on a PF that is to have want of them, 0 for as many as it can have; none if it has them. It
// also returns the PF's record, if there is one. A number that the PF cannot get is an error.
func (p *Pool) missing(ctx context.Context, pf hw.PF, want int) (n int, _ ledger.Rev[pfRecord], _ error) {
	r, err := ledger.Get[pfRecord](ctx, p.Store, pfKey(pf.PCI()))
	switch {
	case errors.Is(err, store.ErrNotFound):
		r = ledger.Rev[pfRecord]{}
		n, err = newCount(pf, want)
	case err != nil:
	case p.ownedByAdmin(pf, r.Rec):
		n, err = newCount(pf, want)
	case want > 0 && want != r.Rec.NumVFs:
		err = p.countDiffers(ctx, pf, want, r.Rec.NumVFs)
	case !r.Rec.Done || pf.NumVFs == 0:
		n = r.Rec.NumVFs
	}
	return n, r, err
}

// countDiffers returns the error about a number of VFs that is not the one that the plugin created, with the networks that it did so for.
func (p *Pool) countDiffers(ctx context.Context, pf hw.PF, want, have int) error {
	users, err := p.users(ctx, pf.PCI())
	if err != nil {
		return err
	}
	whom := "containers that are ending"
	if len(users) > 0 {
		whom = "network " + strings.Join(users, ", ")
	}
	return fmt.Errorf("option numvfs: %d is not possible: the plugin made %d vfs on %s for %s; say numvfs=%d, or leave it out",
		want, have, pf, whom, have)
}

// ownedByAdmin reports whether a PF's VFs are not those of its record: after a reboot the host's configuration created some first, or
// an administrator has changed their number.
func (p *Pool) ownedByAdmin(pf hw.PF, r pfRecord) bool {
	return pf.NumVFs > 0 && (r.Boot != p.Host.Boot() || r.NumVFs != pf.NumVFs)
}

// newCount returns how many VFs are to be created on a PF without a record: none if it has VFs already.
func newCount(pf hw.PF, want int) (int, error) {
	switch {
	case pf.NumVFs > 0 && want > 0 && want != pf.NumVFs:
		return 0, fmt.Errorf("option numvfs: %d is not possible: %s has %d vfs that the plugin did not make and does not "+
			"remove; leave the option out, or change their number on the host", want, pf, pf.NumVFs)
	case pf.NumVFs > 0:
		return 0, nil
	case want > pf.TotalVFs:
		return 0, fmt.Errorf("option numvfs: %d is not possible: %s can have %d vfs", want, pf, pf.TotalVFs)
	case want == 0:
		return pf.TotalVFs, nil
	}
	return want, nil
}

// keep has RemoveUnused leave a PF's VFs alone for keepFor if the caller that they were created for has given up: a NIC that needs longer than
// a call may take goes on where it was when the user, or a swarm, tries again.
func (p *Pool) keep(pci string, givenUp bool) {
	if givenUp {
		p.kept.Store(pci, time.Now().Add(keepFor))
	} else {
		p.kept.Delete(pci)
	}
}

// isKept reports whether a PF's VFs are kept for another attempt.
func (p *Pool) isKept(pci string) bool {
	until, ok := p.kept.Load(pci)
	return ok && time.Now().Before(until.(time.Time))
}

// createNew creates n VFs on a PF that has no record and no VFs. If it fails, it removes them, unless it is out of time, see keep.
func (p *Pool) createNew(ctx context.Context, pf hw.PF, n int) error {
	before, err := p.Host.SnapshotPF(pf)
	if err != nil {
		return err
	}
	rec := pfRecord{Version: ledger.Version, PCI: pf.PCI(), NumVFs: n, Before: before}
	r, err := p.put(ctx, store.Absent(pfKey(pf.PCI())), rec)
	if err != nil {
		return err
	}
	switch err := p.create(ctx, pf, r); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return err
	default:
		return errors.Join(err, p.removeLocked(context.WithoutCancel(ctx), pf.PCI()))
	}
}

// create creates the VFs of a record and marks it done. It also finishes what a crash has interrupted. What the record says about the
// PF before is from this boot: the host may have begun to use the PF since the last.
func (p *Pool) create(ctx context.Context, pf hw.PF, r ledger.Rev[pfRecord]) error {
	p.Counters.Count("vfs_made")
	p.Log.Info("creating vfs", zap.String("pf", pf.Name), zap.String("pci", pf.PCI()), zap.Int("numvfs", r.Rec.NumVFs))
	rec := r.Rec
	if rec.Boot != p.Host.Boot() {
		before, err := p.Host.SnapshotPF(pf)
		if err != nil {
			return err
		}
		rec.Before = before
	}
	if !pf.Up {
		p.Raising(pf.Netdev)
	}
	rec.Boot, rec.Done = p.Host.Boot(), false
	r, err := p.put(ctx, store.Unchanged(r.KV), rec)
	if err != nil {
		return err
	}
	if err := p.Host.EnableVFs(ctx, pf, rec.NumVFs); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%s: creating %d vfs takes longer than this call may; try again in some seconds, or use a smaller numvfs: %w",
				pf, rec.NumVFs, err)
		}
		return err
	}
	rec.Done = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishBound) // they exist, even if the caller has given up
	defer cancel()
	_, err = p.put(ctx, store.Unchanged(r.KV), rec)
	return err
}

func (p *Pool) put(ctx context.Context, cond store.Cond, rec pfRecord) (ledger.Rev[pfRecord], error) {
	key := pfKey(rec.PCI)
	res, err := ledger.Commit(ctx, p.Store, cond, ledger.Put(key, rec))
	return ledger.Rev[pfRecord]{Rec: rec, KV: store.KV{Key: key, Rev: res.Rev}}, err
}

// RemoveUnused removes the VFs that the plugin created on a PF if no network and no allocation needs them, and keep has not kept them. The caller holds the lock
// of all networks. It is an error if the host uses one of the VFs.
func (p *Pool) RemoveUnused(ctx context.Context, pci string) error {
	if pci == "" || p.isKept(pci) {
		return nil
	}
	unlock, err := p.Locks.Lock(ctx, LockName(pci))
	if err != nil {
		return err
	}
	defer unlock()
	if needed, err := p.needed(ctx, pci); needed || err != nil {
		return err
	}
	return errors.Join(p.forgetUp(ctx, pci), p.removeLocked(ctx, pci))
}

// RemoveAllUnused is RemoveUnused for all PFs.
func (p *Pool) RemoveAllUnused(ctx context.Context) error {
	all, err := ledger.List[pfRecord](ctx, p.Store, pfPrefix)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range all {
		errs = append(errs, p.RemoveUnused(ctx, r.Rec.PCI))
	}
	return errors.Join(append(errs, p.ForgetUnused(ctx))...)
}

// removeLocked removes a PF's VFs and its record, if the plugin created them. The caller holds the PF's lock.
func (p *Pool) removeLocked(ctx context.Context, pci string) error {
	r, err := ledger.Get[pfRecord](ctx, p.Store, pfKey(pci))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	pf, err := p.Host.PF(pci)
	switch {
	case r.Rec.Boot != p.Host.Boot(): // the reboot has removed them, and the PF may have no driver yet
	case errors.Is(err, hw.ErrNotFound): // gone with its VFs
	case err != nil:
		return err
	case p.ownedByAdmin(pf, r.Rec):
	default:
		if err := p.disable(ctx, pf, r.Rec.Before); err != nil {
			return err
		}
	}
	_, err = ledger.Commit(ctx, p.Store, store.Unchanged(r.KV), ledger.Del(r.KV.Key))
	return err
}

// disable removes a PF's VFs and restores the PF. hw refuses it while the host uses one of them; the reconciler tries it again.
func (p *Pool) disable(ctx context.Context, pf hw.PF, before hw.PFSnapshot) error {
	before, err := p.keepUp(ctx, pf, before)
	if err == nil {
		err = p.Host.DisableVFs(pf, before)
	}
	if err == nil {
		p.Counters.Count("vfs_removed")
		p.Log.Info("removed vfs", zap.String("pf", pf.Name), zap.String("pci", pf.PCI()), zap.Int("numvfs", pf.NumVFs))
	}
	return err
}

// keepUp returns how a PF is to be left: as it was before, but up while containers have children of it.
func (p *Pool) keepUp(ctx context.Context, pf hw.PF, before hw.PFSnapshot) (hw.PFSnapshot, error) {
	held, err := p.Allocations.List(ctx)
	for _, a := range held {
		before.Up = before.Up || a.Parent == pf.ID
	}
	return before, err
}
