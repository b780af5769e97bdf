// Package ipamdrv is the engine's IPAM driver: it gives containers addresses from the subnets that users name.
//
// It owns pools, leases, the choice of an address and the records of both. It must not touch devices or networks, and
// knows nothing of the network driver.
//
//	RequestPool ────> pool record, opaque handle       one pool per request, unless it has a name: equal subnets never meet
//	RequestAddress ─> index of free addresses (RAM) ─> lease record (ledger) ─> answer
//	ReleaseAddress ─> lease record removed (ledger), or one of an address at rest ─> index
//
// The ledger is the truth, the index a copy that is made again at the first use of a pool after a start, and after any
// write whose outcome is not known. Every write says what the pool's record was that it was decided from; when another
// node of a cluster has changed it, the request is tried again from the ledger. In a ledger that nodes share each of them
// keeps beside, in its own, what it owes to it (errand.go), what it has ahead (reserve.go) and which pools its engine has
// (node.go). What nobody has any more is found by sweep.go. Entry points: [New] and [Driver], and
// [Options] for what users can say about a pool.
//
// # Which address is given
//
// One that is asked for (--ip, --ip6, --gateway, --aux-address) may be anywhere in the subnet; --ip-range and the option
// exclude limit the driver's own choice only. The choice goes round: it continues after the address that was given last, so
// that an address rests as long as possible before somebody else gets it. Never given are an IPv4 subnet's network and
// broadcast address (but in a /31 and a /32) and an IPv6 subnet's first address, which all its routers listen to (but in a
// /127 and a /128).
//
// While a pool has no gateway, its first address is not chosen either, when more than four are usable: most often it is
// the physical router's. It is given to who asks for it, and when --ip-range leaves nothing else to choose.
//
// # Rest
//
// With the options quarantine and sticky a released address rests: its record stays, with another kind. One in quarantine
// is nobody's until its time is over. One that is kept for the container that had it goes to somebody else when nothing
// else is left. What has rested long enough is free, and its record goes with one of the next choices.
//
// # Gateways
//
// Engines before 28 ask for a gateway although the user named none, with an empty address. They get the subnet's first
// usable address, and the pool remembers that it was invented, see [Driver.InventedGateway].
package ipamdrv
