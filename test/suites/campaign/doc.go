// Package campaign does to a machine what users, crashes and other software do to it, chosen at random and looks after each
// operation whether ledger, kernel and engine agree (package invariant) and whether every container has what it should have.
//
// It runs outside of the guest that it torments, so that it can pull its plug. The guest's disk outlives that; what is looked
// at is read by this very program, which is copied there.
//
//	operations   a table: what it is called, how often it comes, when it is possible, what it does      operations
//	model        which networks there are, and which containers run on them with which addresses        campaign
//	check        waits, with a bound, until the machine is as the model says and nothing is violated    settled
//
// A campaign prints its seed and each operation. With the same seed it begins in the same way; it goes on so for as long as the
// machine answers in the same way, which what is killed at work may not. What one finds becomes a test of its own.
//
//	make campaign ENGINE=28.5 OPS=500 SEED=42 ONLY="run|stop|power cut"      ONLY leaves the other operations out
//
// The tests of booting are here as well, because they need the same machine.
package campaign
