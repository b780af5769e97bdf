package ipamdrv

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// held is a handle of this node's engine, and what the ledger says of it.
type held struct {
	handle
	subnet  netip.Prefix
	network string // of the network driver on this node; "" for unknown
	created time.Time
}

// bindTime is how long after the request for its pool a network is made at the latest, on an engine that is very busy.
const bindTime = time.Minute

// GotPool is told that the network driver on this node has just made a network with a pool of that address space. From then on
// it is known whose the pool is: the engine's requests do not say. When more than one pool could be meant, it is not.
func (d *Driver) GotPool(ctx context.Context, network, space, pool string) {
	subnet, err := netip.ParsePrefix(pool)
	if err != nil || space != localSpace && space != globalSpace {
		return // another IPAM driver's
	}
	all, err := d.handles(ctx)
	now := time.Now()
	meant := slices.DeleteFunc(all, func(h held) bool {
		return h.subnet != subnet || h.network != "" || now.Sub(h.created) > bindTime
	})
	if err == nil && len(meant) == 1 {
		err = d.bind(ctx, meant[0].handle, network)
	}
	if err != nil {
		d.log.Warn("not known whose a pool is; leases that nobody has will stay in it", zap.Stringer("pool", subnet),
			zap.String("network", network), zap.Error(err))
	}
}

// bind writes down which network has a handle.
func (d *Driver) bind(ctx context.Context, h handle, network string) error {
	_, p, err := d.pool(ctx, h.String())
	if err != nil {
		return err
	}
	defer p.unlock()
	return again(ctx, func() error {
		if err := p.load(ctx); err != nil {
			return err
		}
		if h.share != "" {
			return p.changeShare(ctx, h, nil, func(rec *shareRecord) { rec.Network = network })
		}
		next := p.state.rec
		next.Network = network
		_, err := p.write(ctx, nil, &next)
		return err
	})
}

// handles lists those of this node's engine. What cannot be read is left out.
func (d *Driver) handles(ctx context.Context) ([]held, error) {
	mine, err := d.node.mineOnly(ctx)
	if err != nil {
		return nil, err
	}
	shared := map[string][]held{}
	err = d.ledger.store.Range(ctx, sharePrefix, func(kv store.KV) error {
		var rec shareRecord
		id, share, _ := strings.Cut(strings.TrimPrefix(kv.Key, sharePrefix), "/")
		if decode(kv, &rec, &rec.V) == nil {
			shared[id] = append(shared[id], held{handle: handle{id, share}, network: rec.Network, created: rec.Created})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	var all []held
	err = d.ledger.store.Range(ctx, poolPrefix, func(kv store.KV) error {
		rec, err := decodePool(kv)
		if err != nil {
			return nil
		}
		id := strings.TrimPrefix(kv.Key, poolPrefix)
		some := shared[id]
		if len(some) == 0 {
			some = []held{{handle: handle{id: id}, network: rec.Network, created: rec.Created}}
		}
		for _, h := range some {
			if h.subnet = rec.Subnet; mine(h.handle) {
				all = append(all, h)
			}
		}
		return nil
	})
	return all, err
}
