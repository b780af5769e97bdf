package netdrv

import (
	"context"
	"errors"
	"time"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/store"
)

// quarantineBackoff is for quarantined devices. The first attempt is that after which the device was quarantined.
var quarantineBackoff = retry.Backoff{First: time.Minute, Max: time.Hour}

// freeingBackoff is for devices that are home and could not be restored, during retryWindow.
var freeingBackoff = retry.Backoff{First: passSoon, Max: 2 * time.Second}

// An attempt is the last attempt to release a device. Until it is due again, no change of links leads to another: restoring a device
// changes links itself. Its times are by the clock of this process, which cannot be set back.
type attempt struct {
	retry.Attempt
	away  bool      // the device was not in the host
	begun time.Time // the first of these attempts
	first time.Time // the first of these attempts at which the device was in the host

	// For a quarantined device:
	seen  condition // what was seen last
	eased time.Time // when the condition last became better; zero for never
}

// easedLately reports whether the condition became better within retryWindow.
func (a attempt) easedLately() bool { return !a.eased.IsZero() && time.Since(a.eased) < retryWindow }

// A condition has what may be the cause of a quarantine: drivers refuse to restore a VF while its PF has no link (igb, ixgbe: rates) or is
// down (bnx2x), and a device that was taken out and put in again is as its driver makes it.
type condition struct {
	here               bool // the device is in the host
	named              bool // no other device has its name
	lower, up, carrier bool // its PF, or the parent of a child, is in the host, is up, and has carrier
}

// betterThan reports whether something has come that was missing.
func (c condition) betterThan(was condition) bool {
	return c.here && !was.here || c.named && !was.named || c.lower && !was.lower || c.up && !was.up || c.carrier && !was.carrier
}

// condition looks at the device of an allocation, and at what it depends on.
func (r *reconciler) condition(a *alloc.Allocation) condition {
	_, err := r.host.Find(a.Device)
	c := condition{here: err == nil}
	if l := a.Snapshot.Link; l != nil {
		n, err := r.host.Netdev(l.Name)
		c.named = errors.Is(err, hw.ErrNotFound) || err == nil && n.ID == a.Device
	}
	lower := a.Parent
	if a.PF != "" {
		lower = hw.ID(a.PF)
	}
	if lower == "" {
		return c
	}
	if n, err := r.host.Find(lower); err == nil {
		c.lower, c.up, c.carrier = true, n.Up, n.Carrier
	}
	return c
}

// backoff returns how long to wait for the next attempt to release a device. One that was not in the host is looked for in each pass.
func (r *reconciler) backoff(a *alloc.Allocation) time.Duration {
	if a.State == alloc.Quarantined {
		return r.backoffQuarantined(a, r.condition(a))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.attempts[a.Device]
	if !a.Ending() || !known || last.away {
		return 0
	}
	wait := last.Wait(freeingBackoff)
	if rest := time.Until(last.first.Add(retryWindow)); rest > 0 {
		wait = min(wait, rest)
	}
	return wait
}

// backoffQuarantined is backoff for a quarantined device. When its condition becomes better the backoff starts again, with attempts at
// short intervals: a driver may need a moment more. It is the change that matters, not each event: the attempts themselves change links.
func (r *reconciler) backoffQuarantined(a *alloc.Allocation, now condition) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.attempts[a.Device]
	if !known { // not by this process
		last = attempt{Attempt: firstAttempt(a), seen: now}
	}
	if !now.here && time.Since(last.At) < retryWindow { // the attempt itself may have unbound it
		now.here = last.seen.here
	}
	if now.betterThan(last.seen) {
		last.Attempt, last.eased = retry.Attempt{}, time.Now()
	}
	last.seen = now
	r.attempts[a.Device] = last
	switch {
	case last.away:
		return 0
	case last.easedLately():
		return min(last.Wait(freeingBackoff), last.Wait(quarantineBackoff))
	}
	return last.Wait(quarantineBackoff)
}

// nextTry returns when a quarantined device is tried again, if nothing of what may be the cause ends before; zero for one that is not quarantined,
// or that an administrator has taken out of use.
func (r *reconciler) nextTry(a *alloc.Allocation) time.Time {
	if a.State != alloc.Quarantined || a.Manual {
		return time.Time{}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.attempts[a.Device]
	if !known {
		last.Attempt = firstAttempt(a)
	}
	return time.Now().Add(last.Wait(quarantineBackoff))
}

// firstAttempt is the one after which a device was quarantined. It was not in the future, whatever the clock said.
func firstAttempt(a *alloc.Allocation) retry.Attempt {
	now := time.Now()
	if a.Since.Before(now) {
		now = now.Add(a.Since.Sub(now))
	}
	return retry.Attempt{Failures: 1, At: now}
}

// attempt releases a device, and records the result.
func (r *reconciler) attempt(ctx context.Context, a *alloc.Allocation) error {
	was, start := a.State, time.Now()
	err := r.releaser.release(ctx, a, func() bool { return time.Since(r.firstAtHome(a.Device, start)) < retryWindow })
	r.recordAttempt(a, was, start, err)
	return err
}

// firstAtHome returns when the first of the present attempts to release a device that was in the host began; now if there was none.
func (r *reconciler) firstAtHome(id hw.ID, now time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if first := r.attempts[id].first; !first.IsZero() {
		return first
	}
	return now
}

// triedFor returns for how long attempts to release a device have been made.
func (r *reconciler) triedFor(id hw.ID) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Since(r.attempts[id].begun)
}

// recordAttempt records the result of an attempt to release a device, which began at start; was is its state before.
func (r *reconciler) recordAttempt(a *alloc.Allocation, was alloc.State, start time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.attempts[a.Device]
	if last.begun.IsZero() {
		last.begun = start
	}
	switch away := errors.Is(err, hw.ErrAway); {
	case err == nil, a.State != was: // the attempts start again
		delete(r.attempts, a.Device)
		return
	case away && was == alloc.Freeing:
		last = attempt{away: true, begun: last.begun}
	case was == alloc.Freeing:
		if last.first.IsZero() {
			last.first = start
		}
		last.Attempt, last.away = last.Failed(), false
	default:
		if !known {
			last.Attempt = firstAttempt(a)
		}
		last.Attempt, last.away = last.Failed(), away
		if last.easedLately() { // those at short intervals count as one
			last.Failures = 1
		}
	}
	r.attempts[a.Device] = last
}

// tryQuarantined tries to release a quarantined device at once, because a container needs one. It returns true if the device is not
// quarantined afterwards. The caller does not hold the device's lock.
func (r *reconciler) tryQuarantined(ctx context.Context, id hw.ID) bool {
	unlock, err := r.locks.Lock(ctx, alloc.Key(id))
	if err != nil {
		return false
	}
	defer unlock()
	a, err := r.allocs.Get(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return true
	}
	if err != nil || a.State != alloc.Quarantined || a.Manual {
		return false
	}
	r.counters.Count("tried_again")
	return r.releaser.release(ctx, a, func() bool { return false }) == nil // otherwise the reason is recorded; the backoff goes on as before
}
