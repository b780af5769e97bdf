// Package hw is the devices of one machine: network devices, SR-IOV physical functions (PF) and their virtual functions
// (VF). It is the only room that touches sysfs, netlink and errno, and it knows nothing of who borrows a device.
//
//	find      Host.Netdev, Host.PF, Host.VFs, Host.Find    by name, PCI address or ID
//	count     Host.EnableVFs, Host.DisableVFs              the number of VFs of a PF
//	lend      SnapshotVF -> SetVF -> ReadyVF               what was, what is wished, a netdev that works
//	          SnapshotNetdev -> PrepareNetdev
//	tune      SnapshotTuning -> Tune                       queues, rings, offloads
//	          Affinity -> Spread                           which CPUs serve the interrupts
//	return    RestoreVF, RestoreNetdev                     from the snapshot alone, verified
//
// A device is known by its [ID], which outlives names: names change under udev, in containers and when the kernel
// brings a device home from a namespace that died. Nothing here remembers anything between two calls; whoever calls
// keeps the snapshots. Every set is read back. The kernel is reached through [Kernel] for changes and through a
// directory, the root of sysfs, for reading; package hwtest has a stand-in for all of it.
package hw
