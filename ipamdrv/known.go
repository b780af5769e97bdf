package ipamdrv

import (
	"context"
	"errors"
	"strings"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// InventedGateway says whether gateway is one that nobody asked for by address: engines before 28 want one for every
// network. pool and gateway are as this driver answered them; of several pools with that subnet and gateway the newest
// counts.
//
// In a ledger that nodes share only the pools of this node's networks count.
func (d *Driver) InventedGateway(ctx context.Context, pool, gateway string) bool {
	gateway, _, _ = strings.Cut(gateway, "/")
	gw, err := parseAddr(gateway)
	if err != nil {
		return false
	}
	var newest poolRecord
	err = d.ledger.store.Range(ctx, poolPrefix, func(kv store.KV) error {
		rec, err := decodePool(kv)
		if err != nil || rec.Gateway != gw || rec.Subnet.String() != pool || rec.Created.Before(newest.Created) {
			return nil // a record that cannot be read is not the one of the network that is being made
		}
		ours, err := d.node.has(ctx, strings.TrimPrefix(kv.Key, poolPrefix))
		if ours {
			newest = rec
		}
		return err
	})
	if err != nil {
		d.log.Warn("gateway taken for the user's own", zap.String("pool", pool), zap.Stringer("gateway", gw), zap.Error(err))
		return false
	}
	return newest.Invented
}

// ContainerName is the name of the container that has address, of a pool with that subnet, as far as the engine has told
// it (29 and later); "" for unknown. pool and address are as this driver answered them; where several pools have that
// subnet the youngest lease counts, which is the one of a container that is being started.
func (d *Driver) ContainerName(ctx context.Context, pool, address string) string {
	address, _, _ = strings.Cut(address, "/")
	a, err := parseAddr(address)
	if err != nil {
		return ""
	}
	var leases []string // of that address; none is read inside of the listing, which would hold two reads open at once
	err = d.ledger.store.Range(ctx, poolPrefix, func(kv store.KV) error {
		rec, err := decodePool(kv)
		if err != nil || rec.Subnet.String() != pool {
			return nil // a record that cannot be read is not the one of a container that is being started
		}
		id := strings.TrimPrefix(kv.Key, poolPrefix)
		ours, err := d.node.has(ctx, id)
		if ours {
			leases = append(leases, leaseKey(id, a))
		}
		return err
	})
	var youngest leaseRecord
	for _, key := range leases {
		kv, getErr := d.ledger.store.Get(ctx, key)
		if errors.Is(getErr, store.ErrNotFound) {
			continue
		}
		l, decodeErr := decodeLease(kv)
		err = errors.Join(err, getErr)
		if getErr == nil && decodeErr == nil && l.Kind != kindResting && l.Kind != kindReserve && !l.Since.Before(youngest.Since) {
			youngest = l
		}
	}
	if err != nil {
		d.log.Warn("container not known by its name", zap.String("pool", pool), zap.Stringer("address", a), zap.Error(err))
	}
	return youngest.Name
}
