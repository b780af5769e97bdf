// Package load starts and stops many containers at the same time, in rounds. After each start and stop it checks that ledger, kernel
// and engine agree, and at the end that the plugin uses no more resources than after the first round.
//
// The test says on which networks the containers run and how many must be refused: a Crowd works with VFs in the lab and with
// children of a veth with the private engine.
package load
