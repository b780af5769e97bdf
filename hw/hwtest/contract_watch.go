package hwtest

import (
	"context"
	"testing"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// contractWatch: whatever happens to a link is told, at once, also what others do to it; the end of the context is the end.
func contractWatch(t *testing.T, m machine) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changed, err := m.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	told := func(what string) {
		t.Helper()
		select {
		case _, open := <-changed:
			if !open {
				t.Fatalf("%s: the watch has ended", what)
			}
		case <-time.After(5 * time.Second):
			t.Fatalf("%s: nothing was told", what)
		}
		for settled := false; !settled; { // one change can be several messages
			select {
			case <-changed:
			case <-time.After(100 * time.Millisecond):
				settled = true
			}
		}
	}
	m.Add(t, "veth", "ct0", "ct1")
	told("a link has come")
	m.set(t, "ct0", hw.Link{Name: "ct9"}, hw.LinkName)
	told("it was renamed")
	m.set(t, "ct9", hw.Link{Up: true}, hw.LinkUp)
	told("it was set up")
	if err := m.MoveToNS("a", "ct9", "eth0"); err != nil {
		t.Fatal(err)
	}
	told("it has left")
	if err := m.MoveHome("a", "eth0", "ct9"); err != nil {
		t.Fatal(err)
	}
	told("it has come home")
	cancel()
	for open := true; open; {
		select {
		case _, open = <-changed:
		case <-time.After(5 * time.Second):
			t.Fatal("the watch goes on after its context has ended")
		}
	}
}
