package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// An Observation is what the driver's pools are like at one time.
type Observation struct {
	Pools []admin.Pool
	// Unread is how many pools are left out: a shared store's pool that no request has used since the process was started, or that a request
	// uses just now.
	Unread int
	Shared bool  // the pools are in a store that nodes share
	Away   error // why the shared store, or the IPAM server, cannot be used now; nil if it can
	Owed   int   // operations that the node still has to do in the store or at an IPAM server, such as releases
	// Containers has the names of containers by network and address, as far as the engine has told them. A network is "" if it is not known.
	Containers map[Place]string
}

// A Place is where a container has an address.
type Place struct {
	Network string
	Addr    netip.Addr
}

// Observe returns what the metrics show of pools. It reads this node's own ledger and the memory, never a store that nodes share, and waits for
// requests for pool.PeekWait at most.
func (d *Driver) Observe(ctx context.Context) (*Observation, error) {
	o := &Observation{Away: cmp.Or(d.pools.breaker.Unavailable(), d.pools.remote.breaker.Unavailable()), Containers: map[Place]string{}}
	if d.pools.queue != nil {
		owed, err := d.pools.queue.Owed(ctx)
		if err != nil {
			return nil, err
		}
		o.Owed = owed
	}
	toServer, err := d.pools.remote.owed(ctx)
	if err != nil {
		return nil, err
	}
	o.Owed += len(toServer)
	networks, err := networksOfPools(ctx, d.pools)
	if err != nil {
		return nil, err
	}
	o.Shared = d.pools.node != nil
	until := time.Now().Add(pool.PeekWait)
	for _, id := range slices.Sorted(maps.Keys(networks)) {
		var names []pool.HeldLease
		var p *admin.Pool
		if o.Shared {
			p, names, err = d.cached(ctx, id, until)
		} else {
			p, err = poolStatus(ctx, d.pools, id, func(a netip.Addr, l pool.Lease) {
				if l.Name != "" && l.Kind != pool.Cooldown {
					names = append(names, pool.HeldLease{Addr: a, Lease: l})
				}
			})
		}
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue
		case err != nil:
			return nil, err
		case p == nil:
			o.Unread++
			continue
		}
		p.Networks = slices.Compact(slices.Sorted(slices.Values(append(p.Networks, networks[id]...))))
		o.Pools = append(o.Pools, *p)
		o.name(p.Networks, names)
	}
	return o, nil
}

// name notes the names of the containers of a pool.
func (o *Observation) name(networks []string, leases []pool.HeldLease) {
	for _, l := range leases {
		for _, n := range networks {
			o.Containers[Place{n, l.Addr}] = l.Name
		}
	}
}

// cached returns a pool of a shared store as this process has it in memory, with the leases of this node that have a name; nil if it
// has not, or if requests use the pool until then.
func (d *Driver) cached(ctx context.Context, id string, until time.Time) (*admin.Pool, []pool.HeldLease, error) {
	used := d.pools.used(id)
	if used == nil {
		return nil, nil, nil
	}
	wait, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	c, ok := pool.Peek(wait, used)
	if !ok {
		return nil, nil, nil
	}
	ahead, err := d.pools.node.CountPrefetched(ctx, id)
	if err != nil {
		return nil, nil, err
	}
	p := &admin.Pool{ID: id, Name: c.Config.PoolName, Subnet: c.Record.Subnet.String(), Size: c.Size, Cooldown: c.Cooldown, Prefetched: ahead,
		Leased: max(0, int(c.Taken)-c.Cooldown-ahead)}
	return p, c.Named, nil
}
