// Package swarm is the tests that need two machines: two guests of scripts/lab, node1 and node2, whose igb NICs are on one wire, as a
// swarm or as routed hosts. They run outside of the guests, so that they can pull the plug of one, and do there what an operator
// does: the commands of docs/swarm.md, on node1.
package swarm
