package vfpool

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// programPrefix is that of the keys of programVFs.
const programPrefix = "program/"

// A programVF says that the plugin has bound a VF to a driver for programs, and keeps it there from one container to the next: its file in /dev
// is to be there before a container is started. It is written before the VF is bound.
type programVF struct {
	record.Extra
	Version int         `json:"v"`
	Device  hw.ID       `json:"device"`
	PF      string      `json:"pf"` // PCI address
	VF      int         `json:"vf"`
	Driver  string      `json:"driver"`
	Boot    string      `json:"boot"` // the boot in which it was bound: a reboot unbinds it
	Before  hw.Snapshot `json:"was"`
}

func programKey(id hw.ID) string { return programPrefix + string(id) }

// A VFRange is VFs of a PF.
type VFRange struct {
	PF      string // PCI address
	Indexes []int  // none for all
	Driver  string // the driver for programs that they are bound to; "" for their own
}

// has reports whether a VF is one of them.
func (r VFRange) has(v programVF) bool {
	return r.PF == v.PF && r.Driver == v.Driver && (len(r.Indexes) == 0 || slices.Contains(r.Indexes, v.VF))
}

// ProgramVFs are the VFs that are kept bound to drivers for programs.
type ProgramVFs struct {
	host        *hw.Host
	store       store.Store
	locks       *keylock.Map
	allocations *alloc.Table
}

// ForPrograms returns the VFs that are kept bound to drivers for programs.
func (p *Pool) ForPrograms() ProgramVFs { return ProgramVFs{p.Host, p.Store, p.Locks, p.Allocations} }

// KeepsFor returns the driver for programs that the plugin keeps a VF bound to; "" if it does not.
func (p ProgramVFs) KeepsFor(ctx context.Context, id hw.ID) (string, error) {
	r, err := p.get(ctx, id)
	return r.Rec.Driver, err
}

// IDs returns the IDs of the VFs that are kept bound to a driver for programs.
func (p ProgramVFs) IDs(ctx context.Context) (ids []string, _ error) {
	all, err := ledger.List[programVF](ctx, p.store, programPrefix)
	for _, r := range all {
		if r.Rec.Boot == p.host.Boot() {
			ids = append(ids, string(r.Rec.Device))
		}
	}
	return ids, err
}

// get returns the record of a VF from this boot, the zero value if there is none.
func (p ProgramVFs) get(ctx context.Context, id hw.ID) (ledger.Rev[programVF], error) {
	r, err := ledger.Get[programVF](ctx, p.store, programKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return ledger.Rev[programVF]{}, nil
	}
	if err == nil && r.Rec.Boot != p.host.Boot() {
		r.Rec = programVF{}
	}
	return r, err
}

// Taken returns why a VF is not free to be given to a program, in words that follow its name; "" if it is. One that the plugin keeps
// bound for programs is free unless a program has it open.
func (p ProgramVFs) Taken(ctx context.Context, vf hw.VF) (string, error) {
	kept, err := p.KeepsFor(ctx, vf.ID())
	if err != nil {
		return "", err
	}
	if kept == "" || vf.Driver != "" && vf.Driver != kept {
		why, err := p.host.Taken(vf)
		if why != "" || err != nil {
			return why, err
		}
	} else if open, err := p.host.OpenByProgram(vf); err != nil || open && vf.Driver == kept {
		return "is open by a program", err
	}
	return p.host.NotIsolated(vf)
}

// bind binds a VF that is free to a driver for programs, and keeps it there; see Release. The caller holds the VF's lock.
func (p ProgramVFs) bind(ctx context.Context, pf hw.PF, vf hw.VF, driver string) error {
	r, err := p.get(ctx, vf.ID())
	if err != nil || r.Rec.Driver != "" && vf.Driver == driver {
		return err
	}
	if why, err := p.Taken(ctx, vf); why != "" || err != nil {
		return err
	}
	if err := p.host.CheckUserDriver(pf, driver, true); err != nil { // force was checked when the network was created
		return err
	}
	if r.Rec.Driver == "" || vf.Driver != "" { // otherwise it was being bound when the process ended
		if err := p.record(ctx, r, pf, vf, driver); err != nil {
			return err
		}
	}
	return p.host.BindUserVF(ctx, vf, driver)
}

// record writes how a VF is before it is bound to a driver for programs, in the place of an older record.
func (p ProgramVFs) record(ctx context.Context, old ledger.Rev[programVF], pf hw.PF, vf hw.VF, driver string) error {
	before, err := p.host.SnapshotVF(pf, vf)
	if err != nil {
		return err
	}
	before.Unbound = vf.Driver == ""
	if old.Rec.Driver != "" {
		before.Override = old.Rec.Before.Override
	}
	cond := store.Absent(programKey(vf.ID()))
	if old.KV.Key != "" {
		cond = store.Unchanged(old.KV)
	}
	_, err = ledger.Commit(ctx, p.store, cond, ledger.Put(programKey(vf.ID()), programVF{Version: ledger.Version, Device: vf.ID(),
		PF: pf.PCI(), VF: vf.Index, Driver: driver, Boot: p.host.Boot(), Before: before}))
	return err
}

// Release restores the VFs that are kept for programs and are not in wanted. One that a container or a program has is left for the next
// call. more is true if it has to be called again soon. The caller holds the lock of all networks.
func (p ProgramVFs) Release(ctx context.Context, wanted []VFRange) (more bool, _ error) {
	all, err := ledger.List[programVF](ctx, p.store, programPrefix)
	if err != nil {
		return false, err
	}
	var errs []error
	start := time.Now()
	for _, r := range all {
		if slices.ContainsFunc(wanted, func(w VFRange) bool { return w.has(r.Rec) }) {
			continue
		}
		if time.Since(start) > bindBound || ctx.Err() != nil {
			return true, errors.Join(errs...)
		}
		errs = append(errs, p.release(ctx, r))
	}
	return false, errors.Join(errs...)
}

// release restores a VF that no container has, and removes its record. After a reboot there is nothing to restore. It holds the lock of the
// PF, as bindFree does.
func (p ProgramVFs) release(ctx context.Context, r ledger.Rev[programVF]) error {
	v := r.Rec
	unlockPF, err := p.locks.Lock(ctx, LockName(v.PF))
	if err != nil {
		return err
	}
	defer unlockPF()
	unlock, ok := p.locks.TryLock(alloc.Key(v.Device))
	if !ok {
		return nil
	}
	defer unlock()
	if _, err := p.allocations.Get(ctx, v.Device); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if v.Boot == p.host.Boot() {
		err := p.host.UnbindUserVF(ctx, v.PF, v.VF, v.Device, v.Driver, v.Before)
		if err == nil {
			err = p.host.RestoreVF(ctx, v.PF, v.VF, v.Device, v.Before)
		}
		if err != nil {
			return err
		}
	}
	_, err = ledger.Commit(ctx, p.store, store.Unchanged(r.KV), ledger.Del(r.KV.Key))
	return err
}
