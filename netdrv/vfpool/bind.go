package vfpool

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/store"
)

// bindBound is how long BindMade goes on: its caller holds the lock of all networks.
const bindBound = 4 * time.Second

// BindEarly binds VFs before a container has them, because they have their files in /dev only then. To their own driver it binds those that the
// plugin has created and that are unbound; to one for programs all that are free. A VF that a container has, or that a call is at work on, is
// left alone. more is true if it has to be called again. The caller holds the lock of all networks, so that the VFs stay.
func (p *Pool) BindEarly(ctx context.Context, pf hw.PF, r VFRange) (more bool, err error) {
	made, err := p.made(ctx, pf)
	if err != nil || !made && r.Driver == "" {
		return false, err
	}
	vfs, err := p.Host.VFs(pf)
	if err != nil {
		return false, err
	}
	for start := time.Now(); len(vfs) > 0; vfs = vfs[1:] {
		vf := vfs[0]
		if len(r.Indexes) > 0 && !slices.Contains(r.Indexes, vf.Index) || r.Driver == "" && (vf.Driver != "" || vf.Override != "") {
			continue
		}
		if time.Since(start) > bindBound || ctx.Err() != nil {
			more = true
			break
		}
		if err := p.bindFree(ctx, pf, vf, r.Driver); err != nil { // the others may have the same fault, which takes seconds to find out
			return false, err
		}
	}
	return more, nil
}

// bindFree binds a VF that is free to a driver for programs, "" for its own. A call that selects a VF has read its driver, so one for programs is
// bound under the lock of the PF, which such a call holds until its allocation is written.
func (p *Pool) bindFree(ctx context.Context, pf hw.PF, vf hw.VF, driver string) error {
	if driver != "" {
		unlockPF, err := p.Locks.Lock(ctx, LockName(pf.PCI()))
		if err != nil {
			return err
		}
		defer unlockPF()
	}
	unlock, ok := p.Locks.TryLock(alloc.Key(vf.ID()))
	if !ok {
		return nil
	}
	defer unlock()
	if _, err := p.Allocations.Get(ctx, vf.ID()); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if driver != "" {
		return p.bindForPrograms(ctx, pf, vf.ID(), driver)
	}
	pf, vf, err := p.Host.VF(pf.PCI(), vf.Index, vf.ID()) // as it is now
	if err == nil && vf.Driver == "" {
		_, err = p.Host.Bind(ctx, pf, vf)
	}
	return err
}

// bindForPrograms binds a VF to a driver for programs, if it is free as it is now: what it carries counts as well.
func (p *Pool) bindForPrograms(ctx context.Context, pf hw.PF, id hw.ID, driver string) error {
	pf, err := p.Host.PF(pf.PCI())
	if err != nil {
		return err
	}
	vfs, err := p.Host.VFs(pf)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(vfs, func(vf hw.VF) bool { return vf.ID() == id })
	if i < 0 {
		return &hw.Error{Dev: string(id), Err: hw.ErrNotFound}
	}
	return p.ForPrograms().bind(ctx, pf, vfs[i], driver)
}
