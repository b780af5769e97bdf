package alloc

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/store"
)

// A Table reads and writes the allocations of one host. Callers hold the lock of a device, [Key], while they change its allocation.
type Table struct {
	Store    store.Store
	Boot     string // of the host, see hw.Host.Boot
	Log      *zap.Logger
	Counters *metrics.Counters
	// EndsBy returns by when an endpoint that the engine seems to have forgotten is removed if nothing changes; the zero time if it is kept.
	// It may be nil.
	EndsBy func(network, endpoint string) time.Time
}

// A Set has allocations by their devices. A device that is not in it is free.
type Set map[hw.ID]*Allocation

// InOrder returns the allocations in the order in which they can end: those that are part of another come last.
func (s Set) InOrder() []*Allocation {
	return slices.SortedFunc(maps.Values(s), func(a, b *Allocation) int {
		return cmp.Or(cmp.Compare(a.PartOf, b.PartOf), cmp.Compare(a.Device, b.Device))
	})
}

// List reads all allocations.
func (t *Table) List(ctx context.Context) (Set, error) {
	all, err := ledger.List[Record](ctx, t.Store, Prefix)
	if err != nil {
		return nil, err
	}
	set := make(Set, len(all))
	for _, r := range all {
		set[r.Rec.Device] = t.read(r)
	}
	return set, nil
}

// Get reads the allocation of a device. The error matches store.ErrNotFound if the device is free.
func (t *Table) Get(ctx context.Context, id hw.ID) (*Allocation, error) {
	r, err := ledger.Get[Record](ctx, t.Store, Key(id))
	if err != nil {
		return nil, err
	}
	return t.read(r), nil
}

// Current returns the allocation a as it is in the ledger now, which is a itself if it has not changed. The error is that of Get.
func (t *Table) Current(ctx context.Context, a *Allocation) (*Allocation, error) {
	if kv, err := t.Store.Get(ctx, Key(a.Device)); err == nil && kv.Rev == a.rev {
		return a, nil
	}
	return t.Get(ctx, a.Device)
}

func (t *Table) read(r ledger.Rev[Record]) *Allocation {
	a := &Allocation{Record: r.Rec, rev: r.KV.Rev, fromEarlierBoot: r.Rec.Boot != t.Boot}
	if t.EndsBy != nil && !a.Ending() {
		a.endsBy = t.EndsBy(a.Network, a.Endpoint)
	}
	return a
}

// Start writes a new allocation and its parts together with the record of its endpoint. If one of the devices or the endpoint has
// a record already, Start writes nothing and returns taken.
func (t *Table) Start(ctx context.Context, a *Allocation, e ledger.Endpoint) (taken bool, err error) {
	all := a.All()
	address, _, _ := strings.Cut(cmp.Or(e.Addrs...), "/")
	for _, x := range all {
		x.Address = address
		x.Network, x.Endpoint, x.Container, x.Owner, x.Version, x.Boot = e.Network, e.ID, e.Container, e.Owner, ledger.Version, t.Boot
	}
	a.Leases = e.Leases
	res, err := t.transition(ctx, all, Claimed, []store.Cond{store.Absent(e.Key())}, ledger.Put(e.Key(), e))
	if err != nil || !res.OK {
		return err == nil, err
	}
	t.report(a, free)
	return false, nil
}

// Reserve writes a new allocation that belongs to no endpoint. If the device has a record already, it writes nothing and returns taken.
func (t *Table) Reserve(ctx context.Context, a *Allocation) (taken bool, err error) {
	a.Version, a.Boot = ledger.Version, t.Boot
	res, err := t.transition(ctx, []*Allocation{a}, Claimed, nil)
	if err != nil || !res.OK {
		return err == nil, err
	}
	t.report(a, free)
	return false, nil
}

// Advance writes the next state of an allocation, and all else that belongs to the step.
func (t *Table) Advance(ctx context.Context, a *Allocation, to State, also ...ledger.Write) error {
	was := a.State
	res, err := t.transition(ctx, []*Allocation{a}, to, nil, also...)
	if err != nil {
		return err
	}
	if !res.OK {
		return ledger.ErrChanged(res.Failed.Key)
	}
	t.report(a, was)
	return nil
}

// Save writes a claimed allocation whose snapshot was completed.
func (t *Table) Save(ctx context.Context, a *Allocation) error { return t.Advance(ctx, a, Claimed) }

// MarkReady writes that an endpoint has its device, and that its container has had it. Parts come first: they end with what they are
// part of, should a crash come in between.
func (t *Table) MarkReady(ctx context.Context, a *Allocation, e ledger.Endpoint) error {
	also, err := t.remember(ctx, a)
	if err != nil {
		return err
	}
	for _, p := range a.Parts {
		if err := t.Advance(ctx, p, Ready); err != nil {
			return err
		}
	}
	return t.Advance(ctx, a, Ready, append(also, ledger.Put(e.Key(), e))...)
}

// MarkClean writes that nothing of a container is left on a device whose endpoint is gone.
func (t *Table) MarkClean(ctx context.Context, a *Allocation) error {
	clean := *a
	clean.Clean = true
	return t.rewrite(ctx, a, clean)
}

// MarkUnbound writes that a VF is not bound to a driver for programs any more.
func (t *Table) MarkUnbound(ctx context.Context, a *Allocation) error {
	unbound := *a
	unbound.UserDriver, unbound.Clean = "", true
	return t.rewrite(ctx, a, unbound)
}

// rewrite writes an allocation in the state that it has.
func (t *Table) rewrite(ctx context.Context, a *Allocation, as Allocation) error {
	res, err := t.transition(ctx, []*Allocation{&as}, a.State, nil)
	switch {
	case err != nil:
		return err
	case !res.OK:
		return ledger.ErrChanged(res.Failed.Key)
	}
	*a = as
	return nil
}

// Quarantine keeps a device out of use and records why. It returns why.
func (t *Table) Quarantine(ctx context.Context, a *Allocation, why error) error {
	was := a.Reason
	a.Reason = why.Error()
	if a.State == Quarantined && a.Reason == was {
		return why
	}
	return errors.Join(why, t.Advance(ctx, a, Quarantined))
}

// TakeOut writes an allocation that keeps a free device out of use, because an administrator wants it to be, and why. If the device has a
// record already, it writes nothing and returns taken.
func (t *Table) TakeOut(ctx context.Context, a *Allocation, why string) (taken bool, err error) {
	a.Version, a.Boot, a.Reason, a.Manual, a.Clean = ledger.Version, t.Boot, why, true, true
	res, err := t.transition(ctx, []*Allocation{a}, Quarantined, nil)
	if err != nil || !res.OK {
		return err == nil, err
	}
	t.report(a, free)
	return false, nil
}

// PutBack writes that a device may be tried again that an administrator had taken out of use.
func (t *Table) PutBack(ctx context.Context, a *Allocation) error {
	back := *a
	back.Manual = false
	return t.rewrite(ctx, a, back)
}

// End removes the allocation of a device that is restored.
func (t *Table) End(ctx context.Context, a *Allocation) error { return t.Advance(ctx, a, free) }

// transition writes one state to the records of several allocations. It is the only function that changes a state. A result that is
// not OK says that another process has written one of the records, or that one of conds does not hold.
func (t *Table) transition(ctx context.Context, all []*Allocation, to State, conds []store.Cond, also ...ledger.Write) (store.Result, error) {
	records := make([]Record, len(all))
	for i, a := range all {
		if err := a.checkNext(to); err != nil {
			return store.Result{}, err
		}
		records[i] = a.Record
		if records[i].State != to {
			records[i].State, records[i].Since = to, time.Now()
			records[i].Clean = a.Clean || to == Freeing && a.State != Lent
		}
		conds = append(conds, a.unchanged())
		if to == free {
			also = append(also, ledger.Del(Key(a.Device)))
		} else {
			also = append(also, ledger.Put(Key(a.Device), records[i]))
		}
	}
	res, err := ledger.Transact(ctx, t.Store, conds, also...)
	if err != nil || !res.OK {
		return res, err
	}
	for i, a := range all {
		a.Record, a.rev = records[i], res.Rev
	}
	return res, nil
}

// report logs and counts the state that a device got into from another. The log has at level info what an operator asks about afterwards:
// that a device is free again, or quarantined. That a container has it is logged with what the container has; the rest is at level debug.
func (t *Table) report(a *Allocation, was State) {
	t.Counters.Count("devices_" + a.State.name())
	switch a.State {
	case free:
		kind := admin.EventRelease
		if was == Quarantined {
			kind = admin.EventQuarantineEnd
		}
		t.Log.Info("released", append(a.Fields(), zap.String(admin.EventKey, kind))...)
	case Quarantined:
		level := zapcore.ErrorLevel
		if a.Manual {
			level = zapcore.InfoLevel
		}
		t.Log.Log(level, "quarantined", append(a.Fields(), zap.String("reason", a.Reason), zap.String(admin.EventKey, admin.EventQuarantine))...)
	default:
		t.Log.Debug("device", append(a.Fields(), a.State.Field())...)
	}
}
