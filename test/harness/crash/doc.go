// Package crash kills the plugin, a real process, at every point at which it writes something down or changes a device,
// and looks whether it gets over that.
//
// A life is what an engine does: a network is made, a container started on it and stopped, the network removed. It is lived
// once without a crash, and the process tells the points that it passes (its build tag crashpoints, see internal/crashpoint). Then
// it is lived once for each of them, from a fresh start: the process dies there by SIGKILL, is started again, and the
// engine does what engines do then, see Reaction. In the end, and whenever a container has been started or stopped, ledger,
// kernel and engine have to agree (package invariant). The process that was started again passes points, too, when it
// finishes what was left: it is killed a second time, at each of those.
//
// The engine is a fake for dockerd that sends what that sends, in its order; the process, its ledger and the kernel's
// devices are real. So is the etcd, where pools and addresses are in one.
package crash
