//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestProgram runs the commands of docs/nfv.md. A guest without an IOMMU, as those of test/run are, is refused with the remedy, and stays as it
// was. In one with an IOMMU, see docs/lab.md, a container has the VF, with the VLAN and the file of its group, until it ends.
func TestProgram(t *testing.T) {
	asBefore(t)
	t.Cleanup(func() { Sh(t, "modprobe -r vfio-pci") })
	Sh(t, docs.Commands(t, "nfv.md", "The host")[0])
	commands := docs.Commands(t, "nfv.md", "A network")
	t.Cleanup(func() { _, _ = Try("sh", "-c", "docker rm -f forwarder; docker network rm dpdk") })
	if Sh(t, "ls /sys/class/iommu") == "" {
		_, err := Try("sh", "-c", commands[0])
		if err == nil || !strings.Contains(err.Error(), "option driver: "+pf+" ("+pfPCI+"): the machine has no iommu") {
			t.Errorf("without an iommu: %v", err)
		}
		return
	}
	Sh(t, commands[0])
	vf := Sh(t, "basename $(readlink -f /sys/class/net/"+pf+"/device/virtfn0)")
	group := Sh(t, "basename $(readlink /sys/bus/pci/devices/"+vf+"/iommu_group)")
	if files := Sh(t, commands[1]); files != group+"\nvfio" {
		t.Errorf("/dev/vfio of the container has %q, want group %s", files, group)
	}
	Sh(t, strings.Replace(strings.Replace(commands[1], "ls /dev/vfio", "sleep 600", 1), "--rm", "-d --name forwarder", 1))
	driver := func() string { return Sh(t, "basename $(readlink /sys/bus/pci/devices/"+vf+"/driver || echo none)") }
	if line := vfLine(t, MAC(t, "forwarder", "dpdk")); !strings.Contains(line, "vf 0 ") || !strings.Contains(line, "vlan 100") || driver() != "vfio-pci" {
		t.Errorf("%q, bound to %s", line, driver())
	}
	if Address(t, "forwarder", "dpdk") == "" || strings.Count(Exec(t, "forwarder", "ip", "-o", "link"), "\n") > 0 {
		t.Errorf("address %s, links\n%s", Address(t, "forwarder", "dpdk"), Exec(t, "forwarder", "ip", "-o", "link"))
	}
	Docker(t, "rm", "-f", "forwarder")
	Within(t, 5*time.Second, func() string {
		if is := driver(); is != "none" {
			return "the vf is bound to " + is
		}
		return ""
	})
	Docker(t, "network", "rm", "dpdk")
}
