package netdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/docker/libnetwork/netlabel"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/hostdev"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
)

// endpoints creates, joins and deletes endpoints.
type endpoints struct {
	store         store.Store
	host          *hw.Host
	log           *zap.Logger
	locks         *keylock.Map
	allocs        *alloc.Table
	attacher      *attacher
	timings       *timings
	reconciler    *reconciler
	announcer     *announcer
	hosts         *hostdev.HostChildren
	leases        *leases
	rdma          *mode.RDMA
	containerName func(address string) string // may be nil
	// requestedUnnamed may be nil; see Config.
	requestedUnnamed func(address string) bool
}

// create attaches a device to a new endpoint. For an endpoint that exists it answers from the ledger. owner is nil for an engine.
func (x *endpoints) create(ctx context.Context, r *plugin.CreateEndpointRequest, owner *owner) (ledger.Endpoint, error) {
	e := ledger.Endpoint{Version: ledger.Version, Network: r.NetworkID, ID: r.EndpointID, Owner: owner.record()}
	if err := checkIDs(e.Network, e.ID); err != nil {
		return e, err
	}
	unlock, err := x.locks.Lock(ctx, e.Key())
	if err != nil {
		return e, err
	}
	defer unlock()
	have, err := ledger.Get[ledger.Endpoint](ctx, x.store, e.Key())
	if err == nil {
		return x.existing(ctx, have.Rec)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return e, err
	}
	req, err := x.request(ctx, r)
	if err != nil {
		return e, err
	}
	if owner != nil {
		req.Container, e.Leases = owner.container, owner.leases
	}
	if err := x.describe(&e, req, r); err != nil {
		return e, err
	}
	if err := x.awaitDrivers(ctx, req.Network); err != nil {
		return e, err
	}
	for _, text := range option.Unserved(r.Options) {
		x.log.Warn("not served: "+text, zap.String("network", ledger.ShortID(e.Network)), zap.String("endpoint", ledger.ShortID(e.ID)))
	}
	return x.attacher.attach(ctx, req, e)
}

// describe writes into the record of an endpoint what Join is to answer.
func (x *endpoints) describe(e *ledger.Endpoint, req *mode.Request, r *plugin.CreateEndpointRequest) error {
	if i := r.Interface; i != nil {
		e.IPv4, e.IPv6 = i.Address != "", i.AddressIPv6 != ""
		e.Subnets = subnetsOf(req.Network.Pools, i.Address, i.AddressIPv6)
		e.Addrs = addressesOf(i)
	}
	e.Prefix, e.Ifname, e.Container = req.Options.Prefix, req.Options.Ifname, req.Container
	if err := x.checkIfname(e.Ifname, r.Interface); err != nil {
		return err
	}
	return setRoutes(req, option.Has(r.Options, "routes"), e)
}

// existing answers a repeated request from the record, if the endpoint has a device that is ready.
func (x *endpoints) existing(ctx context.Context, e ledger.Endpoint) (ledger.Endpoint, error) {
	a, err := x.allocs.Get(ctx, e.Device)
	if err == nil && a.State != alloc.Ready && a.State != alloc.Lent {
		err = fmt.Errorf("endpoint %s: its device is being put back after a crash; try again", ledger.ShortID(e.ID))
	}
	return e, err
}

// request returns what an endpoint wants: its network, with the options of its container, and what is known about the container.
func (x *endpoints) request(ctx context.Context, r *plugin.CreateEndpointRequest) (*mode.Request, error) {
	n, o, err := readNetwork(ctx, x.store, r.NetworkID)
	if err != nil {
		return nil, err
	}
	if o.Container, err = containerOptions(o, r); err != nil {
		return nil, err
	}
	return &mode.Request{Network: n, Options: o, Endpoint: r.EndpointID, Container: x.nameOf(r.Interface),
		Address: cmp.Or(addressesOf(r.Interface)...), Addresses: addressesOf(r.Interface)}, nil
}

// containerOptions returns the network's values, overridden by what the user gave for this container: --mac-address and driver-opt.
func containerOptions(o *option.Network, r *plugin.CreateEndpointRequest) (option.Container, error) {
	own, err := option.OfContainer(r.Options)
	if err != nil {
		return option.Container{}, err
	}
	c, err := o.ForContainer(own)
	if err != nil || r.Interface == nil || r.Interface.MacAddress == "" {
		return c, err
	}
	if _, given := r.Options[netlabel.MacAddress]; given { // otherwise the engine has generated it, see Capabilities of ipamdrv
		if err := o.CheckLock("mac"); err != nil {
			return c, fmt.Errorf("--mac-address %s: %w", r.Interface.MacAddress, err)
		}
	}
	mac, err := option.ParseMAC(r.Interface.MacAddress)
	if err == nil && c.MAC != "" && c.MAC != mac {
		err = fmt.Errorf("option mac: %s is not the --mac-address %s", c.MAC, mac)
	}
	c.MAC = mac
	return c, err
}

// addressesOf returns the addresses of an endpoint, with prefix lengths.
func addressesOf(i *plugin.EndpointInterface) []string {
	if i == nil {
		return nil
	}
	return slices.DeleteFunc([]string{i.Address, i.AddressIPv6}, func(a string) bool { return a == "" })
}

// task matches the name of a swarm task: service, slot or node, and an ID that is new with every task (swarmkit, api/naming).
var task = regexp.MustCompile(`^(.+\.[^.]+)\.[a-z0-9]{25}$`)

// nameOf returns the name of the container that an endpoint is created for, without what changes when a swarm replaces a task; "" if it
// is not known. Engines from 29 on tell it, and only to the IPAM driver.
func (x *endpoints) nameOf(i *plugin.EndpointInterface) string {
	if x.containerName == nil {
		return ""
	}
	for _, address := range addressesOf(i) {
		if name := x.containerName(address); name != "" {
			return task.ReplaceAllString(name, "$1")
		}
	}
	return ""
}

// prepareReserve is what awaitDrivers leaves of a call's time for setting a device up.
const prepareReserve = 4 * time.Second

// awaitDrivers waits, on a machine that was booted a short time ago, until the drivers of a network's devices have created their
// netdevs: the engine starts its containers once, early, and does not try those again that fail. When there is only just enough time
// left to set a device up, the call goes on, and fails if it needs a device that is still missing.
func (x *endpoints) awaitDrivers(ctx context.Context, n ledger.Network) error {
	if !x.host.RecentlyBooted() {
		return nil
	}
	held, err := x.allocs.List(ctx)
	if err != nil {
		return err
	}
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, end.Add(-prepareReserve))
		defer cancel()
	}
	for _, dev := range n.Devices {
		if a := held[dev.ID]; !dev.ID.IsPCI() || a != nil && !a.FromEarlierBoot() { // it may be in a container
			continue
		}
		if err := x.host.WaitNetdev(ctx, dev.ID); errors.Is(err, hw.ErrAway) {
			x.log.Warn("device has no driver yet", zap.String("device", string(dev.ID)), zap.String("network", ledger.ShortID(n.ID)))
		}
	}
	return nil
}

// A joined endpoint is one whose device may be moved into its container.
type joined struct {
	ledger.Endpoint
	alloc  *alloc.Allocation
	netdev hw.Netdev
	routes plugin.JoinResponse // gateways and routes of the container
}

// join answers where the engine finds the endpoint's device. sandbox is what the engine calls the container's network namespace, "" for an owner
// that is no engine.
func (x *endpoints) join(ctx context.Context, nid, eid, sandbox string) (*joined, error) {
	start := time.Now()
	if err := checkIDs(nid, eid); err != nil {
		return nil, err
	}
	unlock, err := x.locks.Lock(ctx, ledger.EndpointKey(nid, eid))
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, o, err := readNetwork(ctx, x.store, nid)
	if err != nil {
		return nil, err
	}
	e, err := ledger.Get[ledger.Endpoint](ctx, x.store, ledger.EndpointKey(nid, eid))
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", ledger.ShortID(eid), err)
	}
	unlockDevice, err := x.locks.Lock(ctx, alloc.Key(e.Rec.Device)) // the reconciler may take the endpoint for an orphan
	if err != nil {
		return nil, err
	}
	defer unlockDevice()
	a, err := x.allocs.Get(ctx, e.Rec.Device)
	if err == nil && (a.Endpoint != eid || a.Ending()) {
		err = errors.New("is being put back, because it was not joined in time; start the container again")
	}
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: device %s: %w", ledger.ShortID(eid), e.Rec.Device, err)
	}
	dev, err := x.lend(ctx, a, sandbox)
	if err != nil {
		return nil, err
	}
	if err := x.announcer.announce(ctx, a); err != nil {
		return nil, err
	}
	if err := x.reachable(ctx, n, o, e.Rec); err != nil {
		return nil, err
	}
	x.logAttached(a, e.Rec, cmp.Or(dev.MAC, e.Rec.MAC), start)
	j := &joined{Endpoint: e.Rec, alloc: a, netdev: dev}
	if a.UserDriver != "" { // the engine has nothing to set them on
		j.routes.DisableGatewayService = true
		return j, nil
	}
	gateways(n, o, e.Rec, &j.routes)
	routes(e.Rec, &j.routes)
	return j, nil
}

// lend writes that a device may be in a container from now on, moves its RDMA device there, and returns it: one without a netdev if a program
// drives it. The caller holds the device's lock.
func (x *endpoints) lend(ctx context.Context, a *alloc.Allocation, sandbox string) (hw.Netdev, error) {
	x.reconciler.lost.Lent(a.Device)
	if a.UserDriver != "" {
		err := x.host.CheckBound(a.Device, a.UserDriver)
		if err == nil {
			err = x.markLent(ctx, a, false)
		}
		return hw.Netdev{}, err
	}
	notMoved := func(err error) error { return fmt.Errorf("%s: cannot be moved into the container: %w", a.Label, err) }
	found, err := x.host.Find(a.Device)
	if err != nil {
		return hw.Netdev{}, notMoved(err)
	}
	had := a.CarrierUps
	if ups, known := x.host.CarrierUps(found); known && !found.Up && a.Device.IsPCI() { // others end with their container
		a.CarrierUps = &ups
	}
	moves, err := x.rdma.Choose(a)
	if err != nil {
		return hw.Netdev{}, err
	}
	if err := x.markLent(ctx, a, moves || had != nil && *had != *a.CarrierUps); err != nil {
		return hw.Netdev{}, err
	}
	if err := x.rdma.Move(a, sandbox); err != nil { // before the netdev: that of an InfiniBand device would be made anew
		return hw.Netdev{}, err
	}
	dev, err := x.host.HandOver(found, a.Snapshot)
	if err != nil {
		return dev, notMoved(err)
	}
	return dev, nil
}

// markLent writes that a device is lent, if that is not written already, or something else of it has changed.
func (x *endpoints) markLent(ctx context.Context, a *alloc.Allocation, changed bool) error {
	if a.State == alloc.Ready && a.Owner == nil {
		x.reconciler.engine.EndpointJoined(a.Since)
	}
	if a.State == alloc.Lent && !changed {
		return nil
	}
	return x.allocs.Advance(ctx, a, alloc.Lent)
}

// reachable gives the host its child of a network with host access, if it is missing, and the routes to a container.
func (x *endpoints) reachable(ctx context.Context, n ledger.Network, o *option.Network, e ledger.Endpoint) error {
	if !o.HostAccess {
		return nil
	}
	err := x.hosts.Ensure(ctx, n, o)
	if err == nil {
		err = x.hosts.AddRoutes(ctx, e)
	}
	if err != nil {
		return fmt.Errorf("network %s: %w", ledger.ShortID(n.ID), err)
	}
	return nil
}

// delete removes an endpoint and releases its device, waiting at most timeout for the device to come home. What cannot be done now is left to
// the reconciler.
func (x *endpoints) delete(ctx context.Context, nid, eid string, timeout time.Duration) error {
	a, unlock, err := x.free(ctx, nid, eid)
	if a == nil {
		return err
	}
	defer unlock()
	x.reconciler.awaitReturn(ctx, a, timeout)
	return nil
}

// deleteForEngine is delete for an engine, which ignores errors of this call and never repeats it. It returns before a VF is released: that takes
// the VF's driver up to a second, and who wants the VF, its MAC or the network's end waits for it, see [attacher.claim] and awaitReleases. A device
// of the host is back when it returns, for what the user does next.
func (x *endpoints) deleteForEngine(ctx context.Context, nid, eid string) error {
	a, unlock, err := x.free(ctx, nid, eid)
	if a == nil {
		return err
	}
	if a.PF != "" && !a.HasParts() {
		if ended, err := x.locks.RLock(ctx, ongoingReleases); err == nil {
			go func() { defer ended(); x.releaseLater(ctx, a, unlock) }()
			return nil
		}
	}
	defer unlock()
	x.reconciler.awaitReturn(ctx, a, returnTimeout)
	return nil
}

// ongoingReleases is the key of a lock that each goroutine of releaseLater shares, so that the end of the process waits for them even if the ledger
// cannot be read.
const ongoingReleases = "ongoing releases"

// releaseLater releases a device in a goroutine of its own. A panic there must not end the process; what is left is the reconciler's.
func (x *endpoints) releaseLater(ctx context.Context, a *alloc.Allocation, unlock func()) {
	defer func() {
		if v := recover(); v != nil {
			x.log.Error("release of the device ended; it is tried again", append(a.Fields(), zap.Any("panic", v), zap.Stack("stack"))...)
			x.reconciler.nudge()
		}
	}()
	defer unlock()
	x.reconciler.awaitReturn(ctx, a, returnTimeout)
}

// awaitEnd waits until no goroutine of releaseLater is left.
func (x *endpoints) awaitEnd(ctx context.Context) error {
	unlock, err := x.locks.Lock(ctx, ongoingReleases)
	if err != nil {
		return fmt.Errorf("releases go on: %w", err)
	}
	unlock()
	return nil
}

// free removes an endpoint and marks its allocation, which it returns, as freeing; unlock ends the lock of its device. The allocation is nil if
// there is nothing to release, or it is not this call that is to do it.
func (x *endpoints) free(ctx context.Context, nid, eid string) (a *alloc.Allocation, unlock func(), _ error) {
	if err := checkIDs(nid, eid); err != nil {
		return nil, nil, err
	}
	unlockEndpoint, err := x.locks.Lock(ctx, ledger.EndpointKey(nid, eid))
	if err != nil {
		return nil, nil, err
	}
	defer unlockEndpoint()
	e, err := ledger.Get[ledger.Endpoint](ctx, x.store, ledger.EndpointKey(nid, eid))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	if unlock, err = x.locks.Lock(ctx, alloc.Key(e.Rec.Device)); err != nil {
		return nil, nil, err
	}
	if a, err = x.freeDevice(ctx, e); a == nil || err != nil {
		unlock()
		return nil, nil, err
	}
	if err := x.hosts.RemoveRoutes(ctx, e.Rec); err != nil {
		x.log.Warn("host's route not removed yet", append(a.Fields(), zap.NamedError("err", err))...)
		x.reconciler.nudge()
	}
	return a, unlock, nil
}

// freeDevice removes an endpoint and marks the allocation of its device, which it returns, as freeing; nil if the device is not the endpoint's any
// more. The caller holds both their locks.
func (x *endpoints) freeDevice(ctx context.Context, e ledger.Rev[ledger.Endpoint]) (*alloc.Allocation, error) {
	a, err := x.allocs.Get(ctx, e.Rec.Device)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && a.Endpoint != e.Rec.ID:
		_, err = ledger.Transact(ctx, x.store, nil, ledger.Del(e.KV.Key))
		return nil, err
	case err != nil || a.Ending(): // or the reconciler was faster
		return nil, err
	}
	return a, x.allocs.Advance(ctx, a, alloc.Freeing, ledger.Del(e.KV.Key))
}

// awaitReleases waits until the devices are released whose endpoints were deleted before, of one network or, with "", of all. It does not wait for
// those that have been left to the reconciler.
func (x *endpoints) awaitReleases(ctx context.Context, nid string) error {
	held, err := x.allocs.List(ctx)
	if err != nil {
		return err
	}
	for _, a := range held {
		if a.State != alloc.Freeing || nid != "" && a.Network != nid {
			continue
		}
		if err := awaitRelease(ctx, x.locks, a.Device); err != nil {
			return fmt.Errorf("%s: %w", a.Holder(), err)
		}
	}
	return nil
}

// awaitRelease waits for the end of the release of a device, which has its lock.
func awaitRelease(ctx context.Context, locks *keylock.Map, id hw.ID) error {
	unlock, err := locks.Lock(ctx, alloc.Key(id))
	if err == nil {
		unlock()
	}
	return err
}
