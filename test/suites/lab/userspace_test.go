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

// apartNetwork makes the second network in docs/nfv.md, and returns the commands of its section, without the first. Both VFs are in its spec.
func apartNetwork(t *testing.T) []string {
	t.Helper()
	if minor := apiMinor(t); minor < 50 {
		t.Skipf("API 1.%d: engines before 28.2 have no CDI, or behind a feature flag", minor)
	}
	asBefore(t)
	t.Cleanup(func() { Sh(t, "modprobe -r vfio-pci") })
	Sh(t, docs.Commands(t, "nfv.md", "The host")[0])
	t.Cleanup(func() {
		_, _ = Try("sh", "-c", "docker rm -f forwarder sink source; docker network rm apart")
		Sh(t, "docker plugin disable -f "+Plugin+" && docker plugin set "+Plugin+" cdi.source=/proc/irq && docker plugin enable "+Plugin+
			" && rm -r /etc/cdi")
	})
	for _, line := range docs.Commands(t, "cdi.md", "The folder") {
		Sh(t, line)
	}
	commands := docs.Commands(t, "nfv.md", "The VF's own file, and no other")
	Sh(t, commands[0])
	Within(t, time.Minute, func() string {
		if spec := Sh(t, "cat /etc/cdi/passthrough-dpdk.json || true"); strings.Count(spec, `"name": "vf`) != 2 {
			return "the spec does not have both vfs: " + spec
		}
		return ""
	})
	return commands[1:]
}

// TestProgramByCDI runs the commands of the second network in docs/nfv.md: an engine that knows CDI gives a container the file of its own VF's group
// and no other's, one start after the other, and the host has its VFs back with the end of the network. test/run has a guest with an IOMMU for it.
func TestProgramByCDI(t *testing.T) {
	start := apartNetwork(t)[0]
	vf := Sh(t, "basename $(readlink -f /sys/class/net/"+pf+"/device/virtfn1)")
	group := Sh(t, "basename $(readlink /sys/bus/pci/devices/"+vf+"/iommu_group)")
	bound := "readlink /sys/bus/pci/devices/" + vf + "/driver || echo none"
	for range 2 { // the second container gets the file that the first had
		if files := Sh(t, start); files != group+"\nvfio" {
			t.Errorf("/dev/vfio of the container has %q, want group %s", files, group)
		}
	}
	const forwarder = "while true; do sleep 1; done 3<>/dev/vfio/"
	Sh(t, strings.Replace(strings.Replace(start, "ls /dev/vfio", "sh -c '"+forwarder+group+"'", 1), "--rm", "-d --name forwarder", 1))
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

// TestProgramTestpmd runs the commands of the section on testpmd in docs/nfv.md: DPDK in one container sends through its VF to DPDK in another, also
// while the plugin is killed and started again.
func TestProgramTestpmd(t *testing.T) {
	apartNetwork(t)
	Sh(t, strings.Join(docs.Commands(t, "nfv.md", "Two containers with testpmd"), "\n"))
	received := func() string {
		return Sh(t, "docker logs sink 2>&1 | sed -n 's/ *RX-packets: \\([0-9]*\\).*/\\1/p' | tail -n 1")
	}
	more := func(than string) string {
		t.Helper()
		var now string
		Within(t, time.Minute, func() string {
			if now = received(); now == "" || now == "0" || now == than {
				return "sink has received " + now + " packets\n" + Sh(t, "docker logs --tail 30 sink 2>&1; docker logs --tail 30 source 2>&1")
			}
			return ""
		})
		return now
	}
	first := more("0")
	Sh(t, "kill -9 $(pidof driver)")
	more(more(first)) // the last line may be from before
	for _, name := range []string{"sink", "source"} {
		if ports := Sh(t, "docker logs "+name+" 2>&1 | grep -c 'Configuring Port'"); ports != "1" {
			t.Errorf("%s has found %s ports", name, ports)
		}
	}
	Docker(t, "rm", "-f", "sink", "source")
	Docker(t, "network", "rm", "apart")
}
