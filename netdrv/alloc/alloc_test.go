package alloc_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
	"github.com/mellanox/passthrough/store/storetest"
)

func newTable() *alloc.Table {
	return &alloc.Table{Store: store.NewMemory(), Boot: "boot", Log: zap.NewNop(), Counters: &metrics.Counters{}}
}

// started returns a new allocation of a device.
func started(t *testing.T, table *alloc.Table, device hw.ID) *alloc.Allocation {
	t.Helper()
	a := &alloc.Allocation{Record: alloc.Record{Device: device, Label: string(device)}}
	taken, err := table.Start(t.Context(), a, ledger.Endpoint{Network: "n", ID: string(device), Device: device})
	if taken || err != nil {
		t.Fatalf("start of %s: taken %t, %v", device, taken, err)
	}
	return a
}

// paths lead to each state.
var paths = map[alloc.State][]alloc.State{
	alloc.Claimed:     nil,
	alloc.Ready:       {alloc.Ready},
	alloc.Lent:        {alloc.Ready, alloc.Lent},
	alloc.Freeing:     {alloc.Freeing},
	alloc.Quarantined: {alloc.Freeing, alloc.Quarantined},
}

// TestTransitions: an allocation goes from each state to the states that may follow, and to no other. A refused step changes nothing.
func TestTransitions(t *testing.T) {
	t.Parallel()
	allowed := map[string]bool{
		"claimed claimed": true, "claimed ready": true, "claimed freeing": true, "ready lent": true, "ready freeing": true,
		"lent lent": true, "lent freeing": true, "freeing freeing": true, "freeing quarantined": true, "quarantined quarantined": true,
	}
	for from, path := range paths {
		for to := range paths {
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				table := newTable()
				a := started(t, table, "0000:01:00.0")
				for _, s := range path {
					if err := table.Advance(t.Context(), a, s); err != nil {
						t.Fatal(err)
					}
				}
				err := table.Advance(t.Context(), a, to)
				want := to
				if !allowed[string(from)+" "+string(to)] {
					want = from
					if text := fmt.Sprintf("0000:01:00.0: cannot go from %s to %s", from, to); err == nil || err.Error() != text {
						t.Errorf("error is %v, want %s", err, text)
					}
				} else if err != nil {
					t.Error(err)
				}
				if stored, err := table.Get(t.Context(), a.Device); err != nil || stored.State != want || a.State != want {
					t.Errorf("state is %s, and %s in the ledger, want %s: %v", a.State, stored.State, want, err)
				}
			})
		}
	}
}

// TestEnd: only a device that is being freed, or is quarantined, becomes free.
func TestEnd(t *testing.T) {
	t.Parallel()
	for from, path := range paths {
		table := newTable()
		a := started(t, table, "0000:01:00.0")
		for _, s := range path {
			if err := table.Advance(t.Context(), a, s); err != nil {
				t.Fatal(err)
			}
		}
		err := table.End(t.Context(), a)
		held, listErr := table.List(t.Context())
		if listErr != nil {
			t.Fatal(listErr)
		}
		if ends := from == alloc.Freeing || from == alloc.Quarantined; (err == nil) != ends || (len(held) == 0) != ends {
			t.Errorf("end of a %s allocation: %v, and %d are left", from, err, len(held))
		}
	}
}

// TestStartTaken: of two processes that claim a device one gets it. The other writes nothing, for none of the parts.
func TestStartTaken(t *testing.T) {
	t.Parallel()
	table := newTable()
	started(t, table, "part2")
	bond := &alloc.Allocation{Record: alloc.Record{Device: "whole"}, Parts: []*alloc.Allocation{
		{Record: alloc.Record{Device: "part1", PartOf: "whole"}},
		{Record: alloc.Record{Device: "part2", PartOf: "whole"}},
	}}
	taken, err := table.Start(t.Context(), bond, ledger.Endpoint{Network: "n", ID: "e"})
	held, listErr := table.List(t.Context())
	if !taken || err != nil || listErr != nil || len(held) != 1 {
		t.Errorf("taken %t, %v, and %d are held: %v", taken, err, len(held), listErr)
	}
}

// TestChangedMeanwhile: a process that knows an allocation of before cannot write it.
func TestChangedMeanwhile(t *testing.T) {
	t.Parallel()
	table := newTable()
	a := started(t, table, "0000:01:00.0")
	old, err := table.Get(t.Context(), a.Device)
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Advance(t.Context(), a, alloc.Ready); err != nil {
		t.Fatal(err)
	}
	err = table.Advance(t.Context(), old, alloc.Freeing)
	if err == nil || old.State != alloc.Claimed {
		t.Errorf("error is %v, and the old copy %s", err, old.State)
	}
}

// TestSince: an allocation knows since when it is in its state, also if its record is written again.
func TestSince(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := newTable()
		a := started(t, table, "0000:01:00.0")
		since := a.Since
		time.Sleep(time.Second)
		if err := table.Save(t.Context(), a); err != nil || !a.Since.Equal(since) {
			t.Errorf("saved: %v, since %s, want %s", err, a.Since, since)
		}
		if err := table.Advance(t.Context(), a, alloc.Ready); err != nil || !a.Since.Equal(since.Add(time.Second)) {
			t.Errorf("ready: %v, since %s, want a second after %s", err, a.Since, since)
		}
	})
}

// TestAffinity: a container is recognized by the first key that is known. Of implicit keys only those of the last container are kept.
func TestAffinity(t *testing.T) {
	t.Parallel()
	table := newTable()
	attach := func(device hw.ID, keys ...alloc.IdentityKey) {
		t.Helper()
		a := started(t, table, device)
		a.IdentityKeys = keys
		for _, step := range []func(context.Context) error{
			func(ctx context.Context) error {
				return table.MarkReady(ctx, a, ledger.Endpoint{Network: "n", ID: string(device), Device: device})
			},
			func(ctx context.Context) error {
				return table.Advance(ctx, a, alloc.Freeing, ledger.Del(ledger.EndpointKey("n", string(device))))
			},
			func(ctx context.Context) error { return table.End(ctx, a) },
		} {
			if err := step(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	explicit := func(text string) alloc.IdentityKey { return alloc.IdentityKey{Text: text} }
	implicit := func(text string) alloc.IdentityKey { return alloc.IdentityKey{Text: text, Implicit: true} }
	wants := func(want hw.ID, keys ...alloc.IdentityKey) {
		t.Helper()
		if got, err := table.Preferred(t.Context(), "n", keys); err != nil || got.Device != want {
			t.Errorf("%v: prefers %q, %v; want %q", keys, got.Device, err, want)
		}
	}
	attach("vf0", explicit("db"))
	attach("vf0", implicit("web"))
	attach("vf1", implicit("cache"), implicit("10.0.0.2"))
	wants("vf0", explicit("db"))
	wants("vf0", implicit("web"))
	wants("vf1", implicit("new"), implicit("10.0.0.2"))
	attach("vf0", implicit("other"))
	wants("vf0", explicit("db"))
	wants("", implicit("web"))
	wants("vf0", implicit("other"))
	for i := range 50 { // a build server that names each of its jobs
		attach("vf0", explicit(fmt.Sprintf("build-%d", i)))
	}
	wants("", explicit("db"))
	wants("", explicit("build-45"))
	for i := range 4 {
		wants("vf0", explicit(fmt.Sprintf("build-%d", 46+i)))
	}
	wants("vf1", implicit("cache"))
	writes, err := table.ForgetAffinity(t.Context(), "n")
	if err != nil || len(writes) != 6 {
		t.Errorf("%d writes remove all, %v; want 6", len(writes), err)
	}
}

// TestUnknownFields: a plugin that is downgraded keeps what the newer one has recorded of a device that a container has.
func TestUnknownFields(t *testing.T) {
	v := record.Versions{Oldest: ledger.Version, Newest: ledger.Version}
	storetest.KeepsUnknown[alloc.Record](t, v)
	storetest.KeepsUnknown[alloc.Affinity](t, v)
}
