// Package netdrv is the network driver: it turns the engine's calls into operations on devices of package hw.
//
//	call              what happens                                                                     state of the allocation
//	GwAllocCheck      options are parsed: a typo is an error before addresses are allocated
//	CreateNetwork     the devices are found and checked; VFs are created on PFs that have none
//	CreateEndpoint    a device is claimed, its snapshot stored; then it is set up and verified        claimed -> ready
//	Join              its name and the routes are answered; the engine moves it into the container    ready -> lent
//	Leave             nothing: the device is still in the container
//	DeleteEndpoint    it is awaited, restored from the snapshot and verified: a VF after the answer   lent -> freeing -> free
//	DeleteNetwork     VFs and VLAN devices that the plugin created are removed with the last network of their PF or device
//
// CONTRIBUTING.md has a docker run on an sriov network and the end of its container, function by function.
//
// The package has the calls (driver.go is their index), networks, endpoints, and the reconciler, which finishes what a crash or a slow
// kernel has left open. Packages below it:
//
//	option      what users give: text to values to specs of hw
//	mode        what a container gets: a VF, a bond of VFs, a whole device or a child
//	vfpool      PFs and VFs: find, create, remove, select
//	hostdev     devices that the plugin creates in the host for networks: VLAN devices, and children of its own
//	alloc       allocations: their states, and which container had which device
//	engineview  what the engine still knows
//	ledger      records of networks and endpoints
//	metrics     counters, and what the metrics show of devices
//
// None of them uses netlink, sysfs or the environment. Every operation on a device has a durable record before it begins; what undoes the
// operation reads that record and nothing else.
//
// Locks have an order, outermost first: all networks, an endpoint, PFs by their addresses, devices, a transaction of the store.
package netdrv
