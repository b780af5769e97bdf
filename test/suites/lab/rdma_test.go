//go:build lab

package lab

import (
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestRDMA: passthroughctl finds the device of rdma_rxe at the PF that it is made on, and says what the mode of namespaces means. A container
// whose VF has no RDMA device does not start with rdma=yes. The commands of docs/hpc.md show the plugin the network namespaces of containers.
func TestRDMA(t *testing.T) {
	asBefore(t)
	Sh(t, "modprobe rdma_rxe && modprobe ib_uverbs && rdma link add rxe0 type rxe netdev "+pf)
	t.Cleanup(func() { Sh(t, "rdma link delete rxe0") })
	sriov(t, "hpc", "10.1.0.0/24", "-o", "numvfs=3", "-o", "rdma=yes")

	WantLine(t, Sh(t, "./passthroughctl nics"), pf, "rxe0")
	WantLine(t, Sh(t, "./passthroughctl nics -f json"), `"uverbs0"`)
	WantLine(t, Sh(t, "./passthroughctl status"), "hpc", "rxe0")
	WantLine(t, Sh(t, "./passthroughctl doctor"), "warn", "netns mode is shared: with /dev/infiniband, containers of network hpc see all 1 RDMA devices")
	if _, err := Try("docker", "run", "--rm", "--net", "hpc", "lab", "true"); err == nil || !strings.Contains(err.Error(), "has no rdma device; the option rdma is yes") {
		t.Errorf("a VF without RDMA device: %v", err)
	}
	out, err := Try("docker", "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.2.0.0/24", "-o", "netdevice="+pf, "-o", "rdma=require", "own")
	if err == nil || !strings.Contains(err.Error(), "write options ib_core netns_mode=0 to /etc/modprobe.d/ib_core.conf") {
		t.Errorf("a device of its own in shared mode: %s %v", out, err)
	}

	t.Cleanup(func() {
		Docker(t, "plugin", "disable", "-f", Plugin)
		Docker(t, "plugin", "set", Plugin, "netns.source=/proc/irq")
		Docker(t, "plugin", "enable", Plugin)
	})
	for _, command := range docs.Commands(t, "hpc.md", "Exclusive mode") {
		Sh(t, command)
	}
	sriov(t, "plain", "10.3.0.0/24")
	Container(t, "c1", "--net", "plain")
	ns := Docker(t, "inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "c1")
	WantLine(t, Sh(t, "cat /proc/$(pidof -s driver)/mountinfo"), "/host/netns"+ns[strings.LastIndex(ns, "/"):], "nsfs")
}
