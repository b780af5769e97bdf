// Command driver is the plugin's process: one HTTP server on one unix socket that answers the engine's calls to the
// network driver and to the IPAM driver.
//
// It owns the environment, the wiring of the rooms, the socket, and what holds for every call whatever it means: the
// size of its body, its deadline, its line in the log, and that a panic in it ends neither the process nor the
// engine's patience. It must not know options, records, addresses or devices.
//
//	engine --POST--> server -> decode -> driver's method, guarded and bounded -> encode -> log line
//	                                        |
//	                                 opened in the background: ledger, hardware, drivers
//
// The socket answers before anything else is opened: an engine that is booting waits some 12 seconds for a plugin to
// listen and disables it otherwise, and it serves none of its own API until the first calls are answered.
//
// With the arguments export or import it copies pools and addresses between a store and a file instead, and ends.
//
// Entry points: main.go for the order of things, paths.go for the calls, server.go and handle.go for what happens to
// each.
package main
