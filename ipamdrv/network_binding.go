package ipamdrv

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// localHandle is a handle of this node's engine, with what the store says of it.
type localHandle struct {
	pool.Handle
	subnet  netip.Prefix
	network string // of the network driver on this node; "" for unknown
	created time.Time
}

// BindPool is called when the network driver on this node has just created a network with a pool of that address space. It records whose the
// pool is, which the engine's requests do not say. If more than one pool is possible, it records nothing. unused is the pool's gateway if the
// network does not use it, "" otherwise: engines before 28 request one for every network, and a small subnet has no address to spare.
func (d *Driver) BindPool(ctx context.Context, network, space, subnet, unused string) {
	prefix, err := netip.ParsePrefix(subnet)
	if err != nil || space != localSpace && space != globalSpace {
		return // another IPAM driver's
	}
	all, err := d.pools.localHandles(ctx)
	now := time.Now()
	possible := slices.DeleteFunc(all, func(h localHandle) bool {
		return h.subnet != prefix || !bindable(h.network, now.Sub(h.created))
	})
	if err == nil && len(possible) == 1 {
		err = d.pools.bind(ctx, possible[0].Handle, network, unused)
	}
	if err != nil {
		d.log.Warn("pool is not bound to its network; leases without a container will stay in it", zap.Stringer("pool", prefix),
			zap.String("network", network), zap.Error(err))
	}
}

// bind records which network has a handle, and releases the gateway that the network does not use, if no user named it.
func (ps *pools) bind(ctx context.Context, h pool.Handle, network, unused string) error {
	_, p, err := ps.open(ctx, h.String())
	if err != nil {
		return err
	}
	defer p.Unlock()
	if err := p.Bind(ctx, h, network); err != nil {
		return err
	}
	gw, err := netip.ParsePrefix(unused)
	if err != nil { // "": it uses the gateway, or has none
		return nil
	}
	return p.ReleaseInventedGateway(ctx, h, gw.Addr())
}

// localHandles lists the handles of this node's engine. It skips records that cannot be read.
func (ps *pools) localHandles(ctx context.Context) ([]localHandle, error) {
	isLocal, err := ps.node.Local(ctx)
	if err != nil {
		return nil, err
	}
	shares, err := ps.shareHandles(ctx)
	if err != nil {
		return nil, err
	}
	var all []localHandle
	err = ps.ledger.Store.Range(ctx, pool.Prefix, func(kv store.KV) error {
		rec, err := pool.DecodeRecord(kv)
		if err != nil {
			return nil
		}
		id := strings.TrimPrefix(kv.Key, pool.Prefix)
		handles := shares[id]
		if len(handles) == 0 {
			handles = []localHandle{{Handle: pool.Handle{ID: id}, network: rec.Network, created: rec.Created}}
		}
		for _, h := range handles {
			if h.subnet = rec.Subnet; isLocal(h.Handle) {
				all = append(all, h)
			}
		}
		return nil
	})
	return all, err
}

// shareHandles lists the handles of shared pools, by pool.
func (ps *pools) shareHandles(ctx context.Context) (map[string][]localHandle, error) {
	shares := map[string][]localHandle{}
	err := ps.ledger.Store.Range(ctx, pool.SharePrefix, func(kv store.KV) error {
		id, share, _ := strings.Cut(strings.TrimPrefix(kv.Key, pool.SharePrefix), "/")
		if rec, err := pool.DecodeShare(kv); err == nil {
			h := pool.Handle{ID: id, Share: share}
			shares[id] = append(shares[id], localHandle{Handle: h, network: rec.Network, created: rec.Created})
		}
		return nil
	})
	return shares, err
}
