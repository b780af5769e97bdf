package netdrv

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/engineview"
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
	was := a.State
	var also []ledger.Write
	if a.PartOf == "" { // otherwise the endpoint is of what it is part of
		also = append(also, ledger.Del(ledger.EndpointKey(a.Network, a.Endpoint)))
	}
	if err := r.allocs.Advance(ctx, a, alloc.Freeing, also...); err != nil {
		return 0, err
	}
	r.engine.EndpointDeleted(a.Network, a.Endpoint, nil)
	r.counters.Count("orphans")
	r.log.Warn("endpoint was forgotten by the engine or by a crash", append(a.Fields(), was.Field(), zap.String("reason", v.Reason))...)
	return 0, nil
}

// facts gathers what the verdict on an allocation depends on.
func (r *reconciler) facts(ctx context.Context, a *alloc.Allocation) (engineview.Allocation, error) {
	f := engineview.Allocation{Network: a.Network, Endpoint: a.Endpoint, State: a.State, Since: a.Since,
		FromEarlierBoot: a.FromEarlierBoot()}
	if a.State == alloc.Lent {
		f.Home = r.homeSince(a.Device)
	}
	if a.PartOf == "" || a.State != alloc.Ready {
		return f, nil
	}
	whole, err := r.allocs.Get(ctx, a.PartOf)
	switch {
	case errors.Is(err, store.ErrNotFound):
		f.Whole = engineview.WholeEnded
	case err != nil:
		return f, err
	case whole.Endpoint != a.Endpoint || whole.Ending():
		f.Whole = engineview.WholeEnded
	default:
		f.Whole = engineview.WholeHeld
	}
	return f, nil
}

// homeSince returns since when a device is seen in the host without a break; the zero time if it is not there, or cannot be looked for.
func (r *reconciler) homeSince(id hw.ID) time.Time {
	_, err := r.host.Find(id)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		delete(r.home, id)
		return time.Time{}
	}
	if r.home[id].IsZero() {
		r.home[id] = time.Now()
	}
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

// backoff returns how long to wait for the next attempt to release a device. One that was not in the host is looked for in each pass.
// It measures time by the clock of this process, which cannot be set back.
func (r *reconciler) backoff(a *alloc.Allocation) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.attempts[a.Device]
	switch {
	case !a.Ending() || last.away:
		return 0
	case a.State == alloc.Freeing:
		if !known {
			return 0
		}
		wait := last.Wait(freeingBackoff)
		if rest := time.Until(last.first.Add(retryWindow)); rest > 0 {
			wait = min(wait, rest)
		}
		return wait
	case !known: // not by this process
		last.Attempt = firstAttempt(a)
		r.attempts[a.Device] = last
	}
	return last.Wait(quarantineBackoff)
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

// recordAttempt records the result of an attempt to release a device, which began at start; was is its state before.
func (r *reconciler) recordAttempt(a *alloc.Allocation, was alloc.State, start time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.attempts[a.Device]
	switch away := errors.Is(err, hw.ErrAway); {
	case err == nil, a.State != was: // it begins anew
		delete(r.attempts, a.Device)
		return
	case away && was == alloc.Freeing:
		last = attempt{away: true}
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
	}
	r.attempts[a.Device] = last
}
