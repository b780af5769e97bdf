// Package invariant says what has to be true whenever nothing is under way: the plugin's ledger, the kernel and the engine
// agree. It is the one place where that is written down; any test may ask, after any step.
//
//	ledger   every record of the file, read from a copy while the plugin is at work        ReadLedger
//	         with the pools and addresses that are in an etcd, and the node's journal      ReadShared
//	kernel   links, addresses, routes and VFs, as iproute2 and sysfs show them             ReadHost
//	engine   networks, endpoints and addresses that it knows                               Engine, ReadDocker
//
// Violations compares them. It knows the records and the kernel by itself: nothing of the plugin's own code is asked what
// it thinks is there. What is left out is nil, so that a test without an engine, or without the file, asks for the rest.
package invariant
