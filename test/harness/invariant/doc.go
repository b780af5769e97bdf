// Package invariant has the consistency checks: when no operation is in progress, the plugin's ledger, the kernel and the engine
// agree. They are nowhere else; any test may run them after any step.
//
//	ledger   every record of the file, read from a copy while the plugin is at work        ReadLedger
//	         with the pools and addresses that are in an etcd, and the node's journal      ReadShared
//	kernel   links, addresses, routes and VFs, as iproute2 and sysfs show them             ReadHost
//	engine   networks, endpoints and addresses that it knows                               Engine, ReadDocker
//
// Violations compares them. It reads the records and the kernel with code of its own, none of the plugin's. A source that a test
// does not have, such as an engine or the file, is nil, and the others are compared.
package invariant
