package netdrv

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"slices"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/cdi"
	"github.com/mellanox/passthrough/netdrv/engineview"
	"github.com/mellanox/passthrough/netdrv/health"
	"github.com/mellanox/passthrough/netdrv/hostdev"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/metrics"
	"github.com/mellanox/passthrough/netdrv/mode"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store"
)

// Config is what a Driver is made of. Only Store, Host and Log are required.
type Config struct {
	Store store.Store
	Host  *hw.Host
	Log   *zap.Logger
	// InventedGateway reports whether the engine asked the IPAM driver to choose the gateway of a pool. If it is nil, every gateway
	// that a network has counts as given by the user.
	InventedGateway func(ctx context.Context, pool, gateway string) bool
	// Devices returns the names that the operator of this machine has given to devices; see vfpool.Finder.
	Devices func() (map[string][]string, error)
	// ContainerName returns the name of the container that has just been given an address, which has a prefix length, as the engine told
	// the IPAM driver; "" if unknown. It must not wait for anything: every endpoint of every network asks it.
	ContainerName func(address string) string
	// RequestedUnnamed reports whether the engine has just requested an address, which has a prefix length, of the IPAM driver without the
	// name of the container, as engines before 29 do. It must not wait for anything.
	RequestedUnnamed func(address string) bool
	// BindPool is called with each pool that a new network got, its gateway and its auxiliary addresses, as the engine calls them. unused is
	// true if containers do not get the gateway.
	BindPool func(ctx context.Context, network, space, pool, gateway string, aux []string, unused bool)
	// AddressesForgotten is called with the addresses, which have prefix lengths, of an endpoint that the engine has forgotten and that was
	// removed after its grace period. It must not wait for anything.
	AddressesForgotten func(network string, addresses []string)
	// Addresses has pools and addresses for owners that are no engine; nil: they get none.
	Addresses Addresses
	// RDMA is the RDMA devices of the machine; nil: they stay where they are.
	RDMA *rdma.Host
	// Namespace opens the network namespace of a container, by what the engine calls its sandbox.
	Namespace func(sandbox string) (*os.File, error)
	// OrphanAfter is how long a lent device may be seen in the host before the engine counts as having forgotten its endpoint,
	// if the engine or the plugin was restarted since; 0 means 5 minutes. The engine moves the device within seconds of Join.
	// It also bounds how long an endpoint may stay unjoined then.
	OrphanAfter time.Duration
	// CDI is where specs of networks with the option cdi are written.
	CDI cdi.Folder
}

// Driver answers the engine's network calls. Its methods may be called concurrently and, with the same arguments, again:
// each answers from the ledger what has already happened. All its state is in the ledger, but for locks and what a new process of the
// plugin finds out again.
type Driver struct {
	// Attachments serves owners of devices that are no engine.
	Attachments *Attachments

	networks   *networks
	endpoints  *endpoints
	reconciler *reconciler
	engine     *engineview.View
	counters   *metrics.Counters
	bindPool   func(ctx context.Context, network, space, pool, gateway string, aux []string, unused bool)
}

// New returns a driver. It touches nothing; Reconcile finishes what an earlier process left open.
func New(c Config) (*Driver, error) {
	if c.Store == nil || c.Host == nil || c.Log == nil {
		return nil, errors.New("network driver: needs a store, a host and a log")
	}
	if c.OrphanAfter == 0 {
		c.OrphanAfter = 5 * time.Minute
	}
	locks, counters := &keylock.Map{}, &metrics.Counters{}
	engine := engineview.New(c.Host.Boot(), rand.Text(), c.OrphanAfter)
	allocs := &alloc.Table{Store: c.Store, Boot: c.Host.Boot(), Log: c.Log, Counters: counters,
		EndsBy: func(network, endpoint string) time.Time {
			by := engine.EndsBy(network, endpoint)
			if time.Until(by) > c.OrphanAfter { // it is only slow
				by = time.Time{}
			}
			return by
		}}
	pool := &vfpool.Pool{Host: c.Host, Store: c.Store, Log: c.Log, Locks: locks, Allocations: allocs, Counters: counters}
	vlans := &hostdev.VLANs{Host: c.Host, Store: c.Store, Log: c.Log, Locks: locks, Allocations: allocs, Pool: pool, Counters: counters}
	hosts := &hostdev.HostChildren{Host: c.Host, Store: c.Store, Log: c.Log, Locks: locks, Allocations: allocs, VLANs: vlans, Counters: counters}
	if c.RDMA == nil {
		c.RDMA = rdma.New(nil, nil)
	}
	ofVFs := &mode.RDMA{Devices: c.RDMA, Namespace: c.Namespace, Log: c.Log}
	modes := mode.New(mode.Env{Host: c.Host, Log: c.Log, Finder: &vfpool.Finder{Host: c.Host, Names: c.Devices}, Pool: pool,
		Allocations: allocs, VLANs: vlans, RDMA: ofVFs})
	announcer := &announcer{host: c.Host, allocs: allocs, log: c.Log, locks: locks, counters: counters}
	leases := &leases{from: c.Addresses, log: c.Log, locks: locks, host: c.Host}
	release := &releaser{allocs: allocs, modes: modes, announcer: announcer, leases: leases}
	reconciler := &reconciler{host: c.Host, store: c.Store, log: c.Log, locks: locks, counters: counters, allocs: allocs, engine: engine,
		releaser: release, announcer: announcer, addressesForgotten: c.AddressesForgotten, vfs: vfpool.NewRecreator(pool),
		settings: health.NewSettings(c.Host, allocs, c.Log, locks, counters), lost: health.NewLostDevices(c.Host, c.Log, counters),
		wake: make(chan struct{}, 1),
		home: map[hw.ID]health.Home{}, attempts: map[hw.ID]attempt{}, reported: map[string]report{}}
	timed := &timings{}
	endpoints := &endpoints{store: c.Store, host: c.Host, log: c.Log, locks: locks, allocs: allocs, containerName: c.ContainerName,
		requestedUnnamed: c.RequestedUnnamed, reconciler: reconciler, announcer: announcer, hosts: hosts, timings: timed, leases: leases, rdma: ofVFs,
		attacher: &attacher{log: c.Log, locks: locks, allocs: allocs, modes: modes, releaser: release, timings: timed, nudge: reconciler.nudge,
			tryQuarantined: reconciler.tryQuarantined}}
	networks := &networks{store: c.Store, log: c.Log, locks: locks, counters: counters, allocs: allocs, engine: engine, modes: modes,
		pool: pool, vlans: vlans, hosts: hosts, specs: &cdi.Writer{Folder: c.CDI, Host: c.Host, RDMA: c.RDMA, Store: c.Store, Pool: pool}, endpoints: endpoints,
		inventedGateway: c.InventedGateway, nudge: reconciler.nudge}
	reconciler.removeUnneeded, reconciler.unrecorded, reconciler.bare = networks.removeUnneeded, networks.unrecorded, networks.specs.Bare
	attachments := &Attachments{locks: locks, allocs: allocs, host: c.Host, networks: networks, endpoints: endpoints, leases: leases}
	return &Driver{attachments, networks, endpoints, reconciler, engine, counters, c.BindPool}, nil
}

// Reconcile finishes what a crash, a lost call or a slow kernel has left open, until ctx ends: devices of orphans are restored, quarantined
// ones tried again, stale networks and VFs that are not needed any more removed, and missing VFs created. It is to be called once. It returns
// when the releases that go on after DeleteEndpoint have ended, too.
func (d *Driver) Reconcile(ctx context.Context) error {
	err := d.reconciler.run(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	return errors.Join(err, d.endpoints.awaitEnd(ctx))
}

// GetCapabilities answers as [Capabilities] does. An engine sends the call when it starts.
func (d *Driver) GetCapabilities(ctx context.Context, r *Empty) (*CapabilitiesResponse, error) {
	d.engine.EngineStarted()
	return Capabilities(ctx, r)
}

// Capabilities is the answer to GetCapabilities, also without a driver: networks are local to each node, while names resolve across a swarm,
// as with the engine's own macvlan driver.
func Capabilities(context.Context, *Empty) (*CapabilitiesResponse, error) {
	return &CapabilitiesResponse{Scope: plugin.LocalScope, ConnectivityScope: plugin.GlobalScope, GwAllocChecker: true}, nil
}

// GwAllocCheck checks the options, and answers that the engine need not choose a gateway unless the user wants one.
func (d *Driver) GwAllocCheck(_ context.Context, r *GwAllocCheckRequest) (*GwAllocCheckResponse, error) {
	raw, err := option.OfNetwork(r.Options)
	if err != nil {
		return nil, err
	}
	c, err := option.Parse(raw)
	if err != nil {
		return nil, err
	}
	skip := c.Gateway != option.GatewayAuto
	return &GwAllocCheckResponse{SkipIPv4: skip, SkipIPv6: skip}, nil
}

// CreateNetwork finds and checks the network's devices. The network is durable when it returns.
func (d *Driver) CreateNetwork(ctx context.Context, r *plugin.CreateNetworkRequest) (*Empty, error) {
	if err := d.networks.create(ctx, r, ledger.Network{}); err != nil {
		return nil, err
	}
	if d.bindPool == nil { // the engine does not say to the IPAM driver which network has a pool
		return &Empty{}, nil
	}
	n, _, err := readNetwork(ctx, d.networks.store, r.NetworkID)
	readable := err == nil // the network is there, whether its record can be read again or not
	for _, p := range slices.Concat(r.IPv4Data, r.IPv6Data) {
		if p != nil && p.Pool != "" {
			d.bindPool(ctx, r.NetworkID, p.AddressSpace, p.Pool, p.Gateway, auxAddresses(p), readable && isUnusedGateway(n, p.Gateway))
		}
	}
	return &Empty{}, nil
}

// DeleteNetwork removes a network; an unknown one is no error. The call is finished even if the engine gives up: it does not repeat it.
func (d *Driver) DeleteNetwork(ctx context.Context, r *plugin.DeleteNetworkRequest) (*Empty, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	return &Empty{}, d.networks.delete(ctx, r.NetworkID)
}

// AllocateNetwork is for drivers of global scope, which this is not; it returns the options as they are.
func (d *Driver) AllocateNetwork(_ context.Context, r *plugin.AllocateNetworkRequest) (*plugin.AllocateNetworkResponse, error) {
	return &plugin.AllocateNetworkResponse{Options: r.Options}, nil
}

// FreeNetwork has nothing to undo.
func (d *Driver) FreeNetwork(context.Context, *plugin.FreeNetworkRequest) (*Empty, error) {
	return &Empty{}, nil
}

// CreateEndpoint claims a device and sets it up. It answers a MAC only if the user gave none: the engine takes one that it knows already
// for a change, and fails.
func (d *Driver) CreateEndpoint(ctx context.Context, r *plugin.CreateEndpointRequest) (*plugin.CreateEndpointResponse, error) {
	e, err := d.endpoints.create(ctx, r, nil)
	if err != nil {
		return nil, err
	}
	if e.MAC == "" || r.Interface != nil && r.Interface.MacAddress != "" {
		return &plugin.CreateEndpointResponse{}, nil
	}
	return &plugin.CreateEndpointResponse{Interface: &plugin.EndpointInterface{MacAddress: string(e.MAC)}}, nil
}

// EndpointOperInfo answers nothing: the engine shows none of it.
func (d *Driver) EndpointOperInfo(context.Context, *plugin.InfoRequest) (*plugin.InfoResponse, error) {
	return &plugin.InfoResponse{Value: map[string]string{}}, nil
}

// DeleteEndpoint releases the endpoint's device, a VF after it has answered; an unknown endpoint is no error. The call is finished even if the
// engine gives up: it does not repeat it.
func (d *Driver) DeleteEndpoint(ctx context.Context, r *plugin.DeleteEndpointRequest) (*Empty, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	err := d.endpoints.deleteForEngine(ctx, r.NetworkID, r.EndpointID)
	d.engine.EndpointDeleted(r.NetworkID, r.EndpointID, err)
	if err != nil { // the engine does not repeat the call
		d.reconciler.nudge()
	}
	return &Empty{}, err
}

// Join answers the current name of the device, and the gateways; neither of one that a program drives: the engine moves nothing then.
func (d *Driver) Join(ctx context.Context, r *plugin.JoinRequest) (*JoinResponse, error) {
	j, err := d.endpoints.join(ctx, r.NetworkID, r.EndpointID, r.SandboxKey)
	if err != nil {
		return nil, err
	}
	return &JoinResponse{JoinResponse: j.routes, InterfaceName: interfaceName(j.netdev.Name, j.Endpoint)}, nil
}

// Leave changes nothing: the device is still in the container, and Join may follow for the same endpoint.
func (d *Driver) Leave(_ context.Context, r *plugin.LeaveRequest) (*Empty, error) {
	d.reconciler.lost.Leaving(r.EndpointID)
	return &Empty{}, nil
}

// DiscoverNew is called for nodes of a swarm, which do not matter here.
func (d *Driver) DiscoverNew(context.Context, *plugin.DiscoveryNotification) (*Empty, error) {
	return &Empty{}, nil
}

// DiscoverDelete is DiscoverNew's counterpart.
func (d *Driver) DiscoverDelete(context.Context, *plugin.DiscoveryNotification) (*Empty, error) {
	return &Empty{}, nil
}

// ProgramExternalConnectivity is for published ports, which a container with its own device does not need. The engine does not always call
// it (29 after a live restore), so nothing may depend on it.
func (d *Driver) ProgramExternalConnectivity(context.Context, *plugin.ProgramExternalConnectivityRequest) (*Empty, error) {
	return &Empty{}, nil
}

// RevokeExternalConnectivity is ProgramExternalConnectivity's counterpart.
func (d *Driver) RevokeExternalConnectivity(context.Context, *plugin.RevokeExternalConnectivityRequest) (*Empty, error) {
	return &Empty{}, nil
}

// CountersResponse has the counters of the driver's decisions since the process was started; package metrics lists their names.
type CountersResponse struct{ Counters map[string]int64 }

// Counters answers the counters of the driver's decisions.
func (d *Driver) Counters(context.Context, *Empty) (*CountersResponse, error) {
	return &CountersResponse{d.Decisions()}, nil
}

// Decisions returns the counters of the driver's decisions since the process was started. It waits for nothing.
func (d *Driver) Decisions() map[string]int64 { return d.counters.Snapshot() }
