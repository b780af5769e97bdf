//go:build lab

package lab

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestQuickStart: with the plain binary the commands of docker-passthrough-plugin work as they were documented, on a NIC that is called
// ens2f0: -d passthrough, and no IPAM driver. Docker's own refuses the second tenant's subnet; with one more option both have it.
func TestQuickStart(t *testing.T) {
	asBefore(t)
	plain(t, "-d", "--devices", "ens2f0="+pf)
	Nginx(t)
	const (
		customer1 = "-d passthrough --subnet=194.168.1.0/24 -o netdevice=ens2f0 -o mode=sriov -o vlan=100"
		customer2 = "-d passthrough --subnet=194.168.1.0/24 -o netdevice=ens2f0 -o mode=sriov -o vlan=200"
	)
	Network(t, "customer1", strings.Fields(customer1)...)
	if _, err := Try("sh", "-c", "docker network create "+customer2+" customer2"); err == nil ||
		!strings.Contains(err.Error(), "Pool overlaps with other one on this address space") {
		t.Errorf("the second tenant without an IPAM driver: %v", err)
	}
	Network(t, "customer2", strings.Fields(customer2+" --ipam-driver passthrough")...)
	Docker(t, strings.Fields("run --net=customer1 -itd --name=web nginx")...)
	web := Address(t, "web", "customer1")
	Container(t, "near", "--net", "customer1")
	Container(t, "far", "--net", "customer2", "--ip", "194.168.1.99")
	Reaches(t, "near", web, 10*time.Second)
	CannotReach(t, "far", web)
	if line := vfLine(t, MAC(t, "web", "customer1")); !strings.Contains(line, "vlan 100,") || !strings.Contains(line, "spoof checking on") {
		t.Errorf("web has %s", line)
	}

	Docker(t, "rm", "-f", "web", "near")
	Docker(t, "network", "rm", "customer1")
	Docker(t, strings.Fields("network create "+customer1+" -o privileged=1 customer1")...)
	Docker(t, strings.Fields("run --net=customer1 -itd --name=web nginx")...)
	line := vfLine(t, MAC(t, "web", "customer1"))
	if !strings.Contains(line, "vlan 100,") || !strings.Contains(line, "spoof checking off") || !strings.Contains(line, "trust on") {
		t.Errorf("web with privileged=1 has %s", line)
	}
}

// plain runs the plugin as a process that the engine knows as passthrough, until the test ends. The managed plugin is not there
// meanwhile: to the engine passthrough is passthrough:latest, too.
func plain(t *testing.T, flags ...string) {
	t.Helper()
	Docker(t, "plugin", "rm", "-f", Plugin)
	t.Cleanup(func() {
		if err := Install("plugin"); err != nil {
			t.Fatal(err)
		}
	})
	cmd := exec.Command("plugin/rootfs/driver", append(flags, "--state-dir", t.TempDir())...)
	Process(t, cmd, "/run/docker/plugins/passthrough.sock")
}
