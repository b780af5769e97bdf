//go:build lab

package main

import (
	"os"
	"testing"

	"github.com/mellanox/passthrough/test/harness/crash"
)

// TestCrashVFs kills the process at the crash points of creating, attaching and releasing VFs of the guest's first NIC, which is down and
// without VFs before and afterwards, and of attaching the second NIC as a whole. A run takes seconds here, so only a random sample is run.
func TestCrashVFs(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := crash.Environment{Program: []string{self, "driver"}}
	const numvfs = "/sys/class/net/enp1s0/device/sriov_numvfs"
	vf := map[string]string{"netdevice": "enp1s0", "vlan": "100", "privileged": "yes"}
	for _, l := range []struct {
		every    int
		scenario crash.Scenario
	}{
		{80, crash.Scenario{Name: "existing vf", Subnet: "10.5.0.0/24", Options: vf,
			Setup: "ip link set enp1s0 up\necho 2 >" + numvfs + "\nudevadm settle",
			End:   "echo 0 >" + numvfs + "\nip link set enp1s0 down"}},
		{200, crash.Scenario{Name: "created vf", Subnet: "10.5.0.0/24",
			Options: map[string]string{"netdevice": "enp1s0", "vlan": "100", "numvfs": "1"}}},
		{60, crash.Scenario{Name: "whole nic", Subnet: "10.6.0.0/24", Options: map[string]string{"netdevice": "enp2s0", "mode": "passthrough"},
			Setup: "ip link set enp2s0 up\nip addr add 192.0.2.7/24 dev enp2s0",
			End:   "ip addr flush dev enp2s0\nip link set enp2s0 down"}},
		{20, crash.Scenario{Name: "routed ipvlan", Subnet: "10.8.0.0/24", Options: map[string]string{"netdevice": "enp2s0", "mode": "ipvlan",
			"ipvlan_mode": "l3"},
			Setup: "ip link set enp2s0 up", End: "ip link set enp2s0 down"}},
		{300, crash.Scenario{Name: "bond of vfs", Subnet: "10.7.0.0/24", Options: map[string]string{"netdevice": "enp1s0,enp2s0",
			"bond": "active-backup", "vlan": "100"},
			Setup: "for pf in enp1s0 enp2s0; do ip link set $pf up; echo 1 >/sys/class/net/$pf/device/sriov_numvfs; done; udevadm settle",
			End:   "for pf in enp1s0 enp2s0; do echo 0 >/sys/class/net/$pf/device/sriov_numvfs; ip link set $pf down; done"}},
	} {
		t.Run(l.scenario.Name, func(t *testing.T) { crash.AtEveryPoint(t, env.Sampled(t, l.every), l.scenario) })
	}
}
