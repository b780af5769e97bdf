package netdrv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/engineview"
	"github.com/mellanox/passthrough/netdrv/health"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
)

// freeOrphan marks an allocation as freeing if the engine does not know its endpoint any more. due is when it will be an orphan if
// nothing changes; 0 for never. The caller holds the device's lock.
func (r *reconciler) freeOrphan(ctx context.Context, a *alloc.Allocation) (due time.Duration, err error) {
	facts, err := r.facts(ctx, a)
	if err != nil {
		return 0, err
	}
	v := r.engine.Verdict(facts, time.Now())
	switch v.Action {
	case engineview.Keep:
		return v.After, nil
	case engineview.FreePart:
		return 0, r.allocs.Advance(ctx, a, alloc.Freeing)
	}
	var addrs []string
	if v.Waited || a.Owner != nil { // an owner makes no call that would release them
		if addrs, err = r.addressesOf(ctx, a); err != nil {
			return 0, err
		}
	}
	return 0, r.endOrphan(ctx, a, addrs, v.Reason)
}

// addressesOf returns the addresses of the endpoint of an allocation, none if it has no record.
func (r *reconciler) addressesOf(ctx context.Context, a *alloc.Allocation) ([]string, error) {
	e, err := ledger.Get[ledger.Endpoint](ctx, r.store, ledger.EndpointKey(a.Network, a.Endpoint))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	return e.Rec.Addrs, err
}

// endOrphan marks an allocation as freeing and removes its endpoint. addrs are addresses that its endpoint is known not to have any more. The
// caller holds the device's lock.
func (r *reconciler) endOrphan(ctx context.Context, a *alloc.Allocation, addrs []string, reason string) error {
	was := a.State
	var also []ledger.Write
	if a.PartOf == "" { // otherwise the endpoint is of what it is part of
		also = append(also, ledger.Del(ledger.EndpointKey(a.Network, a.Endpoint)))
	}
	if err := r.allocs.Advance(ctx, a, alloc.Freeing, also...); err != nil {
		return err
	}
	r.engine.EndpointDeleted(a.Network, a.Endpoint, nil)
	if r.addressesForgotten != nil && len(addrs) > 0 {
		r.addressesForgotten(a.Network, addrs)
	}
	r.counters.Count("orphans")
	r.log.Warn("endpoint was forgotten by the engine or by a crash", append(a.Fields(), zap.String("state", string(was)),
		zap.String("reason", reason), zap.String(admin.EventKey, admin.EventSweep))...)
	return nil
}

// facts gathers what the verdict on an allocation depends on.
func (r *reconciler) facts(ctx context.Context, a *alloc.Allocation) (f engineview.Allocation, err error) {
	f = engineview.Allocation{Network: a.Network, Endpoint: a.Endpoint, State: a.State, Since: a.Since,
		FromEarlierBoot: a.FromEarlierBoot()}
	if a.State == alloc.Lent {
		f.Home, f.Used, f.Remade = r.atHome(a)
	}
	if f.Whole, _, err = r.whole(ctx, a); err == nil && a.Owner != nil && !f.FromEarlierBoot && a.PartOf == "" {
		f.Owner, err = r.namespaceOf(a)
	}
	return f, err
}

// namespaceOf returns what is known of the namespace that an owner has a device for. That its file is missing proves nothing alone, nor that
// another is in its place: the namespace may live on without a name. But then the device is in it.
func (r *reconciler) namespaceOf(a *alloc.Allocation) (engineview.Owner, error) {
	o := a.Owner
	if !o.Seen {
		return engineview.NamespaceHeld, nil
	}
	now, err := hw.NamespaceAt(o.Netns)
	if err != nil && !errors.Is(err, hw.ErrNotFound) || now == (hw.Namespace{Device: o.Device, Inode: o.Inode}) {
		return engineview.NamespaceHeld, err
	}
	elsewhere := false
	_, err = r.host.Find(a.Device)
	if errors.Is(err, hw.ErrAway) && a.Child != nil && a.Child.Kind != hw.IPoIB { // it ends with its namespace
		elsewhere, err = r.host.ChildElsewhere(a.Device, a.Child.Parent)
	}
	switch {
	case errors.Is(err, hw.ErrAway) || elsewhere:
		return engineview.NamespaceHeld, fmt.Errorf("network namespace %s of %s is gone, but the device has not come home", o.Netns, o)
	case err != nil:
		return engineview.NamespaceHeld, err
	}
	return engineview.NamespaceLeft, nil
}

// whole returns the state of the allocation that one is part of, and whether it is ending. A bond that is still there has its ports: it
// gives them back the MACs that they had when they joined it.
func (r *reconciler) whole(ctx context.Context, a *alloc.Allocation) (_ engineview.Whole, ending bool, _ error) {
	if a.PartOf == "" {
		return engineview.NoWhole, false, nil
	}
	whole, err := r.allocs.Get(ctx, a.PartOf)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return engineview.WholeEnded, false, nil
	case err != nil:
		return engineview.NoWhole, false, err
	case whole.Endpoint != a.Endpoint:
		return engineview.WholeEnded, false, nil
	}
	return engineview.WholeHeld, whole.Ending(), nil
}

// atHome returns since when the device of an allocation is seen in the host without a break, the zero time if it is not there or cannot be
// looked for, and whether it has been in a container since it was lent, or is another netdev than that: it has had carrier less often.
func (r *reconciler) atHome(a *alloc.Allocation) (since time.Time, used, remade bool) {
	n, err := r.host.Find(a.Device)
	if err == nil && a.CarrierUps != nil {
		ups, known := r.host.CarrierUps(n)
		used, remade = known && ups > *a.CarrierUps, known && ups < *a.CarrierUps
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.home, a.Device)
		return time.Time{}, false, false
	}
	at := r.home[a.Device]
	if at.Since.IsZero() {
		at.Since = time.Now()
	}
	at.Remade = remade
	r.home[a.Device] = at
	return at.Since, used, remade
}

// homecoming returns what atHome saw last of a device, the zero value if it was not in the host.
func (r *reconciler) homecoming(id hw.ID) health.Home {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.home[id]
}

// forgetEnded drops what is remembered about allocations that have ended.
func (r *reconciler) forgetEnded(held alloc.Set) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id := range r.home {
		if a := held[id]; a == nil || a.State != alloc.Lent {
			delete(r.home, id)
		}
	}
	for id := range r.attempts {
		if a := held[id]; a == nil || !a.Ending() {
			delete(r.attempts, id)
		}
	}
}
