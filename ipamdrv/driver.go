package ipamdrv

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// Config is what a Driver needs.
type Config struct {
	Store store.Store // shared with others: this driver's keys begin with "ipam/"
	Log   *zap.Logger // nil for none
}

// Driver is the IPAM driver. Its methods are the engine's calls; they may run concurrently.
type Driver struct {
	ledger ledger
	log    *zap.Logger

	mu    sync.Mutex // guards pools
	pools map[string]*pool
}

// New makes a driver. It does not touch the store: while that is unavailable, calls answer its error.
func New(c Config) (*Driver, error) {
	if c.Store == nil {
		return nil, errors.New("ipam driver: no store")
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	return &Driver{ledger: ledger{c.Store}, log: c.Log, pools: map[string]*pool{}}, nil
}

const (
	handlePrefix = "v1:" // before a pool's ID in the handle that the engine stores
	handleBytes  = 16
	maxName      = 128 // bytes of a container's name that are kept

	// undoTimeout bounds the taking back of what nobody can be told any more.
	undoTimeout = 5 * time.Second
)

// handleID is the pool's ID in a handle, false when it is none of ours.
func handleID(handle string) (string, bool) {
	id, ok := strings.CutPrefix(handle, handlePrefix)
	raw, err := hex.DecodeString(id)
	return id, ok && err == nil && len(raw) == handleBytes && id == strings.ToLower(id)
}

// GetCapabilities answers what the engine must add to its requests: nothing.
func (d *Driver) GetCapabilities(context.Context, *Empty) (*CapabilitiesResponse, error) {
	return &CapabilitiesResponse{}, nil
}

// GetDefaultAddressSpaces answers two fixed names.
func (d *Driver) GetDefaultAddressSpaces(context.Context, *Empty) (*ipam.AddressSpacesResponse, error) {
	return &ipam.AddressSpacesResponse{LocalDefaultAddressSpace: localSpace, GlobalDefaultAddressSpace: globalSpace}, nil
}

// RequestPool makes a pool of a subnet. Every request makes its own, whatever others there are: two tenants may use the
// same addresses on different VLANs.
func (d *Driver) RequestPool(ctx context.Context, r *ipam.RequestPoolRequest) (*ipam.RequestPoolResponse, error) {
	rec, err := newPoolRecord(r)
	if err != nil {
		return nil, fmt.Errorf("request pool: %w", err)
	}
	raw := make([]byte, handleBytes)
	rand.Read(raw) // never fails
	id := hex.EncodeToString(raw)
	if err = d.ledger.create(ctx, poolKey(id), rec); err == nil {
		err = d.answerable(ctx, func(ctx context.Context) error {
			_, err := d.dropPool(ctx, id)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("pool %s: request: %w", rec.Subnet, err)
	}
	d.log.Info("pool made", zap.String("pool", rec.Subnet.String()), zap.String("id", id))
	return &ipam.RequestPoolResponse{PoolID: handlePrefix + id, Pool: rec.Subnet.String()}, nil
}

// newPoolRecord checks a request for a pool.
func newPoolRecord(r *ipam.RequestPoolRequest) (*poolRecord, error) {
	if r.Pool == "" {
		family := "IPv4"
		if r.V6 {
			family = "IPv6"
		}
		return nil, refuse(ErrInvalid, "no %s subnet; this driver does not pick one, give the network one with --subnet",
			family)
	}
	rec := &poolRecord{V: recordVersion, Created: time.Now().UTC()}
	var err error
	if rec.Subnet, err = parsePrefix("subnet", r.Pool); err != nil {
		return nil, err
	}
	if r.SubPool != "" {
		if rec.Range, err = parsePrefix("ip-range", r.SubPool); err != nil {
			return nil, err
		}
		if err := checkInside(rec.Range, rec.Subnet); err != nil {
			return nil, err
		}
		if s := newSubnet(rec.Subnet, rec.Range); s.lo > s.hi {
			return nil, refuse(ErrInvalid, "ip-range %s: its one address is %s of %s", rec.Range,
				s.reserved(rec.Range.Addr()), rec.Subnet)
		}
	}
	return rec, applyOptions(rec, r.Options)
}

// checkInside refuses an ip-range that is not inside the subnet.
func checkInside(within, subnet netip.Prefix) error {
	if !subnet.Contains(within.Addr()) || within.Bits() < subnet.Bits() {
		return refuse(ErrInvalid, "ip-range %s: must be inside subnet %s", within, subnet)
	}
	return nil
}

// ReleasePool removes a pool with all that is left in it. Releasing one that does not exist succeeds: the engine does
// not ask twice, but may ask for what an earlier installation made.
func (d *Driver) ReleasePool(ctx context.Context, r *ipam.ReleasePoolRequest) (*Empty, error) {
	if r.PoolID == "" {
		return nil, refuse(ErrInvalid, "release pool: the request names no pool")
	}
	id, ok := handleID(r.PoolID)
	if !ok {
		return &Empty{}, nil
	}
	rec, err := d.dropPool(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return &Empty{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pool %.64q: release: %w", r.PoolID, err)
	}
	d.log.Info("pool released", zap.String("pool", rec.Subnet.String()), zap.String("id", id))
	return &Empty{}, nil
}

// dropPool removes the pool id from ledger and RAM.
func (d *Driver) dropPool(ctx context.Context, id string) (poolRecord, error) {
	p := d.entry(id)
	if err := p.lock(ctx); err != nil {
		return poolRecord{}, err
	}
	defer p.unlock()
	rec, err := p.remove(ctx)
	if err == nil || errors.Is(err, store.ErrNotFound) {
		d.forget(p)
	}
	return rec, err
}

// RequestAddress gives an address of a pool: the one that is asked for, the gateway, or the next that is free.
func (d *Driver) RequestAddress(ctx context.Context, r *ipam.RequestAddressRequest) (
	*ipam.RequestAddressResponse, error) {
	w, err := newWish(r)
	if err != nil {
		return nil, fmt.Errorf("request address: %w", err)
	}
	p, err := d.pool(ctx, r.PoolID)
	if err != nil {
		return nil, fmt.Errorf("pool %.64q: request address: %w", r.PoolID, err)
	}
	defer p.unlock()

	s := p.state
	a, given, err := w.grant(ctx, p)
	if err == nil && given {
		err = d.answerable(ctx, func(ctx context.Context) error {
			if err := p.load(ctx); err != nil {
				return err
			}
			_, err := p.release(ctx, a)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("pool %s: request %s: %w", s.prefix, w, err)
	}
	d.log.Debug("address given", zap.Stringer("address", a), zap.String("kind", string(w.lease.Kind)),
		zap.Stringer("pool", s.prefix), zap.String("id", p.id))
	return &ipam.RequestAddressResponse{Address: s.cidr(a)}, nil
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
	p, err := d.pool(ctx, r.PoolID)
	if errors.Is(err, ErrUnknownPool) {
		return &Empty{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pool %.64q: release address %s: %w", r.PoolID, a, err)
	}
	defer p.unlock()

	s := p.state
	released, err := p.release(ctx, a)
	if err != nil {
		return nil, fmt.Errorf("pool %s: release address %s: %w", s.prefix, a, err)
	}
	d.log.Debug("address released", zap.Stringer("address", a), zap.Bool("was_leased", released),
		zap.Stringer("pool", s.prefix), zap.String("id", p.id))
	return &Empty{}, nil
}

// InventedGateway says whether gateway is one that nobody asked for by address: engines before 28 want one for every
// network. pool and gateway are as this driver answered them; of several pools with that subnet and gateway the newest
// counts.
func (d *Driver) InventedGateway(ctx context.Context, pool, gateway string) bool {
	gateway, _, _ = strings.Cut(gateway, "/")
	gw, err := parseAddr(gateway)
	if err != nil {
		return false
	}
	var newest poolRecord
	err = d.ledger.store.Range(ctx, poolPrefix, func(kv store.KV) error {
		rec, err := decodePool(kv)
		if err == nil && rec.Gateway == gw && rec.Subnet.String() == pool && !rec.Created.Before(newest.Created) {
			newest = rec
		}
		return nil // a record that cannot be read is not the one of the network that is being made
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
		if rec, err := decodePool(kv); err == nil && rec.Subnet.String() == pool {
			leases = append(leases, leaseKey(strings.TrimPrefix(kv.Key, poolPrefix), a))
		}
		return nil // a record that cannot be read is not the one of a container that is being started
	})
	var youngest leaseRecord
	for _, key := range leases {
		kv, getErr := d.ledger.store.Get(ctx, key)
		if errors.Is(getErr, store.ErrNotFound) {
			continue
		}
		l, decodeErr := decodeLease(kv)
		if err = errors.Join(err, getErr); getErr == nil && decodeErr == nil && !l.Since.Before(youngest.Since) {
			youngest = l
		}
	}
	if err != nil {
		d.log.Warn("container not known by its name", zap.String("pool", pool), zap.Stringer("address", a), zap.Error(err))
	}
	return youngest.Name
}

// pool finds the pool of a handle and waits for the turn on it; the caller unlocks it. The error matches
// [ErrUnknownPool] when there is none.
func (d *Driver) pool(ctx context.Context, handle string) (*pool, error) {
	unknown := refuse(ErrUnknownPool, "no such pool; create the network again")
	id, ok := handleID(handle)
	if !ok {
		return nil, unknown
	}
	p := d.entry(id)
	if err := p.lock(ctx); err != nil {
		return nil, err
	}
	err := p.load(ctx)
	if err == nil {
		return p, nil
	}
	if errors.Is(err, store.ErrNotFound) {
		d.forget(p)
		err = unknown
	}
	p.unlock()
	return nil, err
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
