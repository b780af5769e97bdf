// Package netdrv is the network driver: it turns the engine's calls into operations on devices of package hw.
//
//	call              what happens                                                                     state of the allocation
//	GwAllocCheck      options are parsed: a typo is an error before addresses are allocated
//	CreateNetwork     the devices are found and checked; VFs are created on PFs that have none
//	CreateEndpoint    a device is claimed, its snapshot stored; then it is set up and verified        claimed -> ready
//	Join              its name is answered; the engine moves it into the container                    ready -> lent
//	Leave             nothing: the device is still in the container
//	DeleteEndpoint    it is awaited, restored from the snapshot and verified                          lent -> freeing -> free
//	DeleteNetwork     VFs that the plugin created are removed with the last network of their PF
//
// A docker run on an sriov network goes through these steps:
//
//	netdrv.Driver.CreateEndpoint    netdrv.endpoints.create: the network, its options with those of the container
//	netdrv.attacher.attach          netdrv.attacher.claim: locks the PFs, waits for a device that is on its way back
//	mode.sriov.Claim                vfpool.Pool.Inventory, vfpool.Selector.Select: the PFs, their VFs, the best free one
//	mode.sriov.allocate             hw.Host.SnapshotVF, option.Container.VFSpec: how the VF is, and how it is to be
//	alloc.Table.Start               the allocation is durable: claimed
//	mode.sriov.Prepare              hw.Host.SetVF, ReadyVF, SetLink: the VF is set up and verified
//	alloc.Table.MarkReady           the allocation and the endpoint are durable: ready
//	netdrv.Driver.Join              netdrv.endpoints.join: lent, the device's name, the gateways
//
// and its device comes home through these:
//
//	netdrv.Driver.DeleteEndpoint    netdrv.endpoints.delete: freeing
//	netdrv.reconciler.awaitReturn   netdrv.releaser.release, until the kernel has moved the device home
//	mode.sriov.Release              hw.Host.RestoreVF: the VF is restored from its snapshot and verified
//	alloc.Table.End                 free
//
// The package has the calls (driver.go is their index), networks, endpoints, and the reconciler, which finishes what a crash or a slow
// kernel has left open. Packages below it:
//
//	option      what users give: text to values to specs of hw
//	mode        what a container gets: a VF, a bond of VFs, a whole device or a child
//	vfpool      PFs and VFs: find, create, remove, select
//	alloc       allocations: their states, and which container had which device
//	engineview  what the engine still knows
//	ledger      records of networks and endpoints
//	metrics     counters
//
// None of them uses netlink, sysfs or the environment. Every operation on a device has a durable record before it begins; what undoes the
// operation reads that record and nothing else.
//
// Locks have an order, outermost first: all networks, an endpoint, PFs by their addresses, devices, a transaction of the store.
package netdrv
