package main

import (
	"context"
	"runtime"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv"
)

// A route is one call of the engine and what answers it.
type route struct {
	op    string // "NetworkDriver.Join"; the path is "/" + op
	call  call
	quiet bool // asked often, or to no effect: logged at debug when it goes well
}

// routes is the table of all calls. A driver's method waits for its driver to be open; those on which the engine's own
// start depends do not, and need no state to answer. A driver that is open hears of being asked for its capabilities all the
// same: it means that the engine was started.
func routes(r *rooms) []route {
	const quiet = true
	var (
		anyNet  netdrv.Driver
		anyIPAM = r.capabilities
		net     = r.network
		ipam    = r.ipam
	)
	return []route{
		{"Plugin.Activate", handleBare(activate), quiet},

		{"NetworkDriver.GetCapabilities", handleBare(atOnce(net, (*netdrv.Driver).GetCapabilities, anyNet.GetCapabilities)), quiet},
		{"NetworkDriver.GwAllocCheck", handle(anyNet.GwAllocCheck), quiet},
		{"NetworkDriver.AllocateNetwork", handle(on(net, (*netdrv.Driver).AllocateNetwork)), !quiet},
		{"NetworkDriver.FreeNetwork", handle(on(net, (*netdrv.Driver).FreeNetwork)), !quiet},
		{"NetworkDriver.CreateNetwork", handle(on(net, (*netdrv.Driver).CreateNetwork)), !quiet},
		{"NetworkDriver.DeleteNetwork", handle(on(net, (*netdrv.Driver).DeleteNetwork)), !quiet},
		{"NetworkDriver.CreateEndpoint", handle(on(net, (*netdrv.Driver).CreateEndpoint)), !quiet},
		{"NetworkDriver.EndpointOperInfo", handle(anyNet.EndpointOperInfo), quiet},
		{"NetworkDriver.DeleteEndpoint", handle(on(net, (*netdrv.Driver).DeleteEndpoint)), !quiet},
		{"NetworkDriver.Join", handle(on(net, (*netdrv.Driver).Join)), !quiet},
		{"NetworkDriver.Leave", handle(on(net, (*netdrv.Driver).Leave)), !quiet},
		{"NetworkDriver.DiscoverNew", handle(on(net, (*netdrv.Driver).DiscoverNew)), quiet},
		{"NetworkDriver.DiscoverDelete", handle(on(net, (*netdrv.Driver).DiscoverDelete)), quiet},
		{"NetworkDriver.ProgramExternalConnectivity", handle(on(net, (*netdrv.Driver).ProgramExternalConnectivity)), quiet},
		{"NetworkDriver.RevokeExternalConnectivity", handle(on(net, (*netdrv.Driver).RevokeExternalConnectivity)), quiet},

		{"Passthrough.Counters", handleBare(on(net, (*netdrv.Driver).Counters)), quiet},
		{"Passthrough.Usage", handleBare(usage), quiet},

		{"IpamDriver.GetCapabilities", handleBare(atOnce(ipam, (*ipamdrv.Driver).GetCapabilities, anyIPAM.GetCapabilities)), quiet},
		{"IpamDriver.GetDefaultAddressSpaces", handleBare(anyIPAM.GetDefaultAddressSpaces), quiet},
		{"IpamDriver.RequestPool", handle(on(ipam, (*ipamdrv.Driver).RequestPool)), !quiet},
		{"IpamDriver.ReleasePool", handle(on(ipam, (*ipamdrv.Driver).ReleasePool)), !quiet},
		{"IpamDriver.RequestAddress", handle(on(ipam, (*ipamdrv.Driver).RequestAddress)), !quiet},
		{"IpamDriver.ReleaseAddress", handle(on(ipam, (*ipamdrv.Driver).ReleaseAddress)), !quiet},
	}
}

// manifest is the answer to Plugin.Activate, which the engine sends to a plugin that it did not start itself.
type manifest struct{ Implements []string }

// activate lists the interfaces that this socket serves.
func activate(context.Context, *struct{}) (*manifest, error) {
	return &manifest{Implements: []string{"NetworkDriver", "IpamDriver"}}, nil
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
