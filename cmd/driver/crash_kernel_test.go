//go:build kernel

package main

import (
	"os"
	"testing"

	"github.com/mellanox/passthrough/test/harness/crash"
)

// veth is a device that can be lent whole: one end of a pair, in use by the host.
const veth = `ip link add tap0 address 02:00:00:00:00:01 type veth peer name tap1 address 02:00:00:00:00:02
ip link set tap1 up
ip link set tap0 up mtu 1400
ip addr add 192.0.2.7/24 dev tap0
ip route add 198.51.100.0/24 via 192.0.2.1 dev tap0
`

// TestCrash kills the process at every crash point, with devices that every kernel has.
func TestCrash(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	env := crash.Environment{Program: []string{self, "driver"}, Private: true}.Sampled(t, 1)
	for _, scenario := range []crash.Scenario{
		{Name: "whole device", Setup: veth, Subnet: "10.5.0.0/24", Options: map[string]string{"netdevice": "tap0", "mode": "passthrough"}},
		{Name: "macvlan", Setup: veth, Subnet: "10.6.0.0/24", Options: map[string]string{"netdevice": "tap0", "mode": "macvlan"},
			IPAM: map[string]string{"pool": "lan"}},
		{Name: "macvlan with access to the host", Setup: veth, Subnet: "10.7.0.0/24", Aux: map[string]string{"host": "10.7.0.250/24"},
			Options: map[string]string{"netdevice": "tap0", "mode": "macvlan", "host_access": "yes"}},
	} {
		t.Run(scenario.Name, func(t *testing.T) { crash.AtEveryPoint(t, env, scenario) })
	}
}
