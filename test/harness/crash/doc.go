// Package crash kills the plugin, a real process, at every crash point (each write of the ledger and each change of a device),
// restarts it, and checks the recovery.
//
// A scenario is the lifecycle of one container: create a network, start a container, stop it, remove the network. It runs once
// without a crash, and the process records the crash points that it passes (build tag crashpoints, see internal/crashpoint).
// Then it runs once per crash point, from a fresh start: the process is killed there by SIGKILL and started again, and the
// engine reacts as engines do, see Reaction. At the end, and after each start and stop of a container, ledger, kernel and
// engine must agree (package invariant). The restarted process passes crash points too while it finishes the rest: it is
// killed a second time at each of those.
//
// A scenario can be that of another owner instead (Owners): containers of a runtime with a CNI plugin get devices and give them back.
//
// The engine is a fake dockerd that sends the requests of dockerd in the same order. The process, its ledger, the kernel's
// devices and the etcd, if there is one, are real.
package crash
