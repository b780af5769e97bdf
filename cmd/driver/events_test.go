package main

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/internal/admin"
)

// ask asks for events; the error of Events is always nil.
func ask(t *testing.T, x *events, r admin.EventsRequest) admin.Events {
	t.Helper()
	a, err := x.Events(context.Background(), &r)
	if err != nil {
		t.Fatal(err)
	}
	return *a
}

// TestEvents: lines that are marked are events, and so are warnings; other lines are not.
func TestEvents(t *testing.T) {
	x := newEvents()
	log := zap.New(&eventCore{events: x}).With(zap.String("network", "n"))
	log.Info("listening")
	log.Debug("device", zap.String(admin.EventKey, admin.EventAttach))
	log.Info("attached", zap.Strings("addresses", []string{"10.0.0.2/24"}), zap.String(admin.EventKey, admin.EventAttach), zap.Duration("join", time.Second))
	log.Warn("reconcile", zap.NamedError("err", fmt.Errorf("it is %s", "busy")))
	log.Error("quarantined", zap.String(admin.EventKey, admin.EventQuarantine))
	var got []string
	for _, e := range ask(t, x, admin.EventsRequest{}).Events {
		got = append(got, fmt.Sprint(e.Seq, " ", e.Kind, " ", e.Text, " ", e.Fields))
	}
	want := []string{"1 attach attached map[addresses:10.0.0.2/24 join:1s network:n]", "2 warning reconcile map[err:it is busy network:n]",
		"3 quarantine quarantined map[network:n]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
}

// TestSlowClient: what a client does not ask for in time is lost to it, and it learns how much; nothing waits for it. A client of another
// process gets everything.
func TestSlowClient(t *testing.T) {
	x := newEvents()
	for range 10 {
		x.add(admin.Event{})
	}
	a := ask(t, x, admin.EventsRequest{})
	if len(a.Events) != 10 || a.Lost != 0 || a.Events[9].Seq != 10 {
		t.Fatalf("%d events, %d lost", len(a.Events), a.Lost)
	}
	for range eventsMax + 90 {
		x.add(admin.Event{})
	}
	if b := ask(t, x, admin.EventsRequest{Run: a.Run, After: 10}); len(b.Events) != eventsMax || b.Lost != 90 || b.Events[0].Seq != 101 {
		t.Errorf("%d events, %d lost, the first is %d", len(b.Events), b.Lost, b.Events[0].Seq)
	}
	if b := ask(t, x, admin.EventsRequest{Run: "another", After: eventsMax + 90}); len(b.Events) != eventsMax {
		t.Errorf("a client of another process gets %d events", len(b.Events))
	}
}

// TestEventsWait: an answer comes with the next event, or after a while without any.
func TestEventsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newEvents()
		run := ask(t, x, admin.EventsRequest{}).Run
		for _, comes := range []time.Duration{10 * time.Millisecond, time.Hour} {
			start := time.Now()
			timer := time.AfterFunc(comes, func() { x.add(admin.Event{Kind: admin.EventAttach}) })
			a := ask(t, x, admin.EventsRequest{Run: run, Wait: true})
			if took, want := time.Since(start), min(comes, eventsWait); took != want || (len(a.Events) == 1) != (comes < eventsWait) {
				t.Errorf("an event after %s: %d events after %s", comes, len(a.Events), took)
			}
			timer.Stop()
			x = newEvents()
			run = ask(t, x, admin.EventsRequest{}).Run
		}
	})
}
