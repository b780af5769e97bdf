package netdrv

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"

	"github.com/mellanox/passthrough/store"
)

// slowEngine is how long an endpoint is left alone that looks as if it were over while nothing tells that the engine may not know
// of it: an engine that starts hundreds of containers on a slow machine can take many minutes between two calls for one of them.
const slowEngine = time.Hour

// doubts are the reasons to think that the engine knows nothing of an endpoint: it or this process was started after the endpoint was
// made; or it has told of the end, which could not be written down.
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

// ended takes note of what came of an endpoint's end. The engine does not repeat the call. A record that cannot be understood is no
// matter of time, and not to be overwritten.
func (x *doubts) ended(network, endpoint string, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	key := ledger.EndpointKey(network, endpoint)
	delete(x.unended, key)
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous) || errors.Is(err, context.DeadlineExceeded) {
		x.unended[key] = true
	}
}

// over tells whether the engine has told of the end of an allocation's endpoint.
func (x *doubts) over(l *alloc.Allocation) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.unended[ledger.EndpointKey(l.Network, l.Endpoint)]
}

// of is how long an allocation's endpoint is to be left alone that looks as if it were over: short, if it is in doubt.
func (x *doubts) of(l *alloc.Allocation, short time.Duration) time.Duration {
	x.mu.Lock()
	defer x.mu.Unlock()
	if l.Since.After(x.since) {
		return max(short, slowEngine)
	}
	return short
}
