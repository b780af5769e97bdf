package netdrv

import (
	"context"
	"errors"
	"fmt"
	"maps"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/docker/libnetwork/netlabel"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/cdi"
	"github.com/mellanox/passthrough/netdrv/engineview"
	"github.com/mellanox/passthrough/netdrv/hostdev"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store"
)

// networks creates, confirms and deletes networks, and removes stale ones.
type networks struct {
	store           store.Store
	log             *zap.Logger
	locks           *keylock.Map
	counters        *metrics.Counters
	allocs          *alloc.Table
	engine          *engineview.View
	modes           *mode.Set
	pool            *vfpool.Pool
	vlans           *hostdev.VLANs
	hosts           *hostdev.HostChildren
	specs           *cdi.Writer
	endpoints       *endpoints
	inventedGateway func(ctx context.Context, pool, gateway string) bool // may be nil
	nudge           func()                                               // wakes the reconciler
}

// networksLock is the name of the lock of all networks.
const networksLock = "networks"

// readNetwork reads a network and parses its options. The error of a network that the ledger does not have tells the user what to do.
func readNetwork(ctx context.Context, s store.Store, nid string) (ledger.Network, *option.Network, error) {
	r, err := ledger.Get[ledger.Network](ctx, s, ledger.NetworkKey(nid))
	if errors.Is(err, store.ErrNotFound) {
		return r.Rec, nil, fmt.Errorf("network %s: the plugin does not know it (was the plugin removed and installed again?); "+
			"remove the network and create it again: %w", ledger.ShortID(nid), err)
	}
	if err != nil {
		return r.Rec, nil, err
	}
	o, err := option.ParseStored(r.Rec.Options)
	if err == nil && len(r.Rec.Devices) == 0 {
		err = errors.New("its record names no device; remove the network and create it again")
	}
	if err != nil {
		return r.Rec, nil, fmt.Errorf("network %s: %w", ledger.ShortID(nid), err)
	}
	return r.Rec, o, nil
}

// listNetworks reads all networks: the one with the ID nid, nil if there is none, and the others.
func listNetworks(ctx context.Context, s store.Store, nid string) (self *ledger.Rev[ledger.Network], others []ledger.Network, _ error) {
	all, err := ledger.List[ledger.Network](ctx, s, ledger.NetworkPrefix)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range all {
		if r.Rec.ID == nid {
			self = &r
		} else {
			others = append(others, r.Rec)
		}
	}
	return self, others, nil
}

// create creates a network, or confirms one that exists: swarm creates its networks again, under the same ID, after the engine was
// restarted. owned has Owner, Name and PoolIDs of a network that is not an engine's.
func (x *networks) create(ctx context.Context, r *plugin.CreateNetworkRequest, owned ledger.Network) error {
	if err := checkIDs(r.NetworkID); err != nil {
		return err
	}
	raw, err := option.OfNetwork(r.Options)
	if err != nil {
		return err
	}
	o, err := x.parse(ctx, r.NetworkID, raw)
	if err == nil {
		err = option.CheckFamilies(raw, len(r.IPv4Data) > 0, len(r.IPv6Data) > 0)
	}
	if err != nil {
		return err
	}
	unlock, err := x.locks.Lock(ctx, networksLock)
	if err != nil {
		return err
	}
	defer unlock()
	if err := x.removeStale(ctx); err != nil {
		return err
	}
	self, others, err := listNetworks(ctx, x.store, r.NetworkID)
	if err != nil {
		return err
	}
	if self != nil && maps.Equal(self.Rec.Options, raw) {
		return x.confirm(ctx, self)
	}
	cond, err := x.writable(ctx, r.NetworkID, self)
	if err != nil {
		return err
	}
	if o.Replace != "" {
		if others, err = x.replace(ctx, o.Replace, others, true); err != nil {
			return err
		}
	}
	if err := x.endpoints.awaitReleases(ctx, ""); err != nil { // a VF on its way back has no netdev for a moment
		return err
	}
	internal, _ := r.Options[netlabel.Internal].(bool)
	rec := x.engine.Confirmed(ledger.Network{Version: ledger.Version, ID: r.NetworkID, Options: raw, Internal: internal,
		Owner: owned.Owner, Name: owned.Name, PoolIDs: owned.PoolIDs})
	return x.add(ctx, cond, &draft{rec: rec, o: o}, others, r)
}

// parse parses the options of a request to create a network. A repeated request, which changes nothing, may have what an older version
// accepted.
func (x *networks) parse(ctx context.Context, nid string, raw map[string]string) (*option.Network, error) {
	o, err := option.Parse(raw)
	if err == nil {
		return o, nil
	}
	if r, getErr := ledger.Get[ledger.Network](ctx, x.store, ledger.NetworkKey(nid)); getErr == nil && maps.Equal(r.Rec.Options, raw) {
		return option.ParseStored(raw)
	}
	return nil, err
}

// A draft is a network that is not created yet.
type draft struct {
	rec  ledger.Network
	o    *option.Network
	mode mode.Mode
	plan *mode.Plan
}

// add finds the devices and the gateways of a new network, makes what it needs of the host, and writes its record.
func (x *networks) add(ctx context.Context, cond store.Cond, d *draft, others []ledger.Network, r *plugin.CreateNetworkRequest) error {
	remove := func(id string, others []ledger.Network) ([]ledger.Network, error) {
		return x.replace(ctx, id, others, false)
	}
	err := x.draw(ctx, d, others, r, remove)
	if err == nil {
		d.rec.Devices, err = d.mode.Make(ctx, d.o, d.plan)
	}
	if err == nil {
		err = x.hosts.Ensure(ctx, d.rec, d.o)
	}
	if err == nil {
		// Not written once the engine has given up: it would never delete a network that it does not know. The pool keeps the VFs of a
		// NIC that needs longer than a call may take, for when the user tries again.
		if err = ctx.Err(); err != nil {
			return fmt.Errorf("creating what the network needs takes longer than this call may; try again in some seconds: %w", err)
		}
		_, err = ledger.Commit(ctx, x.store, cond, ledger.Put(ledger.NetworkKey(d.rec.ID), d.rec))
	}
	if err == nil && d.o.CDI != "" {
		x.trySpecs(ctx, d.rec)
	}
	if err != nil { // what was created for it is not needed
		return errors.Join(err, x.removeHostDevices(context.WithoutCancel(ctx)), x.removeVFs(context.WithoutCancel(ctx), d.rec.Devices))
	}
	return nil
}

// draw completes a draft, and refuses what cannot work. It changes nothing, but for remove, which removes a network in the way.
func (x *networks) draw(ctx context.Context, d *draft, others []ledger.Network, r *plugin.CreateNetworkRequest,
	remove func(id string, others []ledger.Network) ([]ledger.Network, error)) (err error) {
	if d.rec.HostAddrs, err = hostAddrs(d.o, r); err != nil {
		return err
	}
	if err = x.findDevices(ctx, d, others, r, remove); err != nil {
		return withRemedy(err)
	}
	if err = x.setGateways(ctx, &d.rec, d.o, r); err != nil {
		return err
	}
	return option.CheckRoutes(d.o.Routes, d.rec.Pools)
}

// confirm records that the engine knows a network.
func (x *networks) confirm(ctx context.Context, n *ledger.Rev[ledger.Network]) error {
	rec := x.engine.Confirmed(n.Rec)
	if rec.Boot == n.Rec.Boot && rec.Process == n.Rec.Process {
		return nil
	}
	_, err := ledger.Commit(ctx, x.store, store.Unchanged(n.KV), ledger.Put(n.KV.Key, rec))
	return err
}

// findDevices finds the devices of a new network, and the one that the host's child is on, and checks that they go together with the other
// networks. Of these, suspect ones that are in the way are removed if they can be.
func (x *networks) findDevices(ctx context.Context, d *draft, others []ledger.Network, r *plugin.CreateNetworkRequest,
	remove func(id string, others []ledger.Network) ([]ledger.Network, error)) (err error) {
	if d.mode, err = x.modes.Of(d.o); err != nil {
		return err
	}
	for {
		err := x.checkDevices(ctx, d, others, r)
		var met *mode.ConflictError
		if !errors.As(err, &met) || !x.suspect(met.Network, others) {
			return err
		}
		rest, busy := remove(met.Network, others)
		if busy != nil {
			return err
		}
		others = rest
	}
}

// checkDevices is one attempt of findDevices.
func (x *networks) checkDevices(ctx context.Context, d *draft, others []ledger.Network, r *plugin.CreateNetworkRequest) (err error) {
	if d.plan, err = d.mode.Check(ctx, d.o, others); err != nil {
		return err
	}
	d.rec.Devices = d.plan.Devices
	if d.rec.HostDevice, err = x.hosts.Plan(ctx, d.o, d.rec.Devices); err != nil {
		return err
	}
	if err := x.specs.Check(d.rec.ID, d.o, others); err != nil {
		return err
	}
	d.rec.Pools = poolsOf(r)
	return checkHostAddrs(d.rec, others)
}

// removeHostDevices removes the devices that the plugin created in the host for networks, and that are not needed any more: the host's
// children before the VLAN devices that they are on.
func (x *networks) removeHostDevices(ctx context.Context) error {
	return errors.Join(x.hosts.RemoveUnneeded(ctx), x.vlans.RemoveUnneeded(ctx))
}

// removeVFs removes the VFs that the plugin created on a network's devices and that are not needed any more.
func (x *networks) removeVFs(ctx context.Context, devices []ledger.Device) error {
	var errs []error
	for _, dev := range devices {
		errs = append(errs, x.pool.RemoveUnused(ctx, dev.ID.PCI()))
	}
	return errors.Join(append(errs, x.pool.ForgetUnused(ctx))...)
}

// writable returns the condition under which a network's record may be written. A network with endpoints keeps its record: what they were
// created from must not change.
func (x *networks) writable(ctx context.Context, nid string, self *ledger.Rev[ledger.Network]) (store.Cond, error) {
	if self == nil {
		return store.Absent(ledger.NetworkKey(nid)), nil
	}
	endpoints, err := ledger.List[ledger.Endpoint](ctx, x.store, ledger.EndpointsOf(nid))
	if err == nil && len(endpoints) > 0 {
		err = fmt.Errorf("network %s: is there already, with other options and %d endpoints", ledger.ShortID(nid), len(endpoints))
	}
	return store.Unchanged(self.KV), err
}

// delete removes a network; an unknown one is no error.
func (x *networks) delete(ctx context.Context, nid string) error {
	if err := checkIDs(nid); err != nil {
		return err
	}
	unlock, err := x.locks.Lock(ctx, networksLock)
	if err != nil {
		return err
	}
	defer unlock()
	return x.deleteLocked(ctx, nid)
}

// deleteLocked is delete for a caller that holds the lock of all networks. Endpoints that the network still has are ones whose deletion
// never reached the plugin; their devices are released now or when they come home: there may be too many to wait for. VFs that the plugin
// created go with the last network of their PF.
func (x *networks) deleteLocked(ctx context.Context, nid string) error {
	r, err := ledger.Get[ledger.Network](ctx, x.store, ledger.NetworkKey(nid))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	left, err := ledger.List[ledger.Endpoint](ctx, x.store, ledger.EndpointsOf(nid))
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := x.endpoints.delete(ctx, e.Rec.Network, e.Rec.ID, 0); err != nil {
			return err
		}
	}
	if err := x.endpoints.awaitReleases(ctx, nid); err != nil {
		return err
	}
	if err := x.removeRecord(ctx, r); err != nil {
		return err
	}
	if option.Has(r.Rec.Options, "cdi") {
		x.trySpecs(context.WithoutCancel(ctx), r.Rec)
	}
	if err := x.removeHostDevices(context.WithoutCancel(ctx)); err != nil {
		return fmt.Errorf("network %s: it is removed, but %w", ledger.ShortID(nid), err)
	}
	if err := x.removeVFs(context.WithoutCancel(ctx), r.Rec.Devices); err != nil {
		return fmt.Errorf("network %s: it is removed, but vfs that the plugin created stay until they can be removed: %w", ledger.ShortID(nid), err)
	}
	return nil
}
