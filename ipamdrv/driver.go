package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/libnetwork/netlabel"
	"go.uber.org/zap"
	"golang.org/x/sync/semaphore"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/ipamdrv/remote"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// Config is what a Driver needs.
type Config struct {
	Store store.Store // shared with other packages: this driver's keys begin with "ipam/"
	Log   *zap.Logger // nil for none
	// Own is this node's own ledger if nodes share Store; nil if Store is this node's alone. Its keys begin with "node/" and "cluster/".
	// NodeName is the node's name for people. Journal has what must survive the process beside either store, and must not be the journal of
	// another store; without one a release that the node's own ledger refuses is not retried.
	Own      store.Store
	Journal  node.Journal
	NodeName string
	Machine  cluster.Machine // that this process runs on
	Capabilities

	Defaults []DefaultPool // for networks without a subnet
	// Host lists the subnets that the host is on or has routes to, which default pools must not overlap; nil for none.
	Host func() ([]netip.Prefix, error)
	// Probe asks who has an address, for pools with the option probe; nil: such pools are refused.
	Probe Prober
	// DHCP leases addresses, for pools with the option dhcp; nil: such pools are refused.
	DHCP DHCP
	// Remote is an IPAM server whose addresses new pools have unless their option remote is off; nil for none.
	Remote *remote.Client
	// Uses lists the networks that the network driver on this node knows; nil for none. See [Use].
	Uses func(context.Context) ([]Use, error)
	// MaintainEvery is the interval of background work, see Maintain. 0 means 5 seconds.
	MaintainEvery time.Duration

	dry bool // see DryRun
}

// Capabilities are the answers that need no store.
type Capabilities struct {
	// RequireMAC makes the engine send the MAC of each device. The engine invents one for every device whose user named none, and forces it
	// on the device.
	RequireMAC bool
}

// Driver is the IPAM driver. Its methods are the engine's calls; they may run concurrently.
type Driver struct {
	Capabilities
	config  Config // for DryRun
	pools   *pools
	creator *creator
	gc      *gc
	alloc   *allocator
	names   *recentNames
	servers serverWatch // of Maintain alone
	every   time.Duration
	log     *zap.Logger
}

// New returns a driver. It does not use the store: while that is not available, calls return its error.
func New(c Config) (*Driver, error) {
	if c.Store == nil {
		return nil, errors.New("ipam driver: no store")
	}
	if c.Own != nil && c.Journal == nil {
		return nil, errors.New("ipam driver: no journal")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	if c.MaintainEvery == 0 {
		c.MaintainEvery = 5 * time.Second
	}
	p := &pools{ledger: pool.Ledger{Store: c.Store}, log: c.Log, background: newWakeup(), unbound: &unboundPools{}, byID: map[string]*pool.Pool{}}
	if c.Own != nil {
		p.node, p.breaker = node.New(c.Own, c.Store, c.Journal, c.NodeName), node.NewBreaker(c.Store)
		p.node.Member().OnMachine(c.Machine)
		p.ledger.Member, p.ledger.Batched, p.outbox = p.node.Member(), true, p.node
		p.queue = p.node
	} else {
		p.queue = newQueue(c.Journal, c.Log)
	}
	p.remote = newRemoteLeases(p, c)
	p.leases = &dhcpLeases{pools: p, servers: c.DHCP, log: c.Log, wake: newWakeup(), all: map[leaseRef]dhcpLease{}}
	collector := newGC(p, c.Uses, c.MaintainEvery)
	return &Driver{Capabilities: c.Capabilities, config: c, pools: p, every: c.MaintainEvery, log: c.Log,
		names:   &recentNames{names: map[string]recentName{}},
		creator: &creator{pools: p, host: c.Host, defaults: c.Defaults, oneAtATime: semaphore.NewWeighted(1)},
		gc:      collector,
		alloc:   &allocator{p, c.Probe, c.DHCP, collector}}, nil
}

// Close ends what runs in the background, but not [Driver.Maintain]. The driver must not be used afterwards.
func (d *Driver) Close() {
	d.pools.close()
	d.pools.breaker.Close()
	d.pools.remote.breaker.Close()
}

// undoTimeout bounds the undo of what a client that has gone will never hear of.
const undoTimeout = 5 * time.Second

// GetCapabilities returns what the engine must add to its requests.
func (c Capabilities) GetCapabilities(context.Context, *Empty) (*CapabilitiesResponse, error) {
	return &CapabilitiesResponse{RequiresMACAddress: c.RequireMAC}, nil
}

// GetCapabilities is called by an engine that has started, and by each engine after this process has started: calls may have been lost, and
// all leases are suspect.
func (d *Driver) GetCapabilities(ctx context.Context, r *Empty) (*CapabilitiesResponse, error) {
	d.gc.markAllSuspect()
	return d.Capabilities.GetCapabilities(ctx, r)
}

// GetDefaultAddressSpaces returns two fixed names.
func (c Capabilities) GetDefaultAddressSpaces(context.Context, *Empty) (*ipam.AddressSpacesResponse, error) {
	return &ipam.AddressSpacesResponse{LocalDefaultAddressSpace: localSpace, GlobalDefaultAddressSpace: globalSpace}, nil
}

// RequestPool creates a pool of a subnet, or joins the shared pool that the request names. Every other request creates a pool of its own,
// whatever pools exist: two tenants may use the same addresses on different VLANs.
func (d *Driver) RequestPool(ctx context.Context, r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	return d.Owners().RequestPool(ctx, "", r)
}

// Owners is the driver as it is used for owners of devices that are no engine: they say for which network a pool is, and later which lease is to
// be released.
type Owners struct{ driver *Driver }

// Owners returns the driver for owners that are no engine.
func (d *Driver) Owners() Owners { return Owners{d} }

// RequestPool is [Driver.RequestPool] for the network with this ID, which need not exist yet; no BindPool follows. If the network driver does not
// have the network a grace period later, the pool is released. For "" it is found out later which network the pool is for.
func (o Owners) RequestPool(ctx context.Context, network string, r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	d := o.driver
	q, err := newPoolRequest(r)
	if err != nil {
		return nil, fmt.Errorf("request pool: %w", err)
	}
	q.rec.Network = network
	if err = d.pools.leases.complete(ctx, q); err == nil {
		err = d.pools.remote.complete(ctx, q)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q, err)
	}
	err = d.pools.breaker.Unavailable()
	var h pool.Handle
	if err == nil {
		h, err = d.creator.request(ctx, q)
		d.pools.breaker.Report(err)
	}
	if err == nil {
		err = undoIfGone(ctx, func(ctx context.Context) error { return d.pools.release(ctx, h) })
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", q, d.pools.handleNodeError(ctx, err))
	}
	d.log.Info("pool allocated", zap.String("pool", q.rec.Subnet.String()), zap.Stringer("id", h))
	answer := &ipam.RequestPoolResponse{PoolID: h.String(), Pool: q.rec.Subnet.String()}
	gw := q.gateway()
	if network == "" {
		d.pools.unbound.add(h, cmp.Or(r.AddressSpace, localSpace), q.rec.Subnet, gw.Addr())
	}
	if gw.IsValid() {
		answer.Data = map[string]string{netlabel.Gateway: gw.String()}
	}
	return answer, nil
}

// ReleasePool removes a pool with all that is left in it. It succeeds for a pool that does not exist: the engine does not retry, but may
// release what an earlier installation made.
func (d *Driver) ReleasePool(ctx context.Context, r *ipam.ReleasePoolRequest) (*Empty, error) {
	if r.PoolID == "" {
		return nil, pool.Refuse(ErrInvalid, "release pool: the request names no pool")
	}
	h, ok := pool.ParseHandle(r.PoolID)
	if !ok {
		return &Empty{}, nil
	}
	if err := d.pools.release(ctx, h); err != nil {
		return nil, fmt.Errorf("pool %.80q: release: %w", r.PoolID, d.pools.handleNodeError(ctx, err))
	}
	return &Empty{}, nil
}

// RequestAddress leases an address of a pool: the one that is requested, the gateway, or the next free one.
func (d *Driver) RequestAddress(ctx context.Context, r *ipam.RequestAddressRequest) (
	*ipam.RequestAddressResponse, error) {
	got, _, err := d.Owners().RequestAddress(ctx, r)
	if err != nil {
		return nil, err
	}
	return &ipam.RequestAddressResponse{Address: got}, nil
}

// RequestAddress is [Driver.RequestAddress]. It returns the token of the lease, too, which no other lease of the address has.
func (o Owners) RequestAddress(ctx context.Context, r *ipam.RequestAddressRequest) (address, token string, err error) {
	d := o.driver
	q, err := newAddressRequest(r)
	if err != nil {
		return "", "", fmt.Errorf("request address: %w", err)
	}
	got, err := d.alloc.request(ctx, r.PoolID, q)
	if err != nil {
		return "", "", d.pools.handleNodeError(ctx, err)
	}
	d.names.put(got, q.lease.Name)
	if entry := d.log.Check(zap.DebugLevel, "address allocated"); entry != nil {
		entry.Write(zap.String("address", got), zap.String("kind", string(q.lease.Kind)), zap.String("id", r.PoolID))
	}
	return got, q.lease.Token, nil
}

// ReleaseAddress releases a lease. It succeeds for an address that is not leased.
func (d *Driver) ReleaseAddress(ctx context.Context, r *ipam.ReleaseAddressRequest) (*Empty, error) {
	return &Empty{}, d.Owners().ReleaseAddress(ctx, r, "")
}

// ReleaseAddress is [Driver.ReleaseAddress] for the lease that has this token; "" for any.
func (o Owners) ReleaseAddress(ctx context.Context, r *ipam.ReleaseAddressRequest, token string) error {
	d := o.driver
	a, err := addr.Parse(r.Address)
	switch {
	case err != nil:
		err = pool.Invalid(err)
	case r.PoolID == "":
		err = pool.Refuse(ErrInvalid, "the request names no pool")
	}
	if err != nil {
		return fmt.Errorf("release address: %w", err)
	}
	h, ok := pool.ParseHandle(r.PoolID)
	if !ok {
		return nil
	}
	d.names.remove(a)
	d.pools.unbound.released(h, a)
	return d.pools.handleNodeError(ctx, d.pools.releaseAddress(ctx, h, a, token))
}

// undoIfGone runs undo if the client has gone: its engine never learns what was made for it and will never release it.
func undoIfGone(ctx context.Context, undo func(context.Context) error) error {
	gone := ctx.Err()
	if gone == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return errors.Join(gone, undo(ctx))
}
