package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/libnetwork/netlabel"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/cluster"
)

// Config is what a Driver needs.
type Config struct {
	Store store.Store // shared with others: this driver's keys begin with "ipam/"
	Log   *zap.Logger // nil for none
	// Own is this node's own ledger, when Store is one that drivers on other nodes use, too; nil when nobody does. Its keys
	// begin with "node/" and "cluster/". Journal goes with it, and NodeName is what people call this node.
	Own      store.Store
	Journal  Journal
	NodeName string
	Capabilities

	Defaults []DefaultPool // where the subnets of networks without one come from
	// Host lists the subnets that the host is on or has routes to, which default pools must not overlap; nil for none.
	Host func() ([]netip.Prefix, error)
	// Probe asks who has an address, for pools that want that; nil: they are refused.
	Probe Prober
	// Uses lists what the network driver on this node knows of its networks; nil for nothing. See [Use].
	Uses func(context.Context) ([]Use, error)
	// MaintainEvery is how often Maintain does what is left to do. 0 means 5 seconds.
	MaintainEvery time.Duration
}

// Capabilities are the answers that need no store.
type Capabilities struct {
	// RequireMAC has the engine tell the MAC of each device. It makes one up for every device whose user named none, and
	// forces it on it.
	RequireMAC bool
}

// Driver is the IPAM driver. Its methods are the engine's calls; they may run concurrently.
type Driver struct {
	Capabilities
	ledger   ledger
	log      *zap.Logger
	defaults []DefaultPool
	host     func() ([]netip.Prefix, error)
	probe    Prober
	uses     func(context.Context) ([]Use, error)
	node     *node // nil when nobody shares the ledger
	every    time.Duration
	sweep    *sweep

	entering turn // of requests for pools

	mu    sync.Mutex // guards pools
	pools map[string]*pool
}

// New makes a driver. It does not touch the store: while that is unavailable, calls answer its error.
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
	n := newNode(c)
	return &Driver{Capabilities: c.Capabilities, ledger: ledger{store: c.Store, node: n, far: n != nil}, log: c.Log, defaults: c.Defaults,
		host: c.Host, probe: c.Probe, uses: c.Uses, node: n, every: c.MaintainEvery, sweep: newSweep(),
		entering: newTurn(), pools: map[string]*pool{}}, nil
}

const (
	maxName = 128 // bytes of a container's name that are kept
	maxMAC  = 59  // bytes of a MAC that are kept: an InfiniBand one has 20 octets

	// undoTimeout bounds the taking back of what nobody can be told any more.
	undoTimeout = 5 * time.Second
)

// GetCapabilities answers what the engine must add to its requests.
func (c Capabilities) GetCapabilities(context.Context, *Empty) (*CapabilitiesResponse, error) {
	return &CapabilitiesResponse{RequiresMACAddress: c.RequireMAC}, nil
}

// GetCapabilities is asked by an engine that was started, and by each when this process was: all leases are in doubt then.
func (d *Driver) GetCapabilities(ctx context.Context, r *Empty) (*CapabilitiesResponse, error) {
	d.sweep.doubt()
	return d.Capabilities.GetCapabilities(ctx, r)
}

// GetDefaultAddressSpaces answers two fixed names.
func (c Capabilities) GetDefaultAddressSpaces(context.Context, *Empty) (*ipam.AddressSpacesResponse, error) {
	return &ipam.AddressSpacesResponse{LocalDefaultAddressSpace: localSpace, GlobalDefaultAddressSpace: globalSpace}, nil
}

// RequestPool makes a pool of a subnet, or joins one that has a name. Every request that names none makes its own, whatever
// others there are: two tenants may use the same addresses on different VLANs.
func (d *Driver) RequestPool(ctx context.Context, r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	n, err := newPoolWish(r)
	if err != nil {
		return nil, fmt.Errorf("request pool: %w", err)
	}
	h, err := d.enterInTurn(ctx, n)
	if err == nil {
		err = d.answerable(ctx, func(ctx context.Context) error { return d.releasePool(ctx, h) })
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n, d.forgotten(ctx, err))
	}
	d.log.Info("pool given", zap.String("pool", n.rec.Subnet.String()), zap.Stringer("id", h))
	answer := &ipam.RequestPoolResponse{PoolID: h.String(), Pool: n.rec.Subnet.String()}
	if gw := n.gateway(); gw.IsValid() {
		answer.Data = map[string]string{netlabel.Gateway: gw.String()}
	}
	return answer, nil
}

// ReleasePool removes a pool with all that is left in it. Releasing one that does not exist succeeds: the engine does
// not ask twice, but may ask for what an earlier installation made.
func (d *Driver) ReleasePool(ctx context.Context, r *ipam.ReleasePoolRequest) (*Empty, error) {
	if r.PoolID == "" {
		return nil, refuse(ErrInvalid, "release pool: the request names no pool")
	}
	h, ok := parseHandle(r.PoolID)
	if !ok {
		return &Empty{}, nil
	}
	if err := d.releasePool(ctx, h); err != nil {
		return nil, fmt.Errorf("pool %.80q: release: %w", r.PoolID, d.forgotten(ctx, err))
	}
	return &Empty{}, nil
}

// RequestAddress gives an address of a pool: the one that is asked for, the gateway, or the next that is free.
func (d *Driver) RequestAddress(ctx context.Context, r *ipam.RequestAddressRequest) (
	*ipam.RequestAddressResponse, error) {
	w, err := newWish(r)
	if err != nil {
		return nil, fmt.Errorf("request address: %w", err)
	}
	got, err := d.requestAddress(ctx, r.PoolID, w)
	if err != nil {
		return nil, d.forgotten(ctx, err)
	}
	d.log.Debug("address given", zap.String("address", got), zap.String("kind", string(w.lease.Kind)),
		zap.String("id", r.PoolID))
	return &ipam.RequestAddressResponse{Address: got}, nil
}

// ReleaseAddress ends a lease. Releasing what nobody has succeeds.
func (d *Driver) ReleaseAddress(ctx context.Context, r *ipam.ReleaseAddressRequest) (*Empty, error) {
	a, err := parseAddr(r.Address)
	if err == nil && r.PoolID == "" {
		err = refuse(ErrInvalid, "the request names no pool")
	}
	if err != nil {
		return nil, fmt.Errorf("release address: %w", err)
	}
	h, ok := parseHandle(r.PoolID)
	if !ok {
		return &Empty{}, nil
	}
	if err := d.releaseAddress(ctx, h, a); err != nil {
		return nil, d.forgotten(ctx, err)
	}
	return &Empty{}, nil
}

// pool finds the pool of a handle and waits for the turn on it; the caller unlocks it. The error matches
// [ErrUnknownPool] when there is none.
func (d *Driver) pool(ctx context.Context, text string) (handle, *pool, error) {
	unknown := refuse(ErrUnknownPool, "no such pool; create the network again")
	h, ok := parseHandle(text)
	if !ok {
		return h, nil, unknown
	}
	p := d.entry(h.id)
	if err := p.lock(ctx); err != nil {
		return h, nil, err
	}
	found := false
	defer func() {
		if !found {
			p.unlock()
		}
	}()
	err := d.find(ctx, p, h)
	switch {
	case err == nil && p.knows(h):
		found = true
		return h, p, nil
	case err == nil:
		err = unknown
	case errors.Is(err, store.ErrNotFound):
		d.forget(p)
		err = unknown
	}
	return h, nil, err
}

// find brings what is in RAM of a pool up to the ledger, so far as that is needed to tell whether h is a handle of it. The caller
// has the turn.
func (d *Driver) find(ctx context.Context, p *pool, h handle) error {
	err := d.pay(ctx, p)
	if err == nil {
		err = p.load(ctx)
	}
	if err == nil && !p.knows(h) { // perhaps somebody else's news
		p.state = nil
		err = p.load(ctx)
	}
	if err == nil && p.knows(h) {
		err = d.adopt(ctx, p, h)
	}
	return err
}

// forgotten passes an error on. When it says that this node was declared lost, the node begins anew: its networks have no
// pools any more. When it says that the ledger went back, that is written down at once: it does not show for long.
func (d *Driver) forgotten(ctx context.Context, err error) error {
	if errors.Is(err, store.ErrRolledBack) {
		err = errors.Join(err, d.remember(context.WithoutCancel(ctx)))
	}
	if d.node == nil || !errors.Is(err, cluster.ErrRemoved) {
		return err
	}
	d.log.Error("this node was declared lost (driver forget); the addresses of its containers may be in use elsewhere: stop "+
		"them, remove the networks that have this IPAM driver, and create them again", zap.Error(err))
	d.mu.Lock()
	d.pools = map[string]*pool{}
	d.mu.Unlock()
	return errors.Join(fmt.Errorf("%w; its networks have to be created again", err), d.node.restart(ctx))
}

// entry is the pool id in RAM, loaded or not.
func (d *Driver) entry(id string) *pool {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pools[id]
	if p == nil {
		p = newPool(id, d.ledger)
		d.pools[id] = p
	}
	return p
}

// forget removes a pool that does not exist from RAM. Somebody may still wait for p and somebody else make a new entry
// meanwhile; both only find out that the pool does not exist, because IDs do not come back.
func (d *Driver) forget(p *pool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pools[p.id] == p {
		delete(d.pools, p.id)
	}
}

// answerable checks that the caller is still there to hear the answer. When it has gone, its engine never learns what
// was made for it and will never release it: undo takes it back.
func (d *Driver) answerable(ctx context.Context, undo func(context.Context) error) error {
	gone := ctx.Err()
	if gone == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	return errors.Join(gone, undo(ctx))
}
