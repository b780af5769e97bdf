package netdrv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/mellanox/passthrough/netdrv/ledger"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
)

// sharingPrefix is that of the keys of sharingRecords.
const sharingPrefix = "pf/"

func sharingKey(pci string) string { return sharingPrefix + pci }

// sharingRecord says that the VFs of a PF were made by the plugin, and how the PF was before. A PF without one had its
// VFs from somebody else, and keeps them.
type sharingRecord struct {
	Version int        `json:"v"`
	PCI     string     `json:"pci"`
	NumVFs  int        `json:"numvfs"`
	Boot    string     `json:"boot"` // the boot in which they were made
	Was     hw.Sharing `json:"was"`
	Done    bool       `json:"done"` // false: being made, or half made when a crash came
}

// share makes sure that a PF has VFs. If it has none they are made: want of them, or all for 0, and that is written down
// before, so that they, and only they, are removed again. The caller holds the PF's lock.
func (d *Driver) share(ctx context.Context, pf hw.PF, want int) error {
	r, err := ledger.Get[sharingRecord](ctx, d.store, sharingKey(pf.PCI()))
	switch {
	case errors.Is(err, store.ErrNotFound):
		return d.shareAnew(ctx, pf, want)
	case err != nil:
		return err
	case d.foreign(pf, r.Rec):
		if _, err := ledger.Commit(ctx, d.store, store.Unchanged(r.KV), ledger.Del(r.KV.Key)); err != nil {
			return err
		}
		return d.shareAnew(ctx, pf, want)
	case want > 0 && want != r.Rec.NumVFs:
		return fmt.Errorf("option numvfs: %d is not possible: the plugin made %d vfs on %s for other networks", want,
			r.Rec.NumVFs, pf)
	case r.Rec.Done && pf.NumVFs > 0:
		return nil
	}
	return d.makeVFs(ctx, pf, r)
}

// shareAll makes sure that several PFs have VFs, at the same time: a PF without a cable takes as long as the slowest link, and a few
// of them, one after the other, longer than a call may. Of several errors the one of the first PF is returned. The caller holds
// none of the PFs' locks.
func (d *Driver) shareAll(ctx context.Context, pfs []hw.PF, want int) error {
	errs := make([]error, len(pfs))
	var wg sync.WaitGroup
	for i, pf := range pfs {
		wg.Go(func() { errs[i] = d.shareLocked(ctx, pf, want) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// shareLocked is share for a caller without the PF's lock.
func (d *Driver) shareLocked(ctx context.Context, pf hw.PF, want int) error {
	unlock, err := d.locks.Lock(ctx, "pf "+pf.PCI())
	if err != nil {
		return err
	}
	defer unlock()
	if pf, err = d.host.PF(pf.PCI()); err != nil { // somebody else may have been quicker
		return err
	}
	return d.share(ctx, pf, want)
}

// foreign tells whether a PF's VFs are not the ones of its record: since the machine was started somebody else was quicker
// to make some, or an administrator has changed their number. They are his.
func (d *Driver) foreign(pf hw.PF, r sharingRecord) bool {
	return pf.NumVFs > 0 && (r.Boot != d.host.Boot() || r.NumVFs != pf.NumVFs)
}

// shareAnew shares a PF that the plugin has made no VFs on.
func (d *Driver) shareAnew(ctx context.Context, pf hw.PF, want int) error {
	switch {
	case pf.NumVFs > 0 && want > 0 && want != pf.NumVFs:
		return fmt.Errorf("option numvfs: %d is not possible: %s has %d vfs that the plugin did not make and does not "+
			"remove; leave the option out, or change their number on the host", want, pf, pf.NumVFs)
	case pf.NumVFs > 0:
		return nil
	case want > pf.TotalVFs:
		return fmt.Errorf("option numvfs: %d is not possible: %s can have %d vfs", want, pf, pf.TotalVFs)
	case want == 0:
		want = pf.TotalVFs
	}
	was, err := d.host.Sharing(pf)
	if err != nil {
		return err
	}
	rec := sharingRecord{Version: ledger.Version, PCI: pf.PCI(), NumVFs: want, Was: was}
	r, err := d.putSharing(ctx, store.Absent(sharingKey(pf.PCI())), rec)
	if err != nil {
		return err
	}
	if err := d.makeVFs(ctx, pf, r); err != nil {
		return errors.Join(err, d.unmakeVFs(context.WithoutCancel(ctx), pf.PCI()))
	}
	return nil
}

// makeVFs makes the VFs of a sharing record and marks it done. It finishes what a crash has left half made. How the PF was
// before is how it was in this boot: the host may have begun to use it since the last.
func (d *Driver) makeVFs(ctx context.Context, pf hw.PF, r ledger.Rev[sharingRecord]) error {
	d.counters.Count("vfs_made")
	d.log.Info("making vfs", zap.String("pf", pf.Name), zap.String("pci", pf.PCI()), zap.Int("numvfs", r.Rec.NumVFs))
	rec := r.Rec
	if rec.Boot != d.host.Boot() {
		was, err := d.host.Sharing(pf)
		if err != nil {
			return err
		}
		rec.Was = was
	}
	rec.Boot, rec.Done = d.host.Boot(), false
	r, err := d.putSharing(ctx, store.Unchanged(r.KV), rec)
	if err != nil {
		return err
	}
	if err := d.host.EnableVFs(ctx, pf, rec.NumVFs); err != nil {
		return err
	}
	rec.Done = true
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound) // they are there, whoever has given up meanwhile
	defer cancel()
	_, err = d.putSharing(ctx, store.Unchanged(r.KV), rec)
	return err
}

func (d *Driver) putSharing(ctx context.Context, cond store.Cond, rec sharingRecord) (ledger.Rev[sharingRecord], error) {
	key := sharingKey(rec.PCI)
	res, err := ledger.Commit(ctx, d.store, cond, ledger.Put(key, rec))
	return ledger.Rev[sharingRecord]{Rec: rec, KV: store.KV{Key: key, Rev: res.Rev}}, err
}

// retireSharing removes the VFs that the plugin made on a PF once no network and no allocation needs them. The caller holds
// the lock of all networks. A PF whose VFs somebody else has got hold of is left alone, and tried again later.
func (d *Driver) retireSharing(ctx context.Context, pci string) error {
	if pci == "" {
		return nil
	}
	unlock, err := d.locks.Lock(ctx, "pf "+pci)
	if err != nil {
		return err
	}
	defer unlock()
	if needed, err := d.sharingNeeded(ctx, pci); needed || err != nil {
		return err
	}
	return d.unmakeVFs(ctx, pci)
}

// sharingNeeded tells whether a network or an allocation stands on the PF's VFs.
func (d *Driver) sharingNeeded(ctx context.Context, pci string) (bool, error) {
	networks, err := ledger.List[ledger.Network](ctx, d.store, ledger.NetworkPrefix)
	if err != nil {
		return false, err
	}
	for _, n := range networks {
		ours := slices.ContainsFunc(n.Rec.Devices, func(d ledger.Device) bool { return d.ID.PCI() == pci })
		if ours && recordedMode(n.Rec) == option.ModeSRIOV {
			return true, nil
		}
	}
	loans, err := d.allocs.List(ctx)
	for _, l := range loans {
		if l.PF == pci {
			return true, err
		}
	}
	return false, err
}

// unmakeVFs undoes makeVFs, if the VFs are the plugin's. The caller holds the PF's lock.
func (d *Driver) unmakeVFs(ctx context.Context, pci string) error {
	r, err := ledger.Get[sharingRecord](ctx, d.store, sharingKey(pci))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	pf, err := d.host.PF(pci)
	switch {
	case r.Rec.Boot != d.host.Boot(): // the reboot has undone it, and the PF may have no driver yet
	case errors.Is(err, hw.ErrNotFound): // gone with its VFs
	case err != nil:
		return err
	case d.foreign(pf, r.Rec): // an administrator has
	default:
		if err := d.disableVFs(ctx, pf, r.Rec.Was); err != nil {
			return err
		}
	}
	_, err = ledger.Commit(ctx, d.store, store.Unchanged(r.KV), ledger.Del(r.KV.Key))
	return err
}

// disableVFs removes a PF's VFs and says so. It is refused while the host uses one of them, and tried again every minute.
func (d *Driver) disableVFs(ctx context.Context, pf hw.PF, was hw.Sharing) error {
	was, err := d.sharedWith(ctx, pf, was)
	if err == nil {
		err = d.host.DisableVFs(pf, was)
	}
	if err == nil {
		d.counters.Count("vfs_removed")
		d.log.Info("removed vfs", zap.String("pf", pf.Name), zap.String("pci", pf.PCI()), zap.Int("numvfs", pf.NumVFs))
	}
	return err
}

// sharedWith is how a PF is to be left without its VFs: as it was, but up while containers have children of it.
func (d *Driver) sharedWith(ctx context.Context, pf hw.PF, was hw.Sharing) (hw.Sharing, error) {
	loans, err := d.allocs.List(ctx)
	for _, l := range loans {
		was.Up = was.Up || l.Parent == pf.ID
	}
	return was, err
}
