// Package ipamdrv is the engine's IPAM driver: it gives containers addresses of the subnets that users name.
//
// It owns the engine's calls, the creation of pools, what a full pool's group does, and garbage collection. It must not touch devices or
// networks, and does not know the network driver. Packages:
//
//	ipamdrv ─> pool ─> option, addr      the allocator; the options of a pool; arithmetic
//	        ─> dhcp                      the leases of DHCP servers
//	        ─> remote                    the client of an IPAM server
//	        ─> node ─> pool              in a store that nodes share: outbox, prefetched addresses, the handles of this node
//
//	RequestPool ────> creator.request ─> Pool.Create or Join       one pool per request, unless it has a name: equal subnets are separate
//	RequestAddress ─> allocator.request ─> pools.open ─> Pool.Allocate ─> lease in the store ─> answer
//	ReleaseAddress ─> pools.releaseAddress ─> Pool.Release ─> lease removed, or replaced by a cooldown
//	RenewLeases ────> dhcpLeases.renew ─> lease in the store       with the option dhcp; RequestAddress asks the server before it locks the pool
//	            ────> remoteLeases.release                         with the option remote; what is released here, until the server has answered
//	Maintain ───────> flush of the outbox, prefetch, gc
//
// The store is the truth, and what a pool has cached a copy. A write has the condition that the pool's record is as cached; if it was changed,
// it is read again and the request retried. In a store that nodes share the leases of a pool are followed, see pool.replica, and while it is
// away the circuit breaker of package node keeps requests from waiting for it. Entry points: [New] and [Driver], and [Options] for the options of a
// pool.
//
// # Which address is given
//
// A requested address (--ip, --ip6, --gateway, --aux-address) may be anywhere in the subnet; --ip-range and the option exclude limit
// allocation only. Allocation is round-robin: it continues after the last address, so that a released address is unused as long as possible.
// Never given are an IPv4 subnet's network and broadcast address (except in a /31 and a /32) and an IPv6 subnet's first address, the
// subnet-router anycast address (except in a /127 and a /128).
//
// While a pool has no gateway, its first address is not allocated if more than four are usable: it usually is the physical router's. A
// container can request it, and it is allocated if --ip-range leaves nothing else.
//
// # Cooldown
//
// By the options quarantine and sticky a released address has a cooldown: its record stays, with another kind. An address in quarantine is
// not allocated. An address that is kept for its container is allocated to another one if no other is left. After its cooldown an address is
// free, and its record is removed with one of the next allocations.
//
// Unless the user says otherwise, an address is kept for an hour if the engine sent the container's name or MAC. That must not cost what the
// user did not ask for: no request waits long for it while leases are still being read, and the number of kept addresses is limited.
//
// # Gateways
//
// Engines before 28 request a gateway although the user named none, with an empty address. They get the subnet's first usable address, and the
// pool remembers that it was invented, see [Driver.InventedGateway].
package ipamdrv
