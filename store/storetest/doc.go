// Package storetest is the contract that every [store.Store] is held to, and the crash that every user of one must
// survive.
//
// It owns [Run], which an implementation's test calls, and [Crash], which a driver's test puts between the driver and a
// store to stop it at the k-th transaction. It must not know what a record means.
package storetest
