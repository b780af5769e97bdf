// Package metrics counts the decisions of the network driver by name. Each decision has a line in the log as well.
//
//	devices_claimed, _ready, _lent, _freeing, _free, _quarantined    a device got into that state
//	orphans                 an endpoint was ended that the engine had forgotten
//	tried_again             a quarantined device was tried again
//	left_alone              a decision was put off: a fact could not be found out, or a step failed
//	networks_replaced       a network was removed because the user said that it is stale, or because a swarm may have forgotten it
//	networks_outlived       a swarm's network was removed because the machine was rebooted since
//	vfs_made, vfs_removed   the VFs of a PF were created or removed
//	vlans_made, vlans_removed   a VLAN device was created or removed
//	host_children_made, host_children_removed   the host's own child of a network was created or removed
//	vfs_changed             what a PF has set for the VF of a container was changed on the host
//	vfs_reset               what a container's VF had lost by a reset of its PF was set again, or could not be
//	devices_lost            a container that has not ended was found to be without its device
//	routes_repaired         an announced route was missing and was added again
//	link_changes            the kernel reported changes of links, and the ledger was compared with the kernel
package metrics

import (
	"maps"
	"sync"
)

// Counters has one counter for each name. The zero value is ready to use.
type Counters struct {
	mu sync.Mutex
	n  map[string]int64 // guarded by mu
}

// Count adds one to a counter.
func (c *Counters) Count(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = map[string]int64{}
	}
	c.n[name]++
}

// Snapshot returns the counters as they are now.
func (c *Counters) Snapshot() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.n)
}
