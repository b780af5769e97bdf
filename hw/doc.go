// Package hw is the devices of one machine: network devices, SR-IOV physical functions (PF) and their virtual functions
// (VF). It is the only package that touches sysfs, /proc and errno, and it does not know what a device is used for.
//
//	find      Host.Netdev, Host.PF, Host.VFs, Host.Find    by name, PCI address or ID
//	count     Host.EnableVFs, Host.DisableVFs              the number of VFs of a PF
//	attach    SnapshotVF -> SetVF -> ReadyVF               the state before, the spec, a netdev that works
//	          SnapshotNetdev -> PrepareNetdev
//	tune      SnapshotTuning -> SetTuning                  queues, rings, offloads
//	          IRQAffinity -> SpreadIRQs                    the CPUs that serve the interrupts
//	program   SetUserVF, UnbindUserVF                      instead of SetVF, and before RestoreVF: for vfio-pci
//	release   RestoreVF, RestoreNetdev                     from the snapshot alone, verified
//
// A device is known by its [ID], which outlives names: names change under udev, in containers and when the kernel moves a
// device back from a namespace that ended. The package keeps no state between two calls but which VFs the kernel is
// unbinding just now; the caller keeps the snapshots. Every setting is read back.
//
// What is set is a table of rows: attr.go applies them, vf_attr.go, link_attr.go and tuning_attr.go list them. The kernel
// is reached through [Kernel], and sysfs is read through an [fs.FS]. Package rtnl is the running kernel, package hwtest a
// fake of kernel and sysfs.
package hw
