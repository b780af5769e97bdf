// Package load starts and stops many containers at the same time, in rounds. After each start and stop it checks that ledger, kernel
// and engine agree, and at the end that the plugin uses no more resources than after the first round.
//
// The test defines the networks of the containers and how many must be refused. A Batch works with VFs in the lab and with
// children of a veth with the private engine.
package load
