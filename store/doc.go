// Package store is the ledger: a small transactional key-value store in which the drivers write down what they are
// about to do before they touch a device or answer with an address.
//
// It owns transactions, prefixes, revisions and the file they live in. It must not know what a value means: records,
// their versions and their keys belong to the drivers.
//
//	netdrv ──┐                                   ┌──> bbolt file, of this node
//	         ├──> Store (Txn, Get, Range, Close) ┤
//	ipamdrv ─┘                                   └──> etcd, of all nodes
//
// The one write is [Store.Txn], a compare-and-swap over any number of keys; it is durable when it returns. Entry
// points: [OpenBolt] and [OpenEtcd] for the plugin, [Unavailable] for a plugin whose ledger could not be opened,
// [NewMemory] for unit tests, package storetest for the contract every implementation is held to and for tests of
// crashes.
package store
