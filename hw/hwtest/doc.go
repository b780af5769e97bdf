// Package hwtest is a stand-in for the Linux kernel: network links, namespaces, SR-IOV functions, addresses and routes
// that behave as the real ones do as far as package hw can tell, with a real sysfs tree in a temporary directory.
//
//	k := hwtest.New(t)
//	k.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 7, Up: true})
//	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k})
//
// It is driven from two sides. Package hw sees it through [hw.Kernel] and the tree; the test plays
// everybody else - the administrator, udev, the engine that moves links between namespaces, the container - with the
// methods that Kernel has beyond those. What the kernel does later, it does by timers, so that a test in a
// testing/synctest bubble need not wait. The behaviour of SR-IOV functions is that of igb and igbvf, unless the fields
// of [PF] say otherwise; [Makes] has what other NICs do.
//
// Every change that package hw makes is counted, logged ([Kernel.Calls]) and can be made to fail ([Kernel.OnCall]); a
// change of several fields counts once per field, because the kernel is asked once per field. [Kernel.String] is the
// whole state, to be compared before and after.
//
// Package conformance holds the fake and the running kernel to the same behaviour.
package hwtest
