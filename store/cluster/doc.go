// Package cluster tells apart the nodes that share a ledger.
//
// It owns a node's identity, the list of the nodes, and the fence between a node and one that an operator has declared
// lost. It must not know what the nodes keep in the ledger.
//
//	Member.ID ────> random, made once, in the node's own ledger
//	Member.Cond ──> a condition for each write of the node's: its record in the shared ledger is as it made it
//	Forget ───────> that record says that the node is lost: from then on each write of the node's fails, also one that is under way
//	Renew ────────> the node comes back, as another one
//
// No time limit makes a node a lost one: that it does not answer proves nothing about its containers. Entry point: [Member].
package cluster
