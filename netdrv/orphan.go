package netdrv

import (
	"context"
	"errors"
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store"
)

// neverJoined is when a device that was made ready for an endpoint, and that nobody has joined, is nobody's, if the engine or the
// plugin was started since: the engine joins at once, and tries for 30 seconds at most to reach a plugin that is being started
// again. It sends no DeleteEndpoint for an endpoint whose CreateEndpoint it heard no answer of.
const neverJoined = time.Minute

// freeOrphan has an allocation freed that nobody would end. What is part of another goes with that one. due is when the allocation, if
// nothing happens to it, will be an orphan; 0 for never.
func (d *Driver) freeOrphan(ctx context.Context, l *alloc.Allocation, m *memory) (due time.Duration, err error) {
	if l.PartOf != "" && l.State == alloc.Ready {
		whole, err := d.allocs.Get(ctx, l.PartOf)
		alone := errors.Is(err, store.ErrNotFound) || err == nil && whole.Endpoint != l.Endpoint
		if err != nil && !alone {
			return 0, err
		}
		if alone || whole.State == alloc.Freeing || whole.State == alloc.Quarantined {
			return 0, d.allocs.Advance(ctx, l, alloc.Freeing)
		}
		return 0, nil
	}
	why, due := d.orphaned(l, m)
	if why == "" {
		return due, nil
	}
	was, more := l.State, []ledger.Write{ledger.Del(ledger.EndpointKey(l.Network, l.Endpoint))}
	if l.PartOf != "" { // the endpoint is that of the allocation that it is part of
		more = nil
	}
	if err := d.allocs.Advance(ctx, l, alloc.Freeing, more...); err != nil {
		return 0, err
	}
	d.doubts.ended(l.Network, l.Endpoint, nil)
	d.counters.Count("orphans")
	d.log.Warn("endpoint was forgotten by the engine or by a crash", append(l.Fields(), was.Field(), zap.String("reason", why))...)
	return 0, nil
}

// orphaned tells why an allocation has nobody who would end it, "" when it may have. A device that is lent and stays in the host has
// not been moved by the engine, or has come back without a DeleteEndpoint: that is soon certain where there is a doubt anyway,
// see doubts. None has outlived a reboot. due is when the answer will be another, if nothing happens; 0 for never.
func (d *Driver) orphaned(l *alloc.Allocation, m *memory) (why string, due time.Duration) {
	switch {
	case l.State == alloc.Claimed:
		return "it was being made ready when the plugin died", 0
	case l.FromEarlierBoot() && (l.State == alloc.Ready || l.State == alloc.Lent):
		return "the machine was started anew", 0
	case (l.State == alloc.Ready || l.State == alloc.Lent) && d.doubts.over(l):
		return "its end could not be written down", 0
	case l.State == alloc.Ready:
		if due = time.Until(l.Since.Add(d.doubts.of(l, min(neverJoined, d.orphanAfter)))); due <= 0 {
			return "nobody has joined it", 0
		}
		return "", due
	case l.State == alloc.Lent:
		if _, err := d.host.Find(l.Device); err != nil {
			delete(m.home, l.Device)
			return "", 0
		}
		after := d.doubts.of(l, d.orphanAfter)
		if due = time.Until(m.since(l.Device).Add(after)); due <= 0 {
			return "its device has been in the host for " + after.String(), 0
		}
		return "", due
	}
	return "", 0
}

// memory is what the reconciler remembers between two looks. A process that was started anew looks anew.
type memory struct {
	home  map[hw.ID]time.Time // since when a lent device has been seen in the host
	tries map[hw.ID]try
	said  map[string]string // what stood in the way of a decision when it was last looked at

	undivided undivided
}

// try is what became of the last attempt to put a device right.
type try struct {
	failed int // in a row
	at     time.Time
	away   bool // it was not there
}

func newMemory() *memory {
	return &memory{home: map[hw.ID]time.Time{}, tries: map[hw.ID]try{}, said: map[string]string{}, undivided: undivided{}}
}

// forget drops what is about allocations that are over.
func (m *memory) forget(loans alloc.Set) {
	for id := range m.home {
		if l := loans[id]; l == nil || l.State != alloc.Lent {
			delete(m.home, id)
		}
	}
	for id := range m.tries {
		if l := loans[id]; l == nil || l.State != alloc.Quarantined {
			delete(m.tries, id)
		}
	}
}

// since is since when a device has been seen in the host, with now as the first time.
func (m *memory) since(id hw.ID) time.Time {
	if m.home[id].IsZero() {
		m.home[id] = time.Now()
	}
	return m.home[id]
}

const (
	// restFirst is how long a quarantined device rests before it is tried again; each failure doubles it, up to restMost.
	restFirst = time.Minute
	restMost  = time.Hour
)

// rest is how long a device is still to be left alone. One that was not there is looked for whenever there is a look.
func (m *memory) rest(l *alloc.Allocation) time.Duration {
	if l.State != alloc.Quarantined {
		return 0
	}
	t := m.tries[l.Device]
	if t.failed == 0 { // not by this process
		t.at = l.Since
	}
	return t.rest()
}

// rest is how long what was tried is still to be left alone.
func (t try) rest() time.Duration {
	if t.away || t.at.IsZero() {
		return 0
	}
	rest := restFirst
	for range t.failed {
		rest = min(2*rest, restMost)
	}
	return max(0, time.Until(t.at.Add(rest)))
}

// tried remembers what became of an attempt.
func (m *memory) tried(l *alloc.Allocation, err error) {
	if err == nil {
		return
	}
	m.tries[l.Device] = try{failed: m.tries[l.Device].failed + 1, at: time.Now(), away: errors.Is(err, hw.ErrAway)}
}

// news tells whether an error is not the one of the last time.
func (m *memory) news(about string, err error) bool {
	if err == nil {
		delete(m.said, about)
		return false
	}
	was := m.said[about]
	m.said[about] = err.Error()
	return was != err.Error()
}
