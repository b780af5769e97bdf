// Package cluster has the membership of the nodes that share a store.
//
// It owns a node's ID, the list of the nodes, and the fence of a node that an operator has removed. It must not know what the nodes keep
// in the store.
//
//	Member.ID ────> random, made once, in the node's own ledger
//	Member.Cond ──> a condition for each write of the node: its record in the shared store is unchanged
//	RemoveNode ───> marks that record as lost: from then on each write of the node fails, also one that is in flight
//	OnMachine ────> each process rewrites that record, if it is on the machine of the one before: writes of that one fail from then on
//	Member.See ───> tells operators when the node last ran
//	Member.Renew ─> the node comes back under another ID
//
// No timeout removes a node: a node that does not answer may still run containers. Entry point: [Member].
package cluster
