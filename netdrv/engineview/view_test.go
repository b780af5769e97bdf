package engineview_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/engineview"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
)

const homeGrace = 5 * time.Minute

// TestVerdict goes through all states of an allocation, with each kind of evidence.
func TestVerdict(t *testing.T) {
	t.Parallel()
	const (
		died     = "the plugin died while setting it up"
		rebooted = "the machine was rebooted"
		deleted  = "the engine deleted it while the ledger could not be written"
		part     = "what it is part of has ended"
		gone     = "its network namespace is gone"
	)
	type verdict = engineview.Verdict
	keep := verdict{}
	free := func(reason string) verdict {
		return verdict{Action: engineview.Free, Reason: reason, Waited: strings.Contains(reason, " for ")} // a grace period
	}
	freePart := verdict{Action: engineview.FreePart, Reason: part}
	after := func(d time.Duration) verdict { return verdict{After: d} }
	for _, c := range []struct {
		name string
		// age is how long the allocation is in its state; home how long its device is in the host, 0 for not; restarted how long ago
		// the engine was restarted, 0 for not since.
		state                alloc.State
		age, home, restarted time.Duration
		earlierBoot, deleted bool
		used, remade         bool
		whole                engineview.Whole
		owner                engineview.Owner
		want                 verdict
	}{
		{name: "claimed", state: alloc.Claimed, want: free(died)},
		{name: "claimed, in an earlier boot", state: alloc.Claimed, earlierBoot: true, want: free(died)},
		{name: "claimed, part of one that is held", state: alloc.Claimed, whole: engineview.WholeHeld, want: keep},
		{name: "claimed, part of one that ended", state: alloc.Claimed, whole: engineview.WholeEnded, want: free(died)},

		{name: "ready", state: alloc.Ready, age: time.Second, want: after(time.Hour - time.Second)},
		{name: "ready for an hour", state: alloc.Ready, age: time.Hour, want: free("it was not joined for 1h0m0s")},
		{name: "ready, restarted", state: alloc.Ready, age: 30 * time.Second, restarted: 20 * time.Second, want: after(40 * time.Second)},
		{name: "ready for 10 minutes, restarted", state: alloc.Ready, age: 10 * time.Minute, restarted: time.Second,
			want: after(59 * time.Second)},
		{name: "ready for a minute since a restart", state: alloc.Ready, age: 10 * time.Minute, restarted: time.Minute,
			want: free("it was not joined for 1m0s")},
		{name: "ready, after a restart", state: alloc.Ready, age: time.Minute, restarted: 2 * time.Minute, want: after(59 * time.Minute)},
		{name: "ready, in an earlier boot", state: alloc.Ready, earlierBoot: true, want: free(rebooted)},
		{name: "ready, deleted", state: alloc.Ready, deleted: true, want: free(deleted)},
		{name: "ready, part of one that is held", state: alloc.Ready, age: 2 * time.Hour, whole: engineview.WholeHeld, want: keep},
		{name: "ready, part of one that is held, in an earlier boot", state: alloc.Ready, earlierBoot: true,
			whole: engineview.WholeHeld, want: keep},
		{name: "ready, part of one that ended", state: alloc.Ready, whole: engineview.WholeEnded, want: freePart},

		{name: "lent, away", state: alloc.Lent, age: 1000 * time.Hour, want: keep},
		{name: "lent, away, restarted", state: alloc.Lent, age: 1000 * time.Hour, restarted: time.Hour, want: keep},
		{name: "lent, at home", state: alloc.Lent, age: 30 * time.Minute, home: 10 * time.Minute, want: after(50 * time.Minute)},
		{name: "lent, at home for an hour", state: alloc.Lent, age: 2 * time.Hour, home: time.Hour,
			want: free("its device was in the host for 1h0m0s")},
		{name: "lent, at home, restarted", state: alloc.Lent, age: time.Hour, home: time.Minute, restarted: time.Minute,
			want: after(4 * time.Minute)},
		{name: "lent, at home for 5 minutes, restarted", state: alloc.Lent, age: time.Hour, home: homeGrace, restarted: time.Minute,
			want: after(4 * time.Minute)},
		{name: "lent, at home for 5 minutes since a restart", state: alloc.Lent, age: time.Hour, home: time.Hour, restarted: homeGrace,
			want: free("its device was in the host for 5m0s")},
		{name: "lent, back from a container", state: alloc.Lent, age: 30 * time.Minute, home: 10 * time.Minute, used: true,
			want: after(50 * time.Minute)},
		{name: "lent, back from a container, restarted", state: alloc.Lent, age: time.Hour, home: time.Minute, restarted: 10 * time.Second,
			used: true, want: after(30 * time.Second)},
		{name: "lent, back from a container for 40 s, restarted", state: alloc.Lent, age: time.Hour, home: 40 * time.Second,
			restarted: time.Minute, used: true, want: free("its device has come back from a container, and was in the host for 40s")},
		{name: "lent, another netdev is in the host", state: alloc.Lent, age: 1000 * time.Hour, home: 100 * time.Hour, remade: true, want: keep},
		{name: "lent, another netdev is in the host, restarted", state: alloc.Lent, age: time.Hour, home: time.Hour, restarted: homeGrace, remade: true,
			want: free("its device was in the host for 5m0s")},
		{name: "lent, in an earlier boot", state: alloc.Lent, earlierBoot: true, want: free(rebooted)},
		{name: "lent, deleted, away", state: alloc.Lent, deleted: true, want: free(deleted)},

		{name: "freeing", state: alloc.Freeing, age: 1000 * time.Hour, home: time.Hour, restarted: time.Hour, earlierBoot: true,
			deleted: true, want: keep},
		{name: "quarantined", state: alloc.Quarantined, age: 1000 * time.Hour, home: time.Hour, restarted: time.Hour, earlierBoot: true,
			deleted: true, want: keep},
		{name: "ready, of an owner", state: alloc.Ready, age: 1000 * time.Hour, restarted: time.Hour, owner: engineview.NamespaceHeld, want: keep},
		{name: "lent, of an owner, at home", state: alloc.Lent, age: 1000 * time.Hour, home: 100 * time.Hour, restarted: time.Hour, used: true,
			owner: engineview.NamespaceHeld, want: keep},
		{name: "claimed, of an owner", state: alloc.Claimed, owner: engineview.NamespaceHeld, want: free(died)},
		{name: "lent, of an owner, in an earlier boot", state: alloc.Lent, earlierBoot: true, owner: engineview.NamespaceHeld, want: free(rebooted)},
		{name: "ready, its owner's namespace is gone", state: alloc.Ready, owner: engineview.NamespaceLeft, want: free(gone)},
		{name: "lent, its owner's namespace is gone", state: alloc.Lent, owner: engineview.NamespaceLeft, want: free(gone)},
		{name: "freeing, its owner's namespace is gone", state: alloc.Freeing, owner: engineview.NamespaceLeft, want: keep},
		{name: "freeing, part of one that ended", state: alloc.Freeing, whole: engineview.WholeEnded, want: keep},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := engineview.New("boot", "process", homeGrace)
				time.Sleep(2000 * time.Hour) // the plugin runs for longer than any allocation
				now := time.Now()
				if c.restarted > 0 {
					time.Sleep(time.Hour)
					v.EngineStarted()
					time.Sleep(c.restarted)
					now = time.Now()
				}
				a := engineview.Allocation{Network: "n", Endpoint: "e", State: c.state, Since: now.Add(-c.age),
					FromEarlierBoot: c.earlierBoot, Whole: c.whole, Used: c.used, Remade: c.remade, Owner: c.owner}
				if c.home > 0 {
					a.Home = now.Add(-c.home)
				}
				if c.deleted {
					v.EndpointDeleted("n", "e", store.ErrUnavailable)
				}
				if got := v.Verdict(a, now); got != c.want {
					t.Errorf("verdict is %+v, want %+v", got, c.want)
				}
				if got := v.EndsBy("n", "e"); !got.IsZero() {
					t.Errorf("ends by %v at once: the engine may be at work on it", got)
				}
				by := time.Time{}
				if c.want.After > 0 {
					by = now.Add(c.want.After)
				}
				time.Sleep(time.Second)
				if got := v.EndsBy("n", "e"); !got.Equal(by) {
					t.Errorf("ends by %v, want %v", got, by)
				}
			})
		})
	}
}

// TestPluginRestarted: what a process finds in the ledger when it starts is suspect.
func TestPluginRestarted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		since := time.Now()
		time.Sleep(time.Minute)
		v := engineview.New("boot", "process", homeGrace)
		time.Sleep(time.Minute)
		got := v.Verdict(engineview.Allocation{State: alloc.Ready, Since: since}, time.Now())
		if want := (engineview.Verdict{Action: engineview.Free, Reason: "it was not joined for 1m0s", Waited: true}); got != want {
			t.Errorf("verdict is %+v, want %+v", got, want)
		}
	})
}

// TestLeaderOfASwarm: the manager of a swarm that becomes the leader asks for the capabilities, as an engine does that starts. An engine
// that is slow goes on with the endpoints that it has created; when it joins one of them, none is suspect any more.
func TestLeaderOfASwarm(t *testing.T) {
	t.Parallel()
	for _, joins := range []bool{true, false} {
		t.Run(fmt.Sprint("joins: ", joins), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				v := engineview.New("boot", "process", homeGrace)
				time.Sleep(time.Hour)
				v.EngineStarted() // and is told of twice, as by a manager that is restarted
				time.Sleep(time.Minute)
				created := time.Now()
				time.Sleep(10 * time.Minute) // hundreds of containers
				v.EngineStarted()
				time.Sleep(50 * time.Second)
				if joins {
					v.EndpointJoined(created.Add(time.Second))
				}
				time.Sleep(20 * time.Second)
				got := v.Verdict(engineview.Allocation{State: alloc.Ready, Since: created}, time.Now())
				if freed := got.Action == engineview.Free; freed == joins {
					t.Errorf("verdict is %+v", got)
				}
				old := engineview.Allocation{State: alloc.Ready, Since: created.Add(-2 * time.Minute)}
				if got := v.Verdict(old, time.Now()); got.Action != engineview.Free {
					t.Errorf("the verdict on an endpoint from before the engine was started is %+v", got)
				}
				v.EngineStarted() // it counts the next time
				time.Sleep(time.Minute)
				if got := v.Verdict(engineview.Allocation{State: alloc.Ready, Since: created}, time.Now()); got.Action != engineview.Free {
					t.Errorf("after a real restart the verdict is %+v", got)
				}
			})
		})
	}
}

// TestEndpointDeleted: a DeleteEndpoint is remembered if it failed because the ledger could not be written now, until it succeeds.
func TestEndpointDeleted(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want engineview.Action
	}{
		{nil, engineview.Keep},
		{store.ErrUnavailable, engineview.Free},
		{fmt.Errorf("ledger: %w", store.ErrAmbiguous), engineview.Free},
		{context.DeadlineExceeded, engineview.Free},
		{store.ErrCorrupt, engineview.Keep},
		{errors.New("not the ledger"), engineview.Keep},
	} {
		v := engineview.New("boot", "process", homeGrace)
		a := engineview.Allocation{Network: "n", Endpoint: "e", State: alloc.Lent, Since: time.Now()}
		v.EndpointDeleted("n", "e", c.err)
		v.EndpointDeleted("n", "other", store.ErrUnavailable)
		if got := v.Verdict(a, time.Now()); got.Action != c.want {
			t.Errorf("after %v: verdict is %+v, want action %d", c.err, got, c.want)
		}
		v.EndpointDeleted("n", "e", nil)
		if got := v.Verdict(a, time.Now()); got.Action != engineview.Keep {
			t.Errorf("after %v and a success: verdict is %+v", c.err, got)
		}
	}
}

// TestStaleness goes through all kinds of networks: a swarm's and an engine's own, confirmed in which boot and to which process.
func TestStaleness(t *testing.T) {
	t.Parallel()
	const (
		swarm = "gsrdxmp3439nimm8j8foysii3"
		local = "80fdea3b71663d16ee03829240b2cc2e1831cc96a99a1d00cc16a26f489b8f48"
	)
	v := engineview.New("boot-2", "process-2", homeGrace)
	for _, c := range []struct {
		boot, process string
		swarm, local  engineview.Staleness
	}{
		{"boot-2", "process-2", engineview.Known, engineview.Known},
		{"boot-2", "process-1", engineview.Suspect, engineview.Known},
		{"boot-1", "process-1", engineview.Stale, engineview.Stale},
		{"", "", engineview.Suspect, engineview.Known}, // an early version recorded neither
	} {
		for id, want := range map[string]engineview.Staleness{swarm: c.swarm, local: c.local} {
			n := ledger.Network{ID: id, Boot: c.boot, Process: c.process}
			if got := v.Staleness(n); got != want {
				t.Errorf("%+v: staleness %d, want %d", n, got, want)
			}
			if got := v.Staleness(v.Confirmed(n)); id == swarm && got != engineview.Known {
				t.Errorf("%+v: staleness %d after it was confirmed", n, got)
			}
		}
	}
	if got := v.Confirmed(ledger.Network{ID: local}); got.Boot != "" || got.Process != "" {
		t.Errorf("an engine's own network is marked: %+v", got)
	}
}
