// Package netdrv is the network driver: it turns what the engine asks for into devices of package hw, and back.
//
//	engine's verb            what happens
//	GwAllocCheck             options are parsed: a typo is refused before anything is allocated
//	CreateNetwork            options -> config; the device is found, checked and, if need be, divided into VFs
//	CreateEndpoint           a device is claimed, its snapshot stored, then set up and verified      claimed -> ready
//	Join                     its name is answered; the engine moves it into the container            ready -> lent
//	Leave                    nothing: the device is still in the container
//	DeleteEndpoint           it is awaited, put back from the snapshot and verified                  lent -> freeing -> gone
//	DeleteNetwork            VFs that the plugin made go with the last network of their PF
//
// The room owns the options table (options.go), the records of networks, endpoints and allocations (package ledger), the states of
// an allocation (package alloc), the modes (mode_*.go) and the reconciler that finishes what a crash or a slow kernel left open
// (reconcile.go). It must not touch netlink, sysfs or the environment. Every device operation has a durable record
// before it begins; what undoes it reads that record and nothing else.
package netdrv
