package netdrv

import (
	"sync"
	"time"
)

// slowEngine is how long an endpoint is left alone that looks as if it were over while nothing tells that the engine may not know
// of it: an engine that starts hundreds of containers on a slow machine can take many minutes between two calls for one of them.
const slowEngine = time.Hour

// doubts are the reasons to think that the engine may know nothing of an endpoint, or not have told of its end: the engine or this
// process was started after it was made, or its end could not be written down.
type doubts struct {
	mu      sync.Mutex // guards all below
	since   time.Time  // endpoints from before this are in doubt
	unended map[string]bool
}

// all puts every endpoint that there is now in doubt. An engine asks for the capabilities when it is started, and when the plugin
// is, and at no other time (testdata/engine of cmd/driver: 20.10 to 29.7, with live-restore as well).
func (x *doubts) all() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.since = time.Now()
}

// ended takes note of what came of an endpoint's end. The engine does not repeat the call.
func (x *doubts) ended(network, endpoint string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if key := endpointKey(network, endpoint); err != nil {
		x.unended[key] = true
	} else {
		delete(x.unended, key)
	}
}

// of is how long a loan's endpoint is to be left alone: short, if it is in doubt.
func (x *doubts) of(l *loan, short time.Duration) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !l.Since.After(x.since) || x.unended[endpointKey(l.Network, l.Endpoint)] {
		return short
	}
	return max(short, slowEngine)
}
