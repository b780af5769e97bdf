//go:build lab

package lab

import (
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// deviceOf is the PCI address of a container's device; the first five figures are those of its PF.
func deviceOf(t *testing.T, container string) string {
	t.Helper()
	return functionOf(t, container, "eth0")
}

// TestPool: a network on two PFs spreads its containers over them, packs them, prefers the PF of a NUMA
// node, and does without a PF for as long as that is gone.
func TestPool(t *testing.T) {
	asBefore(t)
	create := func(options ...string) {
		t.Helper()
		Network(t, "n", append([]string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.1.0.0/24"}, options...)...)
	}
	want := func(container, bus, network string) {
		t.Helper()
		Container(t, container, "--network", network)
		if got := deviceOf(t, container); !strings.HasPrefix(got, "0000:"+bus) {
			t.Errorf("%s has %s, want one on bus %s", container, got, bus)
		}
	}
	create("-o", "netdevice="+pf+","+another, "-o", "numvfs=2")
	want("c1", "01", "name=n")
	want("c2", "02", "name=n")
	want("c3", "01", "name=n,driver-opt=policy=pack")
	want("c4", "02", "name=n")
	if _, err := Try("docker", "run", "--rm", "--net", "n", "lab", "true"); err == nil ||
		!strings.Contains(err.Error(), "all 4 vfs are in use") {
		t.Errorf("a fifth container: %v", err)
	}
	Docker(t, "rm", "-f", "c1", "c2", "c3", "c4")
	Docker(t, "network", "rm", "n")

	// The kernel lets a node be corrected that the firmware has wrong.
	Sh(t, "echo 0 > /sys/bus/pci/devices/0000:02:00.0/numa_node")
	t.Cleanup(func() { Sh(t, "echo -1 > /sys/bus/pci/devices/0000:02:00.0/numa_node") })
	create("-o", "netdevice=driver:igb", "-o", "numvfs=1", "-o", "numa=0")
	want("c1", "02", "n")
	want("c2", "01", "n")

	// A PF that is gone takes only its own VFs along, and brings them back.
	t.Cleanup(func() { replug(t) })
	Run(t, "nic", "unplug", "2")
	Exec(t, "c2", "ip", "link", "show", "eth0")
	_, err := Try("docker", "run", "--rm", "--net", "n", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "all 1 vfs are in use") || !strings.Contains(err.Error(), "0000:02:00.0: no such device") {
		t.Errorf("with one PF gone and the other's VF lent: %v", err)
	}
	Run(t, "nic", "plug", "2")
	Docker(t, "restart", "-t", "0", "c1")
	if got := deviceOf(t, "c1"); !strings.HasPrefix(got, "0000:02") {
		t.Errorf("c1 has %s, want one of the PF that is back", got)
	}
}
