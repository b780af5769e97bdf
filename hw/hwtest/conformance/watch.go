package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// testWatch checks that each change of a link is reported at once, also if another process made it, and that the channel
// closes when the context ends.
func testWatch(t *testing.T, m machine) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed, err := m.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	reported := func(what string) {
		t.Helper()
		select {
		case _, open := <-changed:
			if !open {
				t.Fatalf("%s: the watch has ended", what)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: no change was reported", what)
		}
		for quiet := false; !quiet; { // one change can be several messages
			select {
			case <-changed:
			case <-time.After(100 * time.Millisecond):
				quiet = true
			}
		}
	}
	m.Add(t, "veth", "ct0", "ct1")
	reported("a link appears")
	m.set(t, "ct0", hw.Link{Name: "ct9"}, hw.LinkName)
	reported("it is renamed")
	m.set(t, "ct9", hw.Link{Up: true}, hw.LinkUp)
	reported("it is set up")
	if err := m.MoveToNS("a", "ct9", "eth0"); err != nil {
		t.Fatal(err)
	}
	reported("it leaves the namespace")
	if err := m.MoveHome("a", "eth0", "ct9"); err != nil {
		t.Fatal(err)
	}
	reported("it returns to the host")
	cancel()
	for open := true; open; {
		select {
		case _, open = <-changed:
		case <-time.After(5 * time.Second):
			t.Fatal("the channel is open after the context has ended")
		}
	}
}
