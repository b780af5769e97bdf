// Package campaign is a randomized soak test of a guest. It runs random operations of users and of the host's administrator, crashes
// and hardware faults, and checks after each one that ledger, kernel and engine agree (package invariant) and that every container has
// its devices and addresses.
//
// It runs outside of the guest, so that it can cut the power of the guest. A disk of the guest survives that. The same test binary is
// copied to that disk and reads the states inside the guest.
//
//	operations   a table: name, frequency, condition, function                                      operations
//	model        the expected networks, containers and addresses                                    campaign
//	check        waits, with a timeout, until the guest agrees with the model without violations    settled
//
// A campaign prints its seed and each operation. The same seed gives the same operations as long as the guest gives the same results;
// after a kill during an operation it may not. A bug that a campaign finds gets its own test.
//
//	make campaign ENGINE=28.5 OPS=500 SEED=42 ONLY="run|stop|power cut"      ONLY selects operations by name
//
// The boot tests are in this package because they need the same guest.
package campaign
