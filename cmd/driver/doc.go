// Command driver is the plugin's process: one HTTP server on one unix socket that answers the engine's calls to the network driver and to the
// IPAM driver.
//
// It owns flags and environment, the wiring of the packages, the socket, and what holds for every call: the size of its body, its deadline, its
// log line, and that a panic in it is answered and survived. It must not know options, records, addresses or devices.
//
//	engine --POST--> server -> route -> decode -> driver's method, guarded and bounded -> encode -> log line
//
// The socket listens before anything else is opened, and the stores open in the background: an engine that boots waits some 12 seconds
// for a plugin to listen and disables it otherwise, and does not serve its own API until its first calls are answered.
//
// With a command it runs an operator's command in place of the server: export or import copies pools and addresses between a store and a
// file; nodes, forget and accept are for a cluster.
//
// Entry points: main.go for the order of things, wiring.go for what is connected to what, routes.go for the calls, server.go and codec.go
// for what happens to each.
package main
