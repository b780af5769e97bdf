// Package load starts and stops many containers at once, round after round. After each of the two it looks whether ledger, kernel
// and engine agree, and in the end whether the plugin takes more of the machine than after the first round.
//
// Which networks the containers are on, and of how many of them it is one too many, says the test that calls it: a Crowd is
// the same on VFs in the lab and on children of a veth end beside an engine.
package load
