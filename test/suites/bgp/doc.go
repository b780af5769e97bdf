// Package bgp shows that BIRD and FRR, with the configurations of docs/l3.md, distribute the routes that the plugin announces. Two hosts
// and a router are network namespaces; what is announced is announced by package hw, without containers. test/suites/swarm.TestBGP is the same
// with two machines and containers.
package bgp
