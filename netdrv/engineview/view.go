// Package engineview decides whether the engine still knows an endpoint or a network that the ledger has. It is the one place where
// that is decided. It is pure: callers gather the facts, and act on the verdict.
//
// Nothing is freed because something is missing. Each reason to free is evidence: the process that set an allocation up has died,
// the machine was rebooted, the engine has deleted the endpoint, or the engine or the plugin was restarted and the kernel shows
// for a grace period that the device is not in use.
package engineview

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mellanox/passthrough/store"
)

const (
	// joinGrace is how long an endpoint that was never joined is kept if the engine or the plugin was restarted since: the engine
	// joins at once, and tries for 30 seconds at most to reach a plugin that is being restarted. It sends no DeleteEndpoint for
	// an endpoint whose CreateEndpoint it got no answer to.
	joinGrace = time.Minute
	// usedGrace is how long an endpoint is kept whose device has come back from a container, if the engine or the plugin was restarted
	// since: the engine deletes the endpoint next, and tries for 30 seconds at most.
	usedGrace = 40 * time.Second
	// slowEngineGrace is how long any endpoint is kept if neither was restarted since: an engine that starts hundreds of containers
	// on a slow machine can take many minutes between two calls for one of them.
	slowEngineGrace = time.Hour
)

// A View is what one process of the plugin knows about the engine. Its methods may be called concurrently.
type View struct {
	boot, process string
	homeGrace     time.Duration

	mu      sync.Mutex
	starts  []time.Time     // of this process, then of the engine as it seems; endpoints from before the last are suspect
	deleted map[string]bool // endpoints that the engine has deleted, and whose end the ledger could not take
	endsBy  map[string]ending
}

// New returns a view. boot identifies the boot of the machine, process this process of the plugin. homeGrace is how long a device
// that was given to a container may be seen in the host before its endpoint counts as an orphan.
func New(boot, process string, homeGrace time.Duration) *View {
	return &View{boot: boot, process: process, homeGrace: homeGrace, starts: []time.Time{time.Now()},
		deleted: map[string]bool{}, endsBy: map[string]ending{}}
}

// EngineStarted makes every endpoint that exists now suspect. An engine asks for the capabilities when it is started and when the
// plugin is (testdata/engine of cmd/driver: 20.10 to 29.7, with live-restore as well). The manager of a swarm asks as well each time it
// becomes the leader (swarmkit, manager/allocator/cnmallocator; 20.10 to 29), and has forgotten nothing then: see [View.EndpointJoined].
func (v *View) EngineStarted() {
	v.mu.Lock()
	defer v.mu.Unlock()
	const enough = 16
	if v.starts = append(v.starts, time.Now()); len(v.starts) > enough {
		v.starts = slices.Delete(v.starts, 1, 2)
	}
}

// EndpointJoined records that the engine joins an endpoint that was created at a time. Only the engine that has created an endpoint joins
// it: if that was before the engine seemed to have been started, it was not, and no endpoint is suspect for that.
func (v *View) EndpointJoined(created time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for len(v.starts) > 1 && !created.After(v.sinceLocked()) {
		v.starts = v.starts[:len(v.starts)-1]
	}
}

// EndpointDeleted records the result of a DeleteEndpoint. The engine does not repeat the call, so one that the ledger could not take
// now has to be made good later. A record that cannot be read stays as it is: waiting does not help, and it must not be overwritten.
func (v *View) EndpointDeleted(network, endpoint string, result error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.deleted, endpointID(network, endpoint))
	delete(v.endsBy, endpointID(network, endpoint))
	if errors.Is(result, store.ErrUnavailable) || errors.Is(result, store.ErrAmbiguous) || errors.Is(result, context.DeadlineExceeded) {
		v.deleted[endpointID(network, endpoint)] = true
	}
}

// EndsBy returns by when an endpoint that the engine seems to have forgotten is removed if nothing changes, as of its last verdict; the zero
// time if it is kept.
func (v *View) EndsBy(network, endpoint string) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	e := v.endsBy[endpointID(network, endpoint)]
	if time.Since(e.since) < moveTime {
		return time.Time{}
	}
	return e.by
}

// moveTime is how long an endpoint is not joined, or a device is in the host after Join, before the engine seems to have forgotten it. The
// engine is at work on it in that time.
const moveTime = time.Second

// An ending is by when an endpoint is removed if nothing changes, and since when that is so.
type ending struct{ by, since time.Time }

// noteLocked remembers the verdict on an allocation that is not part of another.
func (v *View) noteLocked(a Allocation, now time.Time, left time.Duration) {
	id := endpointID(a.Network, a.Endpoint)
	switch {
	case a.Whole != NoWhole:
	case left > 0:
		e := v.endsBy[id]
		if e.by = now.Add(left); e.since.IsZero() {
			e.since = now
		}
		v.endsBy[id] = e
	default:
		delete(v.endsBy, id)
	}
}

func endpointID(network, endpoint string) string { return network + "/" + endpoint }

// sinceLocked returns the last start; endpoints from before it are suspect.
func (v *View) sinceLocked() time.Time { return v.starts[len(v.starts)-1] }

// suspectLocked reports whether the engine may have forgotten the endpoint of an allocation.
func (v *View) suspectLocked(a Allocation) bool { return !a.Since.After(v.sinceLocked()) }

// deadlineLocked returns until when the engine is waited for if something has lasted since from, and for how long that is. It is waited
// for from when the allocation became suspect: what lasted before may be an engine that is slow, and still at work.
func (v *View) deadlineLocked(a Allocation, from time.Time, grace time.Duration) (time.Time, time.Duration) {
	if !v.suspectLocked(a) {
		grace = max(grace, slowEngineGrace)
	} else if from.Before(v.sinceLocked()) {
		from = v.sinceLocked()
	}
	return from.Add(grace), grace
}
