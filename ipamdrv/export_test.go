package ipamdrv

import (
	"context"
	"maps"

	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// CheckCaches compares what the driver has cached of each pool with the store.
func CheckCaches(ctx context.Context, d *Driver) error {
	d.pools.mu.Lock()
	all := maps.Clone(d.pools.byID)
	d.pools.mu.Unlock()
	for _, p := range all {
		if err := p.Lock(ctx); err != nil {
			return err
		}
		if err := p.UnlockAfter(func() error { return pool.CheckCache(ctx, p) }); err != nil {
			return err
		}
	}
	return nil
}

// PoolsWithOps returns for how many pools a node has ops in its outbox.
func (d *Driver) PoolsWithOps(ctx context.Context) (int, error) {
	ids, err := d.pools.node.Pools(ctx)
	return len(ids), err
}

// Following returns true if the driver has read all leases of all pools that it uses.
func Following(ctx context.Context, d *Driver) (bool, error) {
	d.pools.mu.Lock()
	all := maps.Clone(d.pools.byID)
	d.pools.mu.Unlock()
	for _, p := range all {
		if err := p.Lock(ctx); err != nil {
			return false, err
		}
		loaded := p.Loaded()
		p.Unlock()
		select {
		case <-loaded:
		default:
			return false, nil
		}
	}
	return true, nil
}
