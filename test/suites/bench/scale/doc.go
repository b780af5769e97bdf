// Package scale measures shared pools at scale: many nodes, each a driver with a ledger and an etcd client of its own, and pools with up to a
// million leases on an etcd of three members, all on one machine. In the same run on the same etcd it measures the transaction itself, and an
// allocator that works as whereabouts does.
//
// It is run by make bench-cluster, which prints a table and writes the raw figures to a file.
package scale
