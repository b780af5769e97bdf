//go:build cluster

package main

import (
	"os"
	"runtime"
	"testing"

	"github.com/mellanox/passthrough/test/harness/crash"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// TestCrashEtcd kills the process everywhere while its pools and addresses are in an etcd.
func TestCrashEtcd(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // etcd ends with the thread that started it, and the threads of private namespaces end
	t.Cleanup(runtime.UnlockOSThread)
	const veth = "ip link add tap0 type veth peer name tap1\nip link set tap1 up\nip link set tap0 up"
	macvlan := map[string]string{"netdevice": "tap0", "mode": "macvlan"}
	env := crash.Environment{Program: []string{self, "driver"}, Private: true, Etcd: etcdtest.Start(t, 1)}
	for _, l := range []struct {
		every    int
		scenario crash.Scenario
	}{
		{16, crash.Scenario{Name: "pool", Setup: veth, Subnet: "10.5.0.0/24", Options: macvlan}},
		{16, crash.Scenario{Name: "shared pool", Setup: veth, Subnet: "10.6.0.0/24", Options: macvlan,
			IPAM: map[string]string{"pool": "lan", "sticky": "1h"}}},
		// There are three addresses beside the gateway's. The node prefetches all of them and gives one to the container.
		{60, crash.Scenario{Name: "prefetched addresses", Setup: veth, Subnet: "10.7.0.0/29", Options: macvlan, Leases: 3,
			IPAM: map[string]string{"prefetch": "3", "exclude": "10.7.0.5-10.7.0.6"}}},
		{90, crash.Scenario{Name: "etcd down", Setup: veth, Subnet: "10.8.0.0/24", Options: macvlan, EtcdDown: true,
			IPAM: map[string]string{"pool": "lan"}}},
		{40, crash.Scenario{Name: "owners of a shared pool", Setup: veth, Subnet: "10.9.0.0/24", Options: macvlan, Owners: 2,
			IPAM: map[string]string{"pool": "lan"}}},
		{90, crash.Scenario{Name: "owners, etcd down", Setup: veth, Subnet: "10.10.0.0/24", Options: macvlan, Owners: 1, EtcdDown: true,
			IPAM: map[string]string{"pool": "lan"}}},
	} {
		t.Run(l.scenario.Name, func(t *testing.T) {
			t.Parallel() // they spend most of their time waiting
			crash.AtEveryPoint(t, env.Sampled(t, l.every), l.scenario)
		})
	}
}
