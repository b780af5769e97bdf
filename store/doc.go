// Package store is the ledger: a small transactional key-value store. The drivers write down in it what they are about to do, before they
// touch a device or answer with an address.
//
// It owns transactions, prefixes and revisions. It must not know what a value means: records, their versions and their keys belong to
// the drivers.
//
//	netdrv ──┐                                   ┌──> boltstore: a file of this node
//	         ├──> Store (Txn, Get, Range, Close) ┤
//	ipamdrv ─┘                                   └──> etcdstore: an etcd of all nodes
//
// [Store.Txn] is the one way to write: a compare-and-swap over any number of keys, durable when it returns. [Reopen] opens a store in the
// background. [NewMemory] is for unit tests. Package storetest has the conformance suite, and decorators that inject
// crashes and faults. Package journal is a file for intents that must survive a kill.
package store
