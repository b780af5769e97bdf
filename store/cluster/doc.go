// Package cluster is what a node needs, beside the store that it shares with others, to hold records that only one of
// them may hold, such as addresses.
//
// It owns the node's identity, claims and releases, the queue of releases that could not be delivered, and the reserve. It
// must not know what is claimed: keys and values are its user's.
//
//	Claim ───> one compare-and-swap for each candidate ──────────> shared store: the record names its holder
//	Release ─> the record goes; when the shared store is away ───> queue in this node's own ledger ─> Deliver, later
//	Fill ────> records claimed ahead; Draw takes one while the shared store is away
//	Forget ──> an operator says that a node is lost: from then on each of its writes fails
//
// A record is held until its holder releases it, or an operator has the holder forgotten. No time limit frees one: that a
// node does not answer proves nothing about its containers. Candidates begin at a place of the node's own, see [Start]:
// nodes that all try the lowest free one meet at every claim. Entry points: [Join] and [Node].
//
// The IPAM driver does not use it yet: it gives addresses of a shared pool by the same compare-and-swap, without queue,
// reserve and Forget.
package cluster
