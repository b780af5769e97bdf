package netdrv

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store"
)

// Operate does with a device what an administrator asks for: it is taken out of use, tried again, or freed. An error says that nothing was
// changed, or why the device is still quarantined.
func (d *Driver) Operate(ctx context.Context, r *admin.DeviceRequest) (*admin.DeviceAnswer, error) {
	var text string
	var err error
	switch id := hw.ID(r.Device); {
	case r.Device == "":
		err = errors.New("which device? Give its ID, as Passthrough.Status has it")
	case r.Action == admin.QuarantineDevice:
		text, err = d.reconciler.takeOut(ctx, id, r.Reason)
	case r.Action == admin.RetryDevice:
		text, err = d.reconciler.retry(ctx, id)
	case r.Action == admin.FreeDevice:
		text, err = d.reconciler.free(ctx, id, r.Endpoint)
	default:
		err = fmt.Errorf("action %.64q: must be %s, %s or %s", r.Action, admin.QuarantineDevice, admin.RetryDevice, admin.FreeDevice)
	}
	if err != nil {
		return nil, err
	}
	d.reconciler.nudge()
	return &admin.DeviceAnswer{Text: text}, nil
}

// takeOut quarantines a VF that is free until an administrator has it tried again. Nothing is changed on it: what its record has is what it
// has now.
func (r *reconciler) takeOut(ctx context.Context, id hw.ID, reason string) (string, error) {
	pci, err := r.host.PFOf(id)
	if err != nil {
		return "", err
	}
	if pci == "" {
		return "", fmt.Errorf("%s is not a vf; only vfs can be taken out of use", id)
	}
	unlock, err := r.locks.Lock(ctx, vfpool.LockName(pci))
	if err != nil {
		return "", err
	}
	defer unlock()
	pf, vf, err := r.freeVF(ctx, pci, id)
	if err != nil {
		return "", err
	}
	unlockVF, err := r.locks.Lock(ctx, alloc.Key(id))
	if err != nil {
		return "", err
	}
	defer unlockVF()
	snap, err := r.host.SnapshotVF(pf, vf)
	if err != nil {
		return "", err
	}
	a := &alloc.Allocation{Record: alloc.Record{Device: id, Mode: option.ModeSRIOV, PF: pf.PCI(), VF: vf.Index, Label: vf.String(), Snapshot: snap}}
	taken, err := r.allocs.TakeOut(ctx, a, "by an administrator"+colon(reason))
	if err == nil && taken {
		err = fmt.Errorf("%s was given to a container at this moment", vf)
	}
	return vf.String() + " is out of use; passthroughctl retry puts it back", err
}

// colon returns a text after a colon, "" for none.
func colon(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// freeVF returns a VF of a PF, and refuses one that is not free. The caller holds the PF's lock.
func (r *reconciler) freeVF(ctx context.Context, pci string, id hw.ID) (hw.PF, hw.VF, error) {
	pf, err := r.host.UsablePF(pci)
	if err != nil {
		return pf, hw.VF{}, err
	}
	vfs, err := r.host.VFs(pf)
	if err != nil {
		return pf, hw.VF{}, err
	}
	for _, vf := range vfs {
		if vf.ID() != id {
			continue
		}
		a, err := r.allocs.Get(ctx, id)
		if err == nil {
			return pf, vf, fmt.Errorf("%s; only a free vf can be taken out of use", a.Holder())
		}
		if !errors.Is(err, store.ErrNotFound) {
			return pf, vf, err
		}
		used, err := r.host.Taken(vf)
		if err == nil && used != "" {
			err = fmt.Errorf("%s %s; containers do not get it", vf, used)
		}
		return pf, vf, err
	}
	return pf, hw.VF{}, fmt.Errorf("%s has no vf %s", pf, id)
}

// lockHeld locks a device that is not free, and returns its allocation.
func (r *reconciler) lockHeld(ctx context.Context, id hw.ID) (a *alloc.Allocation, unlock func(), err error) {
	unlock, err = r.locks.Lock(ctx, alloc.Key(id))
	if err != nil {
		return nil, nil, err
	}
	a, err = r.allocs.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		err = fmt.Errorf("%s is neither in use nor quarantined: it is free, or not a device of the plugin", id)
	}
	if err != nil {
		unlock()
		return nil, nil, err
	}
	return a, unlock, nil
}

// retry releases a quarantined device at once: one that could not be restored, or one that an administrator has taken out of use.
func (r *reconciler) retry(ctx context.Context, id hw.ID) (string, error) {
	a, unlock, err := r.lockHeld(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()
	if a.State != alloc.Quarantined {
		return "", fmt.Errorf("%s; it is not quarantined", a.Holder())
	}
	if a.Manual {
		if err := r.allocs.PutBack(ctx, a); err != nil {
			return "", err
		}
	}
	r.counters.Count("tried_again")
	if err := r.attempt(ctx, a); err != nil {
		return "", fmt.Errorf("%s is still quarantined: %w", a.Label, err)
	}
	return a.Label + " is free", nil
}

// free ends an allocation whose container is gone, as the caller has found out from the engine: that does not know the endpoint any more. A
// device that is in a container nevertheless stays there until that has ended.
func (r *reconciler) free(ctx context.Context, id hw.ID, endpoint string) (string, error) {
	a, unlock, err := r.lockHeld(ctx, id)
	if err != nil {
		return "", err
	}
	defer unlock()
	switch {
	case a.State == alloc.Quarantined:
		return "", fmt.Errorf("%s is quarantined; passthroughctl retry tries to release it", a.Label)
	case a.Ending():
		return "", fmt.Errorf("%s; it is free as soon as the kernel has moved it home", a.Holder())
	case a.PartOf != "":
		return "", fmt.Errorf("%s is a port of the bond %s; free that", a.Label, a.PartOf)
	case a.Endpoint != endpoint:
		return "", fmt.Errorf("%s; that is another endpoint than %s", a.Holder(), ledger.ShortID(endpoint))
	}
	var addrs []string
	if _, err := r.host.Find(id); err == nil { // otherwise its container may use them still
		if addrs, err = r.addressesOf(ctx, a); err != nil {
			return "", err
		}
	}
	if err := r.endOrphan(ctx, a, addrs, "an administrator has freed it"); err != nil {
		return "", err
	}
	if err := r.attempt(ctx, a); err != nil {
		if !ofDevice(err) {
			return "", err
		}
		r.log.Info("device not released yet", append(a.Fields(), zap.NamedError("err", err))...)
		return a.Label + " will be free when it is home: " + err.Error(), nil
	}
	return a.Label + " is free", nil
}
