package monitor

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv/metrics"
)

const (
	// observeBound is how long a request waits for an observation.
	observeBound = 2 * time.Second
	// ledgerBound is how long an observation waits for the ledger. What it waits for in the kernel has no bound.
	ledgerBound = 10 * time.Second
)

// An observer observes the drivers, once at a time: what hangs, hangs once.
type observer struct {
	sources Sources

	mu      sync.Mutex // guards all below; it is held for no longer than an assignment
	running chan struct{}
	last    observed
}

// observed is what was observed last. What could not be observed then is as it was before.
type observed struct {
	at       time.Time // zero for never
	devices  *metrics.Observation
	pools    *ipamdrv.Observation
	failures map[string]int // by part, since the process was started; never changed, but replaced
}

func newObserver(s Sources) *observer {
	return &observer{sources: s, last: observed{failures: map[string]int{"devices": 0, "pools": 0, "vf_counters": 0}}}
}

// observe returns what was observed last. It waits a while for an observation, which it begins if none is under way.
func (o *observer) observe(ctx context.Context) observed {
	o.mu.Lock()
	if o.running == nil && o.sources.Refused == nil {
		o.running = make(chan struct{})
		go o.run(o.running)
	}
	running := o.running
	o.mu.Unlock()
	bound := time.NewTimer(observeBound)
	defer bound.Stop()
	if running != nil {
		select {
		case <-running:
		case <-bound.C:
		case <-ctx.Done():
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last
}

// run observes once.
func (o *observer) run(done chan struct{}) {
	o.mu.Lock()
	next := observed{devices: o.last.devices, pools: o.last.pools, failures: map[string]int{}}
	for part, n := range o.last.failures {
		next.failures[part] = n
	}
	o.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), ledgerBound)
	defer cancel()
	begun := time.Now()
	devices, devicesErr := guarded(func() (*metrics.Observation, error) { return o.sources.Devices(ctx) })
	pools, poolsErr := guarded(func() (*ipamdrv.Observation, error) { return o.sources.Pools(ctx) })
	if devicesErr == nil {
		next.devices = devices
		for _, pf := range devices.PFs {
			if pf.Unread != nil {
				next.failures["vf_counters"]++
			}
		}
	} else {
		next.failures["devices"]++
	}
	if poolsErr == nil {
		next.pools = pools
	} else {
		next.failures["pools"]++
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	next.at = begun
	if devicesErr != nil || poolsErr != nil {
		next.at = o.last.at
	}
	o.last, o.running = next, nil
	close(done)
}

// guarded turns a panic into an error: metrics must not end the plugin.
func guarded[T any](do func() (T, error)) (got T, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	return do()
}
