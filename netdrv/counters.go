package netdrv

import (
	"context"
	"maps"
	"sync"
)

// counters count decisions by name. Each has a line in the log as well.
type counters struct {
	mu sync.Mutex
	n  map[string]int64 // guarded by mu
}

// count counts one.
func (d *Driver) count(what string) {
	d.counts.mu.Lock()
	defer d.counts.mu.Unlock()
	if d.counts.n == nil {
		d.counts.n = map[string]int64{}
	}
	d.counts.n[what]++
}

// counted is the counters as they are.
func (d *Driver) counted() map[string]int64 {
	d.counts.mu.Lock()
	defer d.counts.mu.Unlock()
	return maps.Clone(d.counts.n)
}

// CountersResponse is how often the driver has decided what, since the process was started:
//
//	devices_claimed, _ready, _lent, _freeing, _free, _quarantined    a device got into that state
//	orphans                 an endpoint was ended that the engine had forgotten
//	tried_again             a quarantined device was tried again
//	left_alone              something stood in the way of a decision: it could not be asked, or not be done
//	networks_replaced       a network was forgotten because the user said that it is no more, or a swarm may have forgotten it
//	networks_outlived       a swarm's network was forgotten because the machine was started since
//	vfs_made, vfs_removed   a PF was divided, or made whole again
//	link_changes            the kernel told of changes, and the ledger was held against it
type CountersResponse struct{ Counters map[string]int64 }

// Counters answers them.
func (d *Driver) Counters(context.Context, *Empty) (*CountersResponse, error) {
	return &CountersResponse{d.counted()}, nil
}
