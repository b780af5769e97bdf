// Package hwtest is a fake Linux kernel: network links, namespaces, SR-IOV functions, addresses and routes
// that behave as the real ones do as far as package hw can tell, with a sysfs tree in memory.
//
//	k := hwtest.New(t)
//	k.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 7, Up: true})
//	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k})
//
// Package hw uses it through [hw.Kernel] and the tree, package rdma through [Kernel.RDMA]. The test plays everything else with the other methods:
//
//	To play             call
//	the NIC             Kernel.AddPF, AddOn, AddSubfunction, AddVDPA, RemovePF, Reset, ResetVFs, Reload, BindAgain, Plug; PF.Behaviour for its driver, MakeWiFi
//	the administrator   Kernel.AddLink, AddVeth, AddRXE, DelLink, AddAddrs, AddRoutes, Configure, AddFilter, WriteSysctl, Connect, LoadDriver, Place; WriteAttr for sysfs
//	Open vSwitch        Kernel.AddPort
//	udev                Kernel.GiveAltName, BeginRename, EndRename; fields NoUdev and UdevAfter for its own work
//	the engine          Kernel.MoveToNS, MoveHome
//	a program           Kernel.OpenFunction, CloseFunction: through vfio-pci
//	the container       Kernel.InNS, then Namespace.Links, SetLink, AddLink, AddAddr, GiveAltName, RemoveAltName
//	its end             Kernel.KillNS, ReleaseNS
//	a failing kernel    Kernel.OnCall, FailAt, FailFrom, EndWatches; fields NoKinds, NoLiveRename, NoLiveMAC, NoImmutable, NoProcIRQ, NoIOMMU, ProcSys; PF.OneGroup
//
// To see the result, call Kernel.Link, Netdev, NumVFs, Driver, IRQs, VFs, Calls, Downs and String; Namespace.Tuning.
//
// What the kernel does later, it does by timers, so that a test in a testing/synctest bubble need not wait. SR-IOV
// functions behave as those of igb and igbvf, unless [PF] has the [Behaviour] of another preset; [Makes] has the NICs
// that package hw knows.
//
// Every change that package hw makes is counted, logged ([Kernel.Calls]) and can be made to fail ([Kernel.OnCall]); a
// change of several fields counts once per field, because the kernel is asked once per field. [Kernel.String] is the
// whole state, to be compared before and after.
//
// Package conformance holds the fake and the running kernel to the same behaviour.
package hwtest
