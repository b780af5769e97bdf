// Package vfpool has the PFs and their VFs: it finds the PFs of a network, creates and removes their VFs, and selects a free VF.
//
// VFs that the plugin creates are recorded before, so that they, and only they, are removed again. VFs that a PF had already, or whose
// number an administrator has changed, belong to the administrator and stay.
package vfpool

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// pfPrefix is that of the keys of pfRecords.
const pfPrefix = "pf/"

// finishBound bounds a write that is done although the caller's own time is up.
const finishBound = 8 * time.Second

// keepFor is how long VFs are kept for a user who tries again.
const keepFor = time.Minute

// pfRecord says that the plugin created the VFs of a PF, and how the PF was before.
type pfRecord struct {
	record.Extra
	Version int           `json:"v"`
	PCI     string        `json:"pci"`
	NumVFs  int           `json:"numvfs"`
	Boot    string        `json:"boot"` // the boot in which they were created
	Before  hw.PFSnapshot `json:"was"`
	Done    bool          `json:"done"` // false while they are being created, and after a crash in the middle of that
}

func pfKey(pci string) string { return pfPrefix + pci }

// LockName is the name of a PF's lock. A device that is no PF has one as well.
func LockName(pci string) string { return "pf " + pci }

// A Pool creates and removes the VFs of one host's PFs.
type Pool struct {
	Host        *hw.Host
	Store       store.Store
	Log         *zap.Logger
	Locks       *keylock.Map
	Allocations *alloc.Table
	Counters    *metrics.Counters

	kept sync.Map // see keep; the time until when, by the PF's PCI address
}

// Near is what PFs can be near to.
type Near struct {
	CPUs hw.CPUs  // that interrupts are to go to; empty for any
	PCI  []string // addresses of devices; empty for none
}

// Inventory reads the PFs of a network and their VFs. It creates missing VFs, such as after a reboot or when the PF was plugged in
// again. A PF that is gone or broken takes only its own VFs out of the network: missing says why. The caller holds the PFs' locks.
func (p *Pool) Inventory(ctx context.Context, devices []ledger.Device, near Near) (pfs []PF, missing []error) {
	all, errs := make([]PF, len(devices)), make([]error, len(devices))
	var wg sync.WaitGroup
	for i, dev := range devices { // concurrently: VFs may have to be created, see EnsureAll
		wg.Go(func() { all[i], errs[i] = p.read(ctx, dev.ID.PCI(), near) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			missing = append(missing, err)
			continue
		}
		pfs = append(pfs, all[i])
	}
	return pfs, missing
}

// read reads one PF and its VFs.
func (p *Pool) read(ctx context.Context, pci string, near Near) (pf PF, err error) {
	if pf.PF, err = p.Host.UsablePF(pci); err != nil {
		return pf, err
	}
	if err := p.CheckUp(ctx, pf.Netdev); err != nil {
		return pf, err
	}
	if pf.NumVFs == 0 {
		if err := p.ensureLocked(ctx, pf.PF, 0); err != nil {
			return pf, err
		}
	}
	if pf.VFs, err = p.Host.VFs(pf.PF); err != nil {
		return pf, err
	}
	if pf.States, err = p.Host.VFStates(pf.PF); err != nil {
		return pf, err
	}
	if pf.Made, err = p.made(ctx, pf.PF); err != nil {
		return pf, err
	}
	if pf.Near, err = p.Host.Near(pf.PF, near.CPUs); err != nil {
		return pf, err
	}
	_, pf.Far, err = p.Host.Topology().Nearest(pci, near.PCI)
	return pf, err
}

// made reports whether the plugin has created the VFs that a PF has.
func (p *Pool) made(ctx context.Context, pf hw.PF) (bool, error) {
	r, err := ledger.Get[pfRecord](ctx, p.Store, pfKey(pf.PCI()))
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	return err == nil && !p.ownedByAdmin(pf, r.Rec), err
}

// needed reports whether a network or an allocation needs the PF's VFs: also one that has a VF whole, or a child of one.
func (p *Pool) needed(ctx context.Context, pci string) (bool, error) {
	users, err := p.users(ctx, pci)
	if len(users) > 0 || err != nil {
		return len(users) > 0, err
	}
	held, err := p.Allocations.List(ctx)
	if err != nil {
		return false, err
	}
	for _, a := range held {
		pf := a.PF
		if pf == "" {
			if pf, err = p.Host.PFOf(a.LowerDevice()); err != nil {
				return false, err
			}
		}
		if pf == pci {
			return true, nil
		}
	}
	return false, nil
}

// users returns the networks that use a PF's VFs, by their short IDs.
func (p *Pool) users(ctx context.Context, pci string) ([]string, error) {
	networks, err := ledger.List[ledger.Network](ctx, p.Store, ledger.NetworkPrefix)
	if err != nil {
		return nil, err
	}
	var users []string
	for _, n := range networks {
		o, err := option.ParseStored(n.Rec.Options)
		if err != nil {
			continue
		}
		for _, d := range n.Rec.Devices {
			pf := d.ID.PCI()
			if !o.UsesVFs() {
				if pf, err = p.Host.PFOf(d.ID); err != nil {
					return nil, err
				}
			}
			if pf == pci {
				users = append(users, ledger.ShortID(n.Rec.ID))
				break
			}
		}
	}
	return users, nil
}

// present reports whether a PF is in the host. A PF that cannot be read counts as present.
func (p *Pool) present(pci string) bool {
	_, err := p.Host.PF(pci)
	return !absent(err)
}

// absent reports whether an error says that a PF has no netdev in the host; its driver may still be to come.
func absent(err error) bool { return errors.Is(err, hw.ErrNotFound) || errors.Is(err, hw.ErrAway) }
