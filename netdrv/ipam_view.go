package netdrv

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
)

// Addresses is the IPAM driver as it is used for owners that are no engine; an engine calls it itself. What is requested and never recorded,
// because the process ended, it finds by [Driver.Uses] and releases: a pool of a network that does not exist, an address without an endpoint.
type Addresses interface {
	// RequestPool requests a pool for the network with this ID, which need not exist yet, and its gateway. It returns the pool's ID, and what an
	// engine would say of it.
	RequestPool(ctx context.Context, network string, s admin.Subnet, options map[string]string) (id string, data *plugin.IPAMData, err error)
	// ReleasePool releases a pool and all that is left in it. One that is not known is no error.
	ReleasePool(ctx context.Context, id string) error
	// Lease leases an address of a pool, any if address is "". container and mac, "" for unknown, are what the container is recognized by when
	// it comes again. The address that it returns has a prefix length.
	Lease(ctx context.Context, pool, address, container, mac string) (string, ledger.Lease, error)
	// Release releases a lease. One that has ended is no error, also if the address is leased again.
	Release(ctx context.Context, l ledger.Lease) error
}

// leases releases what owners had of the IPAM driver, when it is known to be over. Callers that hold locks only note that: nodes may share the
// store of addresses, which may be slow. What is noted is lost with the process, and found by the IPAM driver later.
type leases struct {
	from  Addresses // nil if there are no pools for owners
	log   *zap.Logger
	locks *keylock.Map
	host  *hw.Host

	mu    sync.Mutex // guards the fields below
	ended []ledger.Lease
	pools []string
}

// releaseBound bounds the wait of the reconciler for what the IPAM driver releases.
const releaseBound = 5 * time.Second

// outOf notes that a container does not use the addresses of an allocation any more, if that is so: its device is home, or gone.
func (l *leases) outOf(a *alloc.Allocation) {
	if len(a.Leases) == 0 || !a.Ended() && l.mayBeUsed(a) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = append(l.ended, a.Leases...)
}

// mayBeUsed returns whether a container may use the addresses of an allocation whose endpoint is gone: the device has not come home, unless it
// is a child that has ended with its namespace.
func (l *leases) mayBeUsed(a *alloc.Allocation) bool {
	if len(a.Leases) == 0 || a.FromEarlierBoot() {
		return false
	}
	if _, err := l.host.Find(a.Device); err == nil {
		return false
	}
	if a.Child == nil || a.Child.Kind == hw.IPoIB {
		return true
	}
	elsewhere, err := l.host.ChildElsewhere(a.Device, a.Child.Parent)
	return elsewhere && err == nil // without its parent it has ended, too
}

// withPools notes that a network is gone.
func (l *leases) withPools(n ledger.Network) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pools = append(l.pools, n.PoolIDs...)
}

// release releases what was noted. The caller holds no lock of a device or of all networks.
func (l *leases) release(ctx context.Context) {
	unlock, err := l.locks.Lock(ctx, "leases") // when a call returns, what it has noted is released
	if err != nil {
		return
	}
	defer unlock()
	l.mu.Lock()
	ended, pools := l.ended, l.pools
	l.ended, l.pools = nil, nil
	l.mu.Unlock()
	if l.from == nil {
		return
	}
	for _, lease := range ended {
		l.warn(l.from.Release(ctx, lease), lease.Pool)
	}
	for _, id := range pools {
		l.warn(l.from.ReleasePool(ctx, id), id)
	}
}

// warn logs what could not be released, which the IPAM driver finds later.
func (l *leases) warn(err error, pool string) {
	if err != nil {
		l.log.Warn("address or pool is released later", zap.String("pool", pool), zap.NamedError("err", err))
	}
}

// Use is one network, and the addresses that its endpoints have.
type Use struct {
	Network string // its ID
	Addrs   []netip.Addr
	// EndsBy has those of Addrs whose endpoint the engine seems to have forgotten, with the time by which it is removed if nothing changes.
	EndsBy map[netip.Addr]time.Time
}

// Uses lists the addresses that the endpoints of all networks have, for the IPAM driver. An endpoint whose addresses are not known is an
// error: its address must not count as free.
func (d *Driver) Uses(ctx context.Context) ([]Use, error) {
	networks, err := ledger.List[ledger.Network](ctx, d.endpoints.store, ledger.NetworkPrefix)
	if err != nil {
		return nil, err
	}
	held, err := d.endpoints.allocs.List(ctx)
	if err != nil {
		return nil, err
	}
	var all []Use
	for _, n := range networks {
		u, err := d.usesOf(ctx, n.Rec.ID)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", ledger.ShortID(n.Rec.ID), err)
		}
		for _, a := range held {
			if a.Network == n.Rec.ID && d.endpoints.leases.mayBeUsed(a) {
				for _, l := range a.Leases {
					u.Addrs = append(u.Addrs, l.Addr)
				}
			}
		}
		all = append(all, u)
	}
	return all, nil
}

// usesOf lists the addresses of one network.
func (d *Driver) usesOf(ctx context.Context, nid string) (Use, error) {
	u := Use{Network: nid, EndsBy: map[netip.Addr]time.Time{}}
	endpoints, err := ledger.List[ledger.Endpoint](ctx, d.endpoints.store, ledger.EndpointsOf(nid))
	if err != nil {
		return Use{}, err
	}
	for _, e := range endpoints {
		if len(e.Rec.Addrs) == 0 && (e.Rec.IPv4 || e.Rec.IPv6) {
			return Use{}, fmt.Errorf("endpoint %s: its addresses are not known", ledger.ShortID(e.Rec.ID))
		}
		for _, text := range e.Rec.Addrs {
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return Use{}, fmt.Errorf("endpoint %s: %w", ledger.ShortID(e.Rec.ID), err)
			}
			u.Addrs = append(u.Addrs, p.Addr())
			if by := d.engine.EndsBy(nid, e.Rec.ID); !by.IsZero() {
				u.EndsBy[p.Addr()] = by
			}
		}
	}
	return u, nil
}
