package main

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/internal/admin"
)

// eventsMax is how many events are remembered.
const eventsMax = 1000

// eventsWait is how long an answer without events takes, if the request wants to wait. It is less than any time limit of a call.
const eventsWait = 800 * time.Millisecond

// events remember the last decisions of the plugin: lines of the log that are marked as events, whatever the log level is, and warnings. A
// client asks for those after the last one that it has; one that is slow misses some, and keeps no call waiting.
type events struct {
	run string

	mu   sync.Mutex
	all  []admin.Event // the last ones, oldest first; guarded by mu
	more chan struct{} // closed and replaced when there is another; guarded by mu
}

// newEvents returns events of a process that has made no decision yet.
func newEvents() *events { return &events{run: rand.Text(), more: make(chan struct{})} }

// add remembers an event.
func (x *events) add(e admin.Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e.Seq = x.lastLocked() + 1
	if len(x.all) == eventsMax {
		x.all = slices.Delete(x.all, 0, 1)
	}
	x.all = append(x.all, e)
	close(x.more)
	x.more = make(chan struct{})
}

// lastLocked returns the number of the last event, 0 for none.
func (x *events) lastLocked() uint64 {
	if len(x.all) == 0 {
		return 0
	}
	return x.all[len(x.all)-1].Seq
}

// after returns the events after one, and a channel that is closed when there are more.
func (x *events) after(r *admin.EventsRequest) (admin.Events, <-chan struct{}) {
	x.mu.Lock()
	defer x.mu.Unlock()
	seq := r.After
	if r.Run != x.run { // that was another process
		seq = 0
	}
	answer := admin.Events{Run: x.run, Events: []admin.Event{}}
	for _, e := range x.all {
		if e.Seq > seq {
			answer.Events = append(answer.Events, e)
		}
	}
	if len(answer.Events) > 0 {
		answer.Lost = answer.Events[0].Seq - seq - 1
	}
	return answer, x.more
}

// Events answers the events after one. If it is to wait it does so for at most eventsWait, so that it does not keep the process from ending.
func (x *events) Events(ctx context.Context, r *admin.EventsRequest) (*admin.Events, error) {
	answer, more := x.after(r)
	if len(answer.Events) == 0 && r.Wait {
		timeout := time.NewTimer(eventsWait)
		defer timeout.Stop()
		select {
		case <-more:
			answer, _ = x.after(r)
		case <-timeout.C:
		case <-ctx.Done():
		}
	}
	return &answer, nil
}

// eventCore makes events of lines of the log.
type eventCore struct {
	events *events
	fields []zapcore.Field
}

// Enabled reports whether a level can have events.
func (c *eventCore) Enabled(l zapcore.Level) bool { return l >= zapcore.InfoLevel }

// With returns a core that adds fields to each event.
func (c *eventCore) With(fields []zapcore.Field) zapcore.Core {
	return &eventCore{c.events, slices.Concat(c.fields, fields)}
}

// Check adds the core to an entry that may be an event.
func (c *eventCore) Check(e zapcore.Entry, to *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return to.AddCore(e, c)
	}
	return to
}

// Write remembers a line that is an event.
func (c *eventCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	event := admin.Event{Time: e.Time, Text: e.Message, Fields: map[string]string{}}
	if e.Level >= zapcore.WarnLevel {
		event.Kind = admin.EventWarning
	}
	for _, f := range slices.Concat(c.fields, fields) {
		switch {
		case f.Key == admin.EventKey:
			event.Kind = f.String
		case f.Type != zapcore.SkipType:
			event.Fields[f.Key] = fieldText(f)
		}
	}
	if event.Kind != "" {
		c.events.add(event)
	}
	return nil
}

// Sync has nothing to write.
func (c *eventCore) Sync() error { return nil }
