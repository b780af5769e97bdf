package ipamdrv

import (
	"context"
	"errors"
	"strings"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// InventedGateway returns true if gateway is one that was requested for no particular address: engines before 28 request one for every
// network. subnet and gateway are as this driver answered them; of several pools with this subnet and gateway the newest counts. In a store
// that nodes share only the pools of this node count.
func (d *Driver) InventedGateway(ctx context.Context, subnet, gateway string) bool {
	gateway, _, _ = strings.Cut(gateway, "/")
	gw, err := addr.Parse(gateway)
	if err != nil {
		return false
	}
	var newest pool.Record
	err = d.pools.ledger.Store.Range(ctx, pool.Prefix, func(kv store.KV) error {
		rec, err := pool.DecodeRecord(kv)
		if err != nil || rec.Gateway != gw || rec.Subnet.String() != subnet || rec.Created.Before(newest.Created) {
			return nil // a record that cannot be read is not the one of the network that is being created
		}
		local, err := d.pools.node.HasPool(ctx, strings.TrimPrefix(kv.Key, pool.Prefix))
		if local {
			newest = rec
		}
		return err
	})
	if err != nil {
		d.log.Warn("gateway taken for the user's own", zap.String("pool", subnet), zap.Stringer("gateway", gw), zap.Error(err))
		return false
	}
	return newest.Invented
}

// ContainerName returns the name of the container that has an address of a pool with this subnet, if the engine has sent it (29 and later);
// "" for unknown. subnet and address are as this driver answered them. If several pools have this subnet, the youngest lease counts, which is
// that of the container that is being started.
func (d *Driver) ContainerName(ctx context.Context, subnet, address string) string {
	address, _, _ = strings.Cut(address, "/")
	a, err := addr.Parse(address)
	if err != nil {
		return ""
	}
	var leases []string // keys; they are read after the listing, because a store cannot be read inside of it
	err = d.pools.ledger.Store.Range(ctx, pool.Prefix, func(kv store.KV) error {
		rec, err := pool.DecodeRecord(kv)
		if err != nil || rec.Subnet.String() != subnet {
			return nil // a record that cannot be read is not the one of a container that is being started
		}
		id := strings.TrimPrefix(kv.Key, pool.Prefix)
		local, err := d.pools.node.HasPool(ctx, id)
		if local {
			leases = append(leases, pool.LeaseKey(id, a))
		}
		return err
	})
	var youngest pool.Lease
	for _, key := range leases {
		kv, getErr := d.pools.ledger.Store.Get(ctx, key)
		if errors.Is(getErr, store.ErrNotFound) {
			continue
		}
		l, decodeErr := pool.DecodeLease(kv)
		err = errors.Join(err, getErr)
		leased := l.Kind != pool.Cooldown && l.Kind != pool.Prefetched
		if getErr == nil && decodeErr == nil && leased && !l.Since.Before(youngest.Since) {
			youngest = l
		}
	}
	if err != nil {
		d.log.Warn("container not known by its name", zap.String("pool", subnet), zap.Stringer("address", a), zap.Error(err))
	}
	return youngest.Name
}
