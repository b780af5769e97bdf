package main

import (
	"context"
	"io"
	"net/http"
	"runtime"

	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv"
)

// A route is one call of the engine and what answers it.
type route struct {
	op    string // "NetworkDriver.Join"; the path is "/" + op
	call  call
	flags routeFlags
}

// routeFlags are properties of a route.
type routeFlags int

const (
	// quiet: the call is frequent, changes nothing, or what it does has a line of its own; it is logged at level debug if it succeeds.
	quiet routeFlags = 1 << iota
	// stateless: the call is answered even if the drivers could not be made. The engine's own start depends on some of these.
	stateless
	// patient: the call may create VFs, for which the driver of a NIC needs up to a second each, or sets a device up, maybe beside some
	// sixty others that start at the same time. It has twice the time of others.
	patient
	// registered: the call waits for the engine's registration of a plugin that was restarted.
	registered
)

// routes is the table of all calls.
func routes(d *drivers) []route {
	net, ipam := d.network, d.ipam
	var attachments *netdrv.Attachments
	if net != nil {
		attachments = net.Attachments
	}
	netCapabilities, ipamCapabilities := net.GetCapabilities, ipam.GetCapabilities
	if d.err != nil {
		netCapabilities, ipamCapabilities = netdrv.Capabilities, d.capabilities.GetCapabilities
	}
	table := []route{
		{"Plugin.Activate", handleBare(activate), quiet | stateless},

		{"NetworkDriver.GetCapabilities", handleBare(netCapabilities), quiet | stateless},
		{"NetworkDriver.GwAllocCheck", handle(net.GwAllocCheck), quiet | stateless},
		{"NetworkDriver.AllocateNetwork", handle(net.AllocateNetwork), 0},
		{"NetworkDriver.FreeNetwork", handle(net.FreeNetwork), 0},
		{"NetworkDriver.CreateNetwork", handle(net.CreateNetwork), patient},
		{"NetworkDriver.DeleteNetwork", handle(net.DeleteNetwork), 0},
		{"NetworkDriver.CreateEndpoint", handle(net.CreateEndpoint), quiet | registered | patient},
		{"NetworkDriver.EndpointOperInfo", handle(net.EndpointOperInfo), quiet | stateless},
		{"NetworkDriver.DeleteEndpoint", handle(net.DeleteEndpoint), quiet},
		{"NetworkDriver.Join", handle(net.Join), quiet | patient},
		{"NetworkDriver.Leave", handle(net.Leave), quiet},
		{"NetworkDriver.DiscoverNew", handle(net.DiscoverNew), quiet},
		{"NetworkDriver.DiscoverDelete", handle(net.DiscoverDelete), quiet},
		{"NetworkDriver.ProgramExternalConnectivity", handle(net.ProgramExternalConnectivity), quiet},
		{"NetworkDriver.RevokeExternalConnectivity", handle(net.RevokeExternalConnectivity), quiet},

		{admin.AttachCall, handle(attachments.Attach), quiet | patient},
		{admin.DetachCall, handle(attachments.Detach), quiet},
		{admin.CheckCall, handle(attachments.Check), quiet},

		{admin.StatusCall, handle(withVersion(net.Status)), quiet},
		{admin.PoolsCall, handleBare(func(ctx context.Context, _ *struct{}) (*admin.Pools, error) { return ipam.Pools(ctx) }), quiet},
		{admin.LeasesCall, handle(ipam.Leases), quiet},
		{admin.DeviceCall, handle(net.Operate), 0},
		{admin.PlanCall, handle(d.plan), quiet},
		{admin.EventsCall, handle(func(ctx context.Context, r *admin.EventsRequest) (*admin.Events, error) {
			return d.events.Events(ctx, r)
		}),
			quiet | stateless},
		{admin.NodesCall, handleBare(d.nodes), quiet},
		{admin.ForgetCall, handle(d.forget), 0},
		{admin.SettingsCall, handleBare(d.shownSettings), quiet | stateless},
		{admin.LogLevelCall, handle(d.setLogLevel), stateless},
		{admin.BackupCall, func(context.Context, []byte) ([]byte, error) { return nil, nil }, 0}, // streams has its answer
		{admin.RestoreCall, handle(d.backups.Restore), 0},
		{"Passthrough.Counters", handleBare(net.Counters), quiet},
		{"Passthrough.Usage", handleBare(usage), quiet | stateless},

		{"IpamDriver.GetCapabilities", handleBare(ipamCapabilities), quiet | stateless},
		{"IpamDriver.GetDefaultAddressSpaces", handleBare(d.capabilities.GetDefaultAddressSpaces), quiet | stateless},
		{"IpamDriver.RequestPool", handle(ipam.RequestPool), 0},
		{"IpamDriver.ReleasePool", handle(ipam.ReleasePool), 0},
		{"IpamDriver.RequestAddress", handle(ipam.RequestAddress), quiet},
		{"IpamDriver.ReleaseAddress", handle(ipam.ReleaseAddress), quiet},
	}
	if d.err == nil {
		return table
	}
	for i, rt := range table {
		if rt.flags&stateless == 0 {
			table[i].call = func(context.Context, []byte) ([]byte, error) { return nil, d.err }
		}
	}
	return table
}

// streams are the calls whose answer can be too large for memory: they write it themselves, after their route has been called without an error.
func streams(d *drivers) map[string]func(context.Context, io.Writer) error {
	return map[string]func(context.Context, io.Writer) error{admin.BackupCall: d.backups.write}
}

// manifest is the answer to Plugin.Activate, which the engine sends to a plugin that it did not start itself.
type manifest struct{ Implements []string }

// activate lists the interfaces that this socket serves.
func activate(context.Context, *struct{}) (*manifest, error) {
	return &manifest{Implements: []string{"NetworkDriver", "IpamDriver"}}, nil
}

// withVersion adds the version of the program, its commit and date to the status.
func withVersion(status func(context.Context, *admin.StatusRequest) (*admin.Status, error)) func(context.Context, *admin.StatusRequest) (*admin.Status, error) {
	return func(ctx context.Context, r *admin.StatusRequest) (*admin.Status, error) {
		s, err := status(ctx, r)
		if err == nil {
			s.Version, s.Commit, s.Date = version, commit, date
		}
		return s, err
	}
}

// setLogLevel changes what is logged until the process ends, and answers what is logged then.
func (d *drivers) setLogLevel(_ context.Context, r *admin.LogLevel) (*admin.LogLevel, error) {
	if r.Level != "" {
		level, err := zapcore.ParseLevel(r.Level)
		if err != nil || level > zapcore.ErrorLevel {
			return nil, refuse(http.StatusBadRequest, "log level %.64q: must be debug, info, warn or error", r.Level)
		}
		d.logLevel.SetLevel(level)
	}
	return &admin.LogLevel{Level: d.logLevel.Level().String()}, nil
}

// shownSettings answers the settings that the process was started with.
func (d *drivers) shownSettings(context.Context, *struct{}) (*admin.Settings, error) {
	return &admin.Settings{Settings: d.settings}, nil
}

// usageResponse says how much of the machine the process uses, beside what /proc says.
type usageResponse struct {
	Goroutines int
	HeapBytes  uint64 // in use
}

// usage collects garbage first, so that two answers can be compared.
func usage(context.Context, *struct{}) (*usageResponse, error) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return &usageResponse{runtime.NumGoroutine(), m.HeapAlloc}, nil
}
