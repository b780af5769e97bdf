// Package architecture holds no code: its tests check that every line of the repository is in the room it belongs to.
//
// A room is a directory with one job and a short list of things it may touch; doc.go in each says which. The tables in
// rules_test.go say the same so that a machine can look. To find the room for a line, read its words: an option or a
// network's ID is netdrv's; a pool or an address ipamdrv's; sysfs, netlink and errno hw's; a file of records store's;
// the environment, a signal or a socket cmd's. A line with words of two rooms is two lines.
package architecture
