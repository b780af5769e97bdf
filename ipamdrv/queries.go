package ipamdrv

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// InventedGateway returns true if gateway is one that was requested for no particular address: engines before 28 request one for every
// network. subnet and gateway are as this driver answered them; of several pools with this subnet and gateway the newest counts. A store that
// nodes share is not asked.
func (d *Driver) InventedGateway(ctx context.Context, subnet, gateway string) bool {
	prefix, err := netip.ParsePrefix(subnet)
	gw := addrOf(gateway)
	if err != nil || !gw.IsValid() {
		return false
	}
	invented, known := d.pools.unbound.inventedGateway(prefix, gw)
	if known {
		return invented
	}
	if invented, err = d.pools.inventedGateway(ctx, prefix, gw); err != nil {
		d.log.Warn("gateway taken for the user's own", zap.String("pool", subnet), zap.Stringer("gateway", gw), zap.Error(err))
	}
	return invented
}

// inventedGateway is InventedGateway for pools that another process of this node was asked for.
func (ps *pools) inventedGateway(ctx context.Context, subnet netip.Prefix, gw netip.Addr) (bool, error) {
	if ps.node != nil {
		all, err := ps.node.Bindings(ctx)
		return slices.ContainsFunc(all, func(b node.Binding) bool { return b.Subnet == subnet && b.Invented == gw }), err
	}
	var newest pool.Record
	err := ps.ledger.Store.Range(ctx, pool.Prefix, func(kv store.KV) error {
		rec, err := pool.DecodeRecord(kv)
		if err == nil && rec.Gateway == gw && rec.Subnet == subnet && !rec.Created.Before(newest.Created) {
			newest = rec
		}
		return nil // a record that cannot be read is not the one of the network that is being created
	})
	return newest.Invented && err == nil, err
}

// ContainerName returns the name of the container for which the engine requested an address a short time ago, if the engine sent it (29
// and later); "" for unknown. address is as this driver answered it, with its prefix length. If several pools gave the same, the last
// request counts, which is that of the container that is being started. It asks no store: a start on a network of another IPAM driver
// does not depend on this driver's.
func (d *Driver) ContainerName(address string) string { return d.names.get(address).name }

// RequestedUnnamed reports whether the engine requested an address a short time ago without the name of the container: engines from 29 on
// send it with every address of a container.
func (d *Driver) RequestedUnnamed(address string) bool {
	r := d.names.get(address)
	return !r.since.IsZero() && r.name == ""
}

// nameTTL is how long the name of a container is remembered. The engine creates the endpoint at once after it has requested the address.
const nameTTL = time.Minute

// recentNames is a cache of the names of the containers that have just been given addresses.
type recentNames struct {
	mu    sync.Mutex            // guards the fields below
	names map[string]recentName // by address without prefix length
	swept time.Time             // when those that had expired were dropped
}

type recentName struct {
	address string // with its prefix length
	name    string
	since   time.Time
}

// put records for whom an address is, with its prefix length; name is "" if the engine did not say it. It drops names that have expired, once
// in the time after which they do: a thousand containers may start within that.
func (n *recentNames) put(address, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if now.Sub(n.swept) > nameTTL {
		n.swept = now
		maps.DeleteFunc(n.names, func(_ string, r recentName) bool { return n.swept.Sub(r.since) > nameTTL })
	}
	a, _, _ := strings.Cut(address, "/")
	n.names[a] = recentName{address, name, now}
}

// get returns what is known of an address, the zero value if it was not requested a short time ago.
func (n *recentNames) get(address string) recentName {
	n.mu.Lock()
	defer n.mu.Unlock()
	a, _, _ := strings.Cut(address, "/")
	r := n.names[a]
	if r.address != address || time.Since(r.since) > nameTTL {
		return recentName{}
	}
	return r
}

// remove forgets for whom an address of any prefix length was.
func (n *recentNames) remove(a netip.Addr) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.names, a.String())
}
