//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestProgram runs the commands of the first network in docs/nfv.md. A guest without an IOMMU, as those of test/run are, is refused with the remedy, and stays as it
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

// TestProgramByCDI runs the commands of the second network in docs/nfv.md: an engine that knows CDI gives a container the file of its own VF's group
// and no other's, one start after the other, and the host has its VFs back with the end of the network. test/run has a guest with an IOMMU for it.
func TestProgramByCDI(t *testing.T) {
	if minor := apiMinor(t); minor < 50 {
		t.Skipf("API 1.%d: engines before 28.2 have no CDI, or behind a feature flag", minor)
	}
	asBefore(t)
	t.Cleanup(func() { Sh(t, "modprobe -r vfio-pci") })
	Sh(t, docs.Commands(t, "nfv.md", "The host")[0])
	t.Cleanup(func() {
		_, _ = Try("sh", "-c", "docker rm -f forwarder; docker network rm apart")
		Sh(t, "docker plugin disable -f "+Plugin+" && docker plugin set "+Plugin+" cdi.source=/proc/irq && docker plugin enable "+Plugin+
			" && rm -r /etc/cdi")
	})
	for _, line := range docs.Commands(t, "cdi.md", "The folder") {
		Sh(t, line)
	}
	commands := docs.Commands(t, "nfv.md", "The VF's own file, and no other")
	Sh(t, commands[0])
	vf := Sh(t, "basename $(readlink -f /sys/class/net/"+pf+"/device/virtfn1)")
	group := Sh(t, "basename $(readlink /sys/bus/pci/devices/"+vf+"/iommu_group)")
	bound := "readlink /sys/bus/pci/devices/" + vf + "/driver || echo none"
	Within(t, time.Minute, func() string {
		if spec := Sh(t, "cat /etc/cdi/passthrough-dpdk.json || true"); strings.Count(spec, `"name": "vf`) != 2 {
			return "the spec does not have both vfs: " + spec
		}
		return ""
	})
	for range 2 { // the second container gets the file that the first had
		if files := Sh(t, commands[1]); files != group+"\nvfio" {
			t.Errorf("/dev/vfio of the container has %q, want group %s", files, group)
		}
	}
	const forwarder = "while true; do sleep 1; done 3<>/dev/vfio/"
	Sh(t, strings.Replace(strings.Replace(commands[1], "ls /dev/vfio", "sh -c '"+forwarder+group+"'", 1), "--rm", "-d --name forwarder", 1))
	if line := vfLine(t, MAC(t, "forwarder", "apart")); !strings.Contains(line, "vf 1 ") || !strings.Contains(line, "vlan 200") {
		t.Errorf("the vf of a container whose program has opened the group: %q", line)
	}
	if env := Exec(t, "forwarder", "cat", "/proc/1/environ"); !strings.Contains(env, "PCIDEVICE_MELLANOX_COM_DPDK="+vf) {
		t.Errorf("environment\n%s", env)
	}
	Docker(t, "rm", "-f", "forwarder")
	WantLine(t, Sh(t, bound), "vfio-pci")
	Docker(t, "network", "rm", "apart")
	if is := Sh(t, bound); strings.Contains(is, "vfio-pci") {
		t.Errorf("the network is gone, and %s is bound to %s", vf, is)
	}
}
