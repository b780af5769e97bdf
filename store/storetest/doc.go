// Package storetest has the conformance suite of [store.Store], and stores that inject faults.
//
// The test of an implementation calls [Run]. The test of a driver puts a [Crash] between the driver and its store, which stops at the k-th
// transaction, or a [Faults], which loses requests and answers. The package must not know what a record means.
package storetest
