package netdrv

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/store"
)

// changedVFs notices, once a minute, if what a PF has set for the VF of a container is changed on the host. It warns once of each change.
// VLAN and spoof check, which keep tenants apart, it sets again; the rest is left to the administrator. Its methods are not for
// concurrent use.
type changedVFs struct {
	host     *hw.Host
	allocs   *alloc.Table
	log      *zap.Logger
	locks    *keylock.Map
	counters *metrics.Counters

	last   time.Time                      // when it was last looked
	warned map[hw.ID]map[hw.VFAttr]string // what was warned of, and not undone since: the value, and what could not be set again
}

// pass looks at the VFs of containers, if it is time to. next is when to look again.
func (c *changedVFs) pass(ctx context.Context, held alloc.Set) (next time.Duration) {
	onPF := map[string][]*alloc.Allocation{}
	for _, a := range held {
		if (a.State == alloc.Ready || a.State == alloc.Lent) && a.PF != "" && !a.FromEarlierBoot() {
			onPF[a.PF] = append(onPF[a.PF], a)
		}
	}
	if len(onPF) == 0 {
		return passEvery
	}
	if wait := passEvery - time.Since(c.last); wait > 0 {
		return wait
	}
	c.last = time.Now()
	for id := range c.warned {
		if held[id] == nil {
			delete(c.warned, id)
		}
	}
	for pci, all := range onPF {
		pf, err := c.host.PF(pci)
		if err != nil { // it is gone, or in a container
			continue
		}
		states, err := c.host.VFStates(pf)
		if err != nil {
			continue
		}
		for _, a := range all {
			if s, known := states[a.VF]; known { // otherwise it is being reset, or the driver reports nothing
				c.look(ctx, pf, a, s)
			}
		}
	}
	return passEvery
}

// look compares a VF with what was set for it.
func (c *changedVFs) look(ctx context.Context, pf hw.PF, a *alloc.Allocation, now hw.VFState) {
	changed := changedAttrs(a, now)
	for attr := range c.warned[a.Device] {
		if _, still := changed[attr]; !still {
			delete(c.warned[a.Device], attr)
		}
	}
	if len(changed) == 0 {
		return
	}
	unlock, ok := c.locks.TryLock(alloc.Key(a.Device))
	if !ok { // a call is at work on it
		return
	}
	defer unlock()
	current, err := c.allocs.Get(ctx, a.Device)
	if errors.Is(err, store.ErrNotFound) || err == nil && (current.Endpoint != a.Endpoint || current.State != a.State) || err != nil {
		return
	}
	states, err := c.host.VFStates(pf) // the list may be older than what a call has set
	now, known := states[a.VF]
	if err != nil || !known {
		return
	}
	for attr, want := range changedAttrs(current, now) {
		c.handle(ctx, pf, current, attr, want, now)
	}
}

// changedAttrs returns the attributes of a VF that are not as they were when it had been set up, with the states that have the values that
// they should have. What the user has left to the administrator does not count, nor the MAC of a trusted VF, which may change it itself.
func changedAttrs(a *alloc.Allocation, now hw.VFState) map[hw.VFAttr]hw.VFState {
	changed := map[hw.VFAttr]hw.VFState{}
	for attr, policy := range a.VFSpec.Policies {
		want := a.VFSpec.VFState
		switch {
		case attr == hw.VFMAC && a.VFSpec.Trust:
			continue
		case a.Reported != nil: // the driver may not support what is BestEffort
			want = *a.Reported
		case policy != hw.Required: // the record is older than the field
			continue
		}
		if !attr.Same(now, want) {
			changed[attr] = want
		}
	}
	return changed
}

// handle warns of a change, unless it has been warned of, and undoes it if it must not be.
func (c *changedVFs) handle(ctx context.Context, pf hw.PF, a *alloc.Allocation, attr hw.VFAttr, want, now hw.VFState) {
	outcome, kind := "left as it is", admin.EventWarning
	if attr == hw.VFVLAN || attr == hw.VFSpoofchk {
		outcome, kind = "set again", admin.EventRepair
		_, vf, err := c.host.VF(a.PF, a.VF, a.Device)
		if err == nil {
			err = c.host.SetVFAttr(ctx, pf, vf, attr, want)
		}
		if err != nil {
			outcome, kind = err.Error(), admin.EventWarning
		}
	}
	is, should := attr.Value(now), attr.Value(want)
	if c.warned[a.Device] == nil {
		c.warned[a.Device] = map[hw.VFAttr]string{}
	}
	if c.warned[a.Device][attr] == is+" "+outcome {
		return
	}
	c.warned[a.Device][attr] = is + " " + outcome
	c.counters.Count("vfs_changed")
	c.log.Warn("vf of a container was changed on the host", append(a.Fields(), zap.String("attribute", attr.String()),
		zap.String("is", is), zap.String("should_be", should), zap.String("outcome", outcome), zap.String(admin.EventKey, kind))...)
}
