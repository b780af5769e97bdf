// Package health notices what resets, and other hands on the host, do to the devices that containers have: settings of VFs that are not as they
// were set (Settings), and devices that containers have lost (LostDevices).
package health

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/store"
)

const (
	// settingsEvery is how often the VFs of a PF are looked at without a sign of a reset.
	settingsEvery = time.Minute

	// resetLooks is for how long after the last sign of a reset the VFs of a PF are looked at every resetEvery: a driver sets its VFs up
	// again some time after its own link. One that reports nothing of a VF is waited for as long as it may take, resetBound.
	resetLooks = 10 * time.Second
	resetEvery = time.Second
	resetBound = time.Minute
)

// Settings notices if what a PF has set for the VF of a container is not as it was set up: once a minute, and at once and every second
// after a sign that the PF was reset, which the kernel reports as a change of its link. What a reset has lost is set again. Of what is
// changed without one it warns once; VLAN and spoof check, which keep tenants apart, it sets again, and leaves the rest to the
// administrator who has changed it. Its methods are not for concurrent use.
type Settings struct {
	host     *hw.Host
	allocs   *alloc.Table
	log      *zap.Logger
	locks    *keylock.Map
	counters *metrics.Counters

	pfs    map[string]*pfSeen             // by PCI address: those with VFs of containers
	warned map[hw.ID]map[hw.VFAttr]string // what was warned of, and not undone since: the value, and what could not be set again
}

// NewSettings returns Settings for the VFs of allocs.
func NewSettings(host *hw.Host, allocs *alloc.Table, log *zap.Logger, locks *keylock.Map, counters *metrics.Counters) *Settings {
	return &Settings{host: host, allocs: allocs, log: log, locks: locks, counters: counters, pfs: map[string]*pfSeen{},
		warned: map[hw.ID]map[hw.VFAttr]string{}}
}

// A pfSeen is what was seen of a PF last.
type pfSeen struct {
	netdev  pfLink
	missing bool      // its driver had nothing to report of a container's VF
	sign    time.Time // the last sign of a reset; zero for none that matters any more
	looked  time.Time // at its VFs
}

// A pfLink changes with each reset of a PF, whatever starts it: FLR, firmware, or devlink, which creates its netdev again.
type pfLink struct {
	index, ups  int // ups is how often it has had carrier
	up, carrier bool
}

// observe notes the netdev of a PF, the zero value for none in the host, and whether it has changed.
func (s *pfSeen) observe(now pfLink) {
	if s.netdev != now && !s.looked.IsZero() {
		s.sign = time.Now()
	}
	s.netdev = now
}

// afterReset reports whether what is lost now may be lost by a reset.
func (s *pfSeen) afterReset() bool { return !s.sign.IsZero() }

// settling reports whether the PF may still be setting up its VFs after a reset.
func (s *pfSeen) settling() bool {
	since := time.Since(s.sign)
	return s.afterReset() && (since < resetLooks || s.missing && since < resetBound)
}

// due returns when to look next.
func (s *pfSeen) due() time.Duration {
	every := settingsEvery
	if s.afterReset() {
		every = resetEvery
	}
	return every - time.Since(s.looked)
}

// Pass looks at the VFs of containers, if it is time to. next is when to look again.
func (c *Settings) Pass(ctx context.Context, held alloc.Set) (next time.Duration) {
	onPF := map[string][]*alloc.Allocation{}
	for _, a := range held.InOrder() {
		if (a.State == alloc.Ready || a.State == alloc.Lent) && a.PF != "" && !a.FromEarlierBoot() {
			onPF[a.PF] = append(onPF[a.PF], a)
		}
	}
	maps.DeleteFunc(c.pfs, func(pci string, _ *pfSeen) bool { return onPF[pci] == nil })
	maps.DeleteFunc(c.warned, func(id hw.ID, _ map[hw.VFAttr]string) bool { return held[id] == nil })
	next = settingsEvery
	for pci, all := range onPF {
		if c.pfs[pci] == nil {
			c.pfs[pci] = &pfSeen{}
		}
		next = min(next, c.passPF(ctx, pci, c.pfs[pci], all))
	}
	return next
}

// passPF looks at the VFs that containers have of one PF, if it is time to. next is when to look again.
func (c *Settings) passPF(ctx context.Context, pci string, seen *pfSeen, all []*alloc.Allocation) (next time.Duration) {
	pf, err := c.host.PF(pci)
	if err != nil { // it is gone, or in a container
		seen.observe(pfLink{})
		return settingsEvery
	}
	ups, _ := c.host.CarrierUps(pf.Netdev)
	seen.observe(pfLink{pf.Index, ups, pf.Up, pf.Carrier})
	if wait := seen.due(); wait > 0 {
		return wait
	}
	states, err := c.host.VFStates(pf)
	if err != nil {
		return settingsEvery
	}
	missing := false
	for _, a := range all {
		_, known := states[a.VF]
		missing = missing || states != nil && !known
	}
	if missing != seen.missing && !seen.looked.IsZero() {
		seen.sign = time.Now()
	}
	seen.missing, seen.looked = missing, time.Now()
	if seen.settling() { // a driver that cannot be asked yet must not hold up the pass for each of its VFs
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 2*resetEvery)
		defer cancel()
	}
	for _, a := range all {
		if s, known := states[a.VF]; known { // otherwise it is being reset, or the driver reports nothing
			c.look(ctx, pf, a, s, seen)
		}
	}
	if !seen.settling() {
		seen.sign = time.Time{}
	}
	return seen.due()
}

// look compares a VF with what was set for it.
func (c *Settings) look(ctx context.Context, pf hw.PF, a *alloc.Allocation, now hw.VFState, seen *pfSeen) {
	changed, _ := changedAttrs(a, now, seen.afterReset())
	maps.DeleteFunc(c.warned[a.Device], func(attr hw.VFAttr, _ string) bool { return !slices.Contains(changed, attr) })
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
	changed, want := changedAttrs(current, now, seen.afterReset())
	for _, attr := range c.setLost(ctx, pf, current, changed, want, now, seen) {
		c.handle(ctx, pf, current, attr, want, now)
	}
}

// changedAttrs returns the attributes of a VF that are not as they were when it had been set up, and the state that has the values that they
// should have. What the user has left to the administrator does not count, nor the MAC of a trusted VF, which may change it itself, but not
// do without one after a reset.
func changedAttrs(a *alloc.Allocation, now hw.VFState, reset bool) (changed []hw.VFAttr, want hw.VFState) {
	want = a.VFSpec.VFState
	if a.Reported != nil { // the driver may not support what is BestEffort
		want = *a.Reported
	}
	for attr, policy := range a.VFSpec.Policies {
		switch {
		case attr == hw.VFMAC && a.VFSpec.Trust && !(reset && now.MAC == ""):
		case a.Reported == nil && policy != hw.Required: // the record is older than the field
		case !attr.Same(now, want):
			changed = append(changed, attr)
		}
	}
	sort.Slice(changed, func(i, j int) bool { return changed[i].String() < changed[j].String() })
	return changed, want
}

// leftAsIs is what becomes of a change that is an administrator's.
const leftAsIs = "left as it is"

// lostMark begins what is remembered of an attribute that a reset has taken and that could not be set again.
const lostMark = "lost: "

// setLost sets again what a VF has lost by a reset of its PF, now or before, and logs that in one line. It returns what else has changed: what
// the administrator had changed before the reset stays. While the PF is settling, what cannot be set yet is not told: it is tried again.
func (c *Settings) setLost(ctx context.Context, pf hw.PF, a *alloc.Allocation, changed []hw.VFAttr, want, now hw.VFState,
	seen *pfSeen) (others []hw.VFAttr) {
	var lost []hw.VFAttr
	var names []string
	for _, attr := range changed {
		was := c.warned[a.Device][attr]
		if strings.HasPrefix(was, lostMark) || seen.afterReset() && was != warning(attr.Value(now), leftAsIs) {
			lost, names = append(lost, attr), append(names, attr.String())
		} else {
			others = append(others, attr)
		}
	}
	if len(lost) == 0 {
		return others
	}
	outcome, kind := "set again", admin.EventRepair
	if err := c.set(ctx, pf, a, lost, want); err != nil {
		if seen.settling() {
			return others
		}
		outcome, kind = err.Error(), admin.EventWarning
		known := true
		for _, attr := range lost {
			known = !c.note(a.Device, attr, lostMark+outcome) && known
		}
		if known {
			return others
		}
	}
	c.counters.Count("vfs_reset")
	c.log.Warn("vf of a container lost settings when its pf was reset", append(a.Fields(), zap.Strings("attributes", names),
		zap.String("outcome", outcome), zap.String(admin.EventKey, kind))...)
	return others
}

// set sets attributes of a VF.
func (c *Settings) set(ctx context.Context, pf hw.PF, a *alloc.Allocation, attrs []hw.VFAttr, want hw.VFState) error {
	_, vf, err := c.host.VF(a.PF, a.VF, a.Device)
	if err != nil {
		return err
	}
	return c.host.SetVFAttrs(ctx, pf, vf, attrs, want)
}

// handle warns of a change, unless it has been warned of, and undoes it if it must not be.
func (c *Settings) handle(ctx context.Context, pf hw.PF, a *alloc.Allocation, attr hw.VFAttr, want, now hw.VFState) {
	outcome, kind := leftAsIs, admin.EventWarning
	if attr == hw.VFVLAN || attr == hw.VFSpoofchk {
		outcome, kind = "set again", admin.EventRepair
		if err := c.set(ctx, pf, a, []hw.VFAttr{attr}, want); err != nil {
			outcome, kind = err.Error(), admin.EventWarning
		}
	}
	is, should := attr.Value(now), attr.Value(want)
	if !c.note(a.Device, attr, warning(is, outcome)) {
		return
	}
	c.counters.Count("vfs_changed")
	c.log.Warn("vf of a container was changed on the host", append(a.Fields(), zap.String("attribute", attr.String()),
		zap.String("is", is), zap.String("should_be", should), zap.String("outcome", outcome), zap.String(admin.EventKey, kind))...)
}

// warning is what is remembered of a warning.
func warning(is, outcome string) string { return is + " " + outcome }

// note remembers a warning. It returns false if that is the last one about the attribute.
func (c *Settings) note(id hw.ID, attr hw.VFAttr, text string) bool {
	if c.warned[id] == nil {
		c.warned[id] = map[hw.VFAttr]string{}
	}
	if c.warned[id][attr] == text {
		return false
	}
	c.warned[id][attr] = text
	return true
}
