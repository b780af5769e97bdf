package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/cluster"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/journal"
)

// ledgerFile is this node's own ledger, in the state directory.
const ledgerFile = "ledger.db"

// rooms are the drivers, and beneath them the ledger and the hardware, from the moment they begin to open.
type rooms struct {
	network *pending[*netdrv.Driver]
	ipam    *pending[*ipamdrv.Driver]

	capabilities ipamdrv.Capabilities

	stop   context.CancelFunc
	closed chan struct{} // closed when the ledger is
}

// thisMachine is where package hw finds the host that the plugin runs on.
func thisMachine() hw.Config { return hw.Config{Sys: "/sys"} }

// open opens everything in the background and returns at once: a disk or a NIC that takes its time must not keep the
// socket from answering.
func open(cfg config, machine hw.Config, log *zap.Logger) *rooms {
	ctx, stop := context.WithCancel(context.Background())
	r := &rooms{
		network: newPending[*netdrv.Driver](),
		ipam:    newPending[*ipamdrv.Driver](),
		stop:    stop,
		closed:  make(chan struct{}),

		capabilities: cfg.capabilities(),
	}
	go func() {
		defer close(r.closed)
		points := newCrashPoints()
		ledger := points.ledger(openLedger(cfg, log))
		defer closeLedger(ledger, log)
		pools := openPools(ctx, cfg, ledger, points)
		defer closeLedger(pools, log) // closing the same ledger twice is fine
		network, ipam, err := openDrivers(cfg, machine, ledger, pools, points, log)
		if err != nil {
			log.Error("drivers not opened; every call will say so", zap.NamedError("err", err))
		}
		r.ipam.settle(ipam, err)
		r.network.settle(network, err)
		if err == nil {
			var loops sync.WaitGroup
			loops.Go(func() { keepUp(ctx, "reconciler", network.Reconcile, log) })
			loops.Go(func() { keepUp(ctx, "upkeep of addresses", ipam.Maintain, log) })
			loops.Wait()
		}
		<-ctx.Done()
	}()
	return r
}

// capabilities are the answers of the IPAM driver that the environment decides.
func (c config) capabilities() ipamdrv.Capabilities {
	return ipamdrv.Capabilities{RequireMAC: c.requireMAC}
}

// close ends what open began. A ledger that is still at work after that is closed by the end of the process, which it
// survives as it survives a crash.
func (r *rooms) close(atMost time.Duration) {
	r.stop()
	bound := time.NewTimer(atMost)
	defer bound.Stop()
	select {
	case <-r.closed:
	case <-bound.C:
	}
}

// openLedger opens the ledger in the state directory. Without it the plugin still answers, and says why it cannot help:
// a plugin that does not come up is disabled by the engine, and nobody who asks it for something learns the reason.
func openLedger(cfg config, log *zap.Logger) store.Store {
	// An engine's call that has to wait for the lock should still get the reason within its own deadline.
	lock := boltstore.LockTimeout(cfg.handlerTimeout / 2)
	open := func() (store.Store, error) { return boltstore.Open(filepath.Join(cfg.stateDir, ledgerFile), lock) }
	return store.Reopen(open, func(err error) {
		if err == nil {
			log.Info("ledger opened after all")
			return
		}
		log.Error("ledger not opened; every call that needs it will say so", zap.NamedError("err", err))
	})
}

// openPools is the ledger of pools and addresses: that of this node, or the one that all nodes of a cluster share.
// Networks, endpoints and devices are always this node's own.
func openPools(ctx context.Context, cfg config, own store.Store, points crashPoints) store.Store {
	etcd, err := parseStore(cfg.store, cfg.stateDir)
	if err != nil || etcd == nil {
		return own // configFrom has seen that there is no error
	}
	open := func() (store.Store, error) {
		shared, err := etcdstore.Open(*etcd)
		if err != nil {
			return nil, err
		}
		if err := cluster.LoadWatermark(ctx, own, shared); err != nil { // the own ledger is not there yet
			return nil, errors.Join(err, shared.Close())
		}
		return points.ledger(shared), nil
	}
	return store.Reopen(open, func(error) {}) // the own ledger's line in the log says why
}

// closeLedger closes a ledger.
func closeLedger(ledger store.Store, log *zap.Logger) {
	if err := ledger.Close(); err != nil {
		log.Error("ledger not closed", zap.NamedError("err", err))
	}
}

// openDrivers finds the hardware and wires the drivers. Only the IPAM driver knows which gateway was invented and what a
// container is called; only the network driver cares.
func openDrivers(cfg config, machine hw.Config, ledger, pools store.Store, points crashPoints, log *zap.Logger) (
	*netdrv.Driver, *ipamdrv.Driver, error,
) {
	host, err := openHost(machine, points)
	if err != nil {
		return nil, nil, fmt.Errorf("hardware: open: %w", err)
	}
	defaults, err := ipamdrv.ParseDefaultPools(cfg.defaultPools)
	if err != nil {
		return nil, nil, err
	}
	var network *netdrv.Driver // asked once both are there
	ipam, err := ipamdrv.New(ipamdrv.Config{Store: pools, Own: ownBeside(cfg, ledger), NodeName: hostName(), Log: log,
		Journal:      points.journal(journal.New(filepath.Join(cfg.stateDir, "journal"))),
		Capabilities: cfg.capabilities(), Defaults: defaults, Host: host.Networks, MaintainEvery: points.maintainEvery(),
		Uses: func(ctx context.Context) ([]ipamdrv.Use, error) { return usesOf(ctx, network) },
		Probe: func(ctx context.Context, device string, a netip.Addr) (string, error) {
			mac, err := host.Holder(ctx, device, a)
			return string(mac), err
		}})
	if err != nil {
		return nil, nil, err
	}
	network, err = netdrv.New(netdrv.Config{
		Store: ledger, Host: host, Log: log, Devices: cfg.devices,
		InventedGateway: ipam.InventedGateway, ContainerName: ipam.ContainerName, GotPool: ipam.GotPool, OrphanAfter: points.orphanAfter(),
	})
	if err != nil {
		return nil, nil, err
	}
	return network, ipam, nil
}

// openHost finds the hardware; each call to its kernel may be a crash point.
func openHost(machine hw.Config, points crashPoints) (*hw.Host, error) {
	if machine.Kernel == nil {
		kernel, err := rtnl.Open(machine.Sys, irqDir("/host/irq", "/proc/irq"))
		if err != nil {
			return nil, err
		}
		machine.Kernel = kernel
	}
	machine.Kernel = points.kernel(machine.Kernel)
	return hw.Open(machine)
}

// ownBeside is this node's own ledger where pools and addresses are in one that nodes share; nil where it is the only one.
func ownBeside(cfg config, own store.Store) store.Store {
	if cfg.store == storeBolt {
		return nil
	}
	return own
}

// hostName is what people call this node, "" when it has no name. The plugin's UTS namespace begins as a copy of the host's.
func hostName() string {
	name, _ := os.Hostname() // "" with an error
	return name
}

// usesOf tells the IPAM driver what the network driver knows of addresses.
func usesOf(ctx context.Context, network *netdrv.Driver) ([]ipamdrv.Use, error) {
	known, err := network.Uses(ctx)
	var uses []ipamdrv.Use
	for _, u := range known {
		uses = append(uses, ipamdrv.Use(u))
	}
	return uses, err
}

// irqDir is where the host's /proc/irq is: granted at a place of its own, because runc makes a container's read-only
// (linux.readonlyPaths), or where it always is. The place is there, empty, when nothing was granted.
func irqDir(granted, own string) string {
	if _, err := os.Stat(filepath.Join(granted, "default_smp_affinity")); err == nil {
		return granted
	}
	return own
}

// again is how long a loop that ended is left alone.
const again = 10 * time.Second

// keepUp keeps a loop going until ctx ends. Neither an error nor a bug in it may end the server.
func keepUp(ctx context.Context, what string, loop func(context.Context) error, log *zap.Logger) {
	for {
		stack, err := survive(ctx, loop)
		if ctx.Err() != nil {
			return
		}
		log.Error(what+" ended; it starts again", zap.Duration("in", again), zap.NamedError("err", err), stack)
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

// survive runs loop and turns a panic in it into an error and its stack.
func survive(ctx context.Context, loop func(context.Context) error) (stack zap.Field, err error) {
	stack = zap.Skip()
	defer func() {
		if v := recover(); v != nil {
			stack, err = zap.String("stack", string(debug.Stack())), fmt.Errorf("panic: %v", v)
		}
	}()
	return stack, loop(ctx)
}
