// Command release makes the files of a release out of what scripts/release has built, and pushes its plugins to a registry. It is a
// module of its own, so that what it needs is no dependency of the plugin.
//
// The same input gives the same files, byte for byte: no time but the one given, no user and no name of this machine is in them.
package main
