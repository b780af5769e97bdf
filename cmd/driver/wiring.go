package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/cmd/driver/monitor"
	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/ipamdrv/dhcp"
	"github.com/mellanox/passthrough/ipamdrv/remote"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/netdrv/cdi"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/journal"
)

// ledgerFile is this node's own ledger, in the state directory.
const ledgerFile = "ledger.db"

// drivers are the two drivers, with what they stand on.
type drivers struct {
	network *netdrv.Driver
	ipam    *ipamdrv.Driver
	err     error // not nil if the drivers could not be made; then both are nil

	capabilities ipamdrv.Capabilities
	logLevel     zap.AtomicLevel
	events       *events
	settings     map[string]string // without passwords
	monitor      *monitor.Monitor  // nil without METRICS
	backups      *backups

	openShared func() (store.Store, error) // opens the store that nodes share once more, for operators

	stop   context.CancelFunc
	closed chan struct{} // closed when the stores are
}

// open makes the drivers and starts their background loops. It does not wait for the stores, which open in the background: a slow disk
// must not keep the socket from answering. If the drivers cannot be made, the plugin still answers, and says why to every call: an engine
// disables a plugin that does not answer, and its user would not learn the reason.
func open(cfg config, machine hw.Config, log *zap.Logger) *drivers {
	ctx, stop := context.WithCancel(context.Background())
	d := &drivers{capabilities: cfg.capabilities(), events: newEvents(), stop: stop, closed: make(chan struct{})}
	d.openShared = func() (store.Store, error) {
		if !cfg.shared() {
			return nil, errors.New("STORE is not etcd://...: pools and addresses are in this node's own ledger, and there are no other nodes")
		}
		return openShared(cfg)
	}
	points := newCrashPoints()
	d.monitor = cfg.newMonitor()
	ledger := points.Store(openLedger(cfg, d.monitor, log))
	d.backups = &backups{dir: cfg.stateDir, own: ledger, machine: cluster.ThisMachine("/"), restart: func() {}}
	pools := openPools(ctx, cfg, ledger, d.monitor, points)
	d.network, d.ipam, d.err = newDrivers(cfg, machine, ledger, pools, points, log)
	d.connectMonitor(cfg)
	if d.err != nil {
		log.Error("drivers not opened; every call will say so", zap.NamedError("err", d.err))
	}
	go func() {
		defer close(d.closed)
		defer closeStore(ledger, log)
		defer closeStore(pools, log) // closing the same store twice is fine
		if d.err == nil {
			var loops sync.WaitGroup
			loops.Go(func() { keepRunning(ctx, "reconciler", d.network.Reconcile, log) })
			loops.Go(func() { keepRunning(ctx, "upkeep of addresses", d.ipam.Maintain, log) })
			loops.Go(func() { keepRunning(ctx, "renewal of DHCP leases", d.ipam.RenewLeases, log) })
			loops.Wait()
			d.ipam.Close()
		}
		<-ctx.Done()
	}()
	return d
}

// openOrRefuse opens the drivers if all settings are good.
func openOrRefuse(cfg config, refused error, log *zap.Logger) *drivers {
	if refused == nil {
		return open(cfg, hw.Config{}, log)
	}
	d := refusing(refused)
	d.monitor = cfg.newMonitor()
	d.connectMonitor(cfg)
	log.Error("drivers not opened; every call will say so", zap.NamedError("err", d.err))
	return d
}

// refusing returns drivers that cannot be made because of settings with bad values.
func refusing(settings error) *drivers {
	d := &drivers{events: newEvents(), stop: func() {}, closed: make(chan struct{}), backups: &backups{},
		err: fmt.Errorf("the plugin has a setting that it cannot use: %s; correct it with docker plugin disable -f, set and enable",
			strings.ReplaceAll(settings.Error(), "\n", "; "))}
	close(d.closed)
	return d
}

// capabilities returns the answers of the IPAM driver that depend on settings.
func (c config) capabilities() ipamdrv.Capabilities {
	return ipamdrv.Capabilities{RequireMAC: c.requireMAC}
}

// close ends the loops and closes the stores. It waits for them atMost; a store that is still in use then survives the end of the process
// as it survives a crash.
func (d *drivers) close(atMost time.Duration) {
	d.stop()
	bound := time.NewTimer(atMost)
	defer bound.Stop()
	select {
	case <-d.closed:
	case <-bound.C:
	}
}

// openLedger opens the ledger in the state directory in the background.
func openLedger(cfg config, m *monitor.Monitor, log *zap.Logger) store.Store {
	// A call that waits for the lock should still get the reason within its own deadline.
	lock := boltstore.LockTimeout(cfg.handlerTimeout / 2)
	open := func() (store.Store, error) { return boltstore.Open(filepath.Join(cfg.stateDir, ledgerFile), lock) }
	ledger := store.Reopen(open, func(err error) {
		if err == nil {
			log.Info("ledger opened after all")
			return
		}
		log.Error("ledger not opened; every call that needs it will say so", zap.NamedError("err", err))
	})
	ledger.Timed(m.Store("ledger"))
	return ledger
}

// openPools returns the store of pools and addresses: this node's own ledger, or the store that all nodes of a cluster share. Networks,
// endpoints and devices are always in the node's own ledger.
func openPools(ctx context.Context, cfg config, own store.Store, m *monitor.Monitor, points crashPoints) store.Store {
	etcd, err := parseStore(cfg.store, cfg.stateDir)
	if err != nil || etcd == nil {
		return own // configFrom has checked that there is no error
	}
	open := func() (store.Store, error) {
		shared, err := etcdstore.Open(*etcd)
		if err != nil {
			return nil, err
		}
		if err := cluster.LoadWatermark(ctx, own, shared); err != nil { // the own ledger cannot be read
			return nil, errors.Join(err, shared.Close())
		}
		return points.Store(shared), nil
	}
	shared := store.Reopen(open, func(error) {}) // openLedger logs the reason
	shared.Timed(m.Store("shared"))
	return shared
}

// closeStore closes a store, and logs an error.
func closeStore(s store.Store, log *zap.Logger) {
	if err := s.Close(); err != nil {
		log.Error("ledger not closed", zap.NamedError("err", err))
	}
}

// newDrivers opens the hardware and connects the two drivers: the IPAM driver knows which gateway was invented and the name of a container,
// which the network driver needs; the network driver knows which addresses endpoints have.
func newDrivers(cfg config, machine hw.Config, ledger, pools store.Store, points crashPoints, log *zap.Logger) (
	network *netdrv.Driver, ipam *ipamdrv.Driver, err error,
) {
	ours := machine.Kernel == nil
	machine, err = openMachine(machine, points)
	if err != nil {
		return nil, nil, fmt.Errorf("hardware: open: %w", err)
	}
	host, err := hw.Open(machine)
	if err != nil {
		return nil, nil, fmt.Errorf("hardware: open: %w", err)
	}
	var devices *rdma.Host
	if ours {
		devices = rdma.New(machine.Sys, points.RDMA(rtnl.RDMA{}))
	}
	defaults, err := ipamdrv.ParseDefaultPools(cfg.defaultPools)
	if err != nil {
		return nil, nil, err
	}
	ipam, err = ipamdrv.New(ipamdrv.Config{Store: pools, Own: ownBeside(cfg, ledger), NodeName: hostName(), Machine: cluster.ThisMachine("/"), Log: log,
		Journal:      points.Journal(journal.New(filepath.Join(cfg.stateDir, cfg.journalFile()))),
		Capabilities: cfg.capabilities(), Defaults: defaults, Host: host.HostSubnets, MaintainEvery: points.MaintainEvery(),
		Uses: func(ctx context.Context) ([]ipamdrv.Use, error) { return usesOf(ctx, network) }, // called when both exist
		Probe: func(ctx context.Context, device string, a netip.Addr) (string, error) {
			mac, err := host.ProbeAddress(ctx, device, a)
			return string(mac), err
		}, DHCP: dhcp.New(), Remote: cfg.remoteIPAM()})
	if err != nil {
		return nil, nil, err
	}
	network, err = netdrv.New(netdrv.Config{
		Store: ledger, Host: host, Log: log, Devices: cfg.devices,
		InventedGateway: ipam.InventedGateway, ContainerName: ipam.ContainerName, RequestedUnnamed: ipam.RequestedUnnamed, BindPool: ipam.BindPool,
		AddressesForgotten: ipam.AddressesForgotten, Addresses: ownersAddresses{ipam}, OrphanAfter: points.OrphanAfter(),
		CDI:  cdi.Folder{Dir: cfg.cdiDir, Sys: machine.Sys, Change: points.Change},
		RDMA: devices, Namespace: openSandbox,
	})
	if err != nil {
		return nil, nil, err
	}
	return network, ipam, nil
}

// journalFile returns the name of the journal in the state directory. Each store has its own: the entries of one are lost on the other.
func (c config) journalFile() string {
	if c.shared() {
		return "journal"
	}
	return "releases"
}

// openMachine opens the kernel of this machine unless one is given. Each call of it may be a crash point.
func openMachine(machine hw.Config, points crashPoints) (hw.Config, error) {
	if machine.Kernel == nil {
		kernel, err := rtnl.Open("/sys", irqDir("/host/irq", "/proc/irq"))
		if err != nil {
			return machine, err
		}
		machine.Kernel, machine.Sys = kernel, kernel.Sysfs()
	}
	machine.Kernel = points.Kernel(machine.Kernel)
	return machine, nil
}

// netnsFolder is where a managed plugin has the engine's folder of network namespaces, if an administrator has given it that: the mount "netns"
// of plugin/config.json, whose source is /proc/irq until then.
const netnsFolder = "/host/netns"

// openSandbox opens the network namespace that the engine has at a path of the host.
func openSandbox(path string) (*os.File, error) {
	if mounted(netnsFolder) {
		return rdma.OpenNamespace(netnsFolder, path)
	}
	return rdma.OpenNamespace("", path)
}

// ownBeside returns this node's own ledger if pools and addresses are in a shared store, and nil if it has them itself.
func ownBeside(cfg config, own store.Store) store.Store {
	if cfg.shared() {
		return own
	}
	return nil
}

// remoteIPAM returns the IPAM server of the setting STORE; nil for none.
func (c config) remoteIPAM() *remote.Client {
	server, err := parseRemote(c.store, c.stateDir)
	if err != nil || server == nil {
		return nil // configFrom has checked that there is no error
	}
	return remote.New(*server)
}

// hostName returns the host's name, "" if there is none. The plugin's UTS namespace starts as a copy of the host's.
func hostName() string {
	name, _ := os.Hostname() // "" with an error
	return name
}

// usesOf returns the addresses that the network driver knows to be in use, in the IPAM driver's type.
func usesOf(ctx context.Context, network *netdrv.Driver) ([]ipamdrv.Use, error) {
	known, err := network.Uses(ctx)
	var uses []ipamdrv.Use
	for _, u := range known {
		uses = append(uses, ipamdrv.Use(u))
	}
	return uses, err
}

// irqDir returns the path of the host's /proc/irq. A managed plugin has it mounted at another path, because runc makes a container's own
// read-only (linux.readonlyPaths). That path is an empty directory if it was not mounted.
func irqDir(granted, own string) string {
	if _, err := os.Stat(filepath.Join(granted, "default_smp_affinity")); err == nil {
		return granted
	}
	return own
}

// restartAfter is the pause before a background loop that ended is started again.
const restartAfter = 10 * time.Second

// keepRunning runs a background loop until ctx ends, and restarts it after an error or a panic: neither may end the server.
func keepRunning(ctx context.Context, what string, loop func(context.Context) error, log *zap.Logger) {
	for {
		stack, err := recovered(ctx, loop)
		if ctx.Err() != nil {
			return
		}
		log.Error(what+" ended; it starts again", zap.Duration("in", restartAfter), zap.NamedError("err", err), stack)
		if retry.Sleep(ctx, restartAfter) != nil {
			return
		}
	}
}

// recovered runs loop and turns a panic in it into an error and its stack.
func recovered(ctx context.Context, loop func(context.Context) error) (stack zap.Field, err error) {
	stack = zap.Skip()
	defer func() {
		if v := recover(); v != nil {
			stack, err = zap.String("stack", string(debug.Stack())), fmt.Errorf("panic: %v", v)
		}
	}()
	return stack, loop(ctx)
}
