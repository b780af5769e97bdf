//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// replug puts the second NIC back, if a test has left it out. It comes back as the machine's start has made it: down.
func replug(t *testing.T) {
	t.Helper()
	if _, err := Try("ip", "link", "show", another); err != nil {
		Run(t, "nic", "plug", "2")
	}
}

// TestUnplugged: a NIC is taken out with a container on one of its VFs. The other NIC's containers do not notice; the
// network of the one that is gone says so, and works again once it is back. Nothing of what is gone is left.
func TestUnplugged(t *testing.T) {
	asBefore(t)
	t.Cleanup(func() { replug(t) })
	sriov(t, "stays", "10.1.0.0/24", "-o", "numvfs=3", "-o", "vlan=10")
	Network(t, "goes", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.2.0.0/24", "-o", "netdevice="+another, "-o", "numvfs=2",
		"-o", "vlan=20", "-o", "privileged=yes")
	for _, c := range [][2]string{{"one1", "stays"}, {"two2", "stays"}, {"three", "goes"}, {"four", "goes"}} {
		Container(t, c[0], "--net", c[1])
	}
	Reaches(t, "one1", Address(t, "two2", "stays"), 5*time.Second)
	Reaches(t, "three", Address(t, "four", "goes"), 5*time.Second)

	Run(t, "nic", "unplug", "2")
	if links := Exec(t, "three", "ip", "-o", "link"); strings.Contains(links, "eth0") {
		t.Errorf("the VF outlives its NIC: %s", links)
	}
	Reaches(t, "one1", Address(t, "two2", "stays"), 5*time.Second)
	goes := Docker(t, "network", "inspect", "-f", "{{.Id}}", "goes")[:12]
	Refused(t, "network "+goes+": 0000:02:00.0: no such device", "run", "--rm", "--net", "goes", "lab", "true")
	Docker(t, "run", "--rm", "--net", "stays", "lab", "ip", "link", "show", "eth0")
	Docker(t, "rm", "-f", "three")

	Run(t, "nic", "plug", "2")
	Container(t, "five", "--net", "goes")
	Docker(t, "restart", "-t1", "four")
	Reaches(t, "five", Address(t, "four", "goes"), 5*time.Second)
	if n := Sh(t, "cat /sys/class/net/"+another+"/device/sriov_numvfs"); n != "2" {
		t.Errorf("it has %s VFs now, want the 2 that the network was made with", n)
	}
	// Engine 28 lists them at the end of the message, others have the network's ID in it.
	if out, err := Try("docker", "network", "rm", "goes"); err == nil || !strings.Contains(err.Error(), "has active endpoints") {
		t.Errorf("a network with containers is removed: %s, %v", out, err)
	}
}

// TestUnpluggedForGood: containers and networks of a NIC that does not come back can be removed.
func TestUnpluggedForGood(t *testing.T) {
	asBefore(t)
	t.Cleanup(func() { replug(t) })
	Network(t, "vfs", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.2.0.0/24", "-o", "netdevice="+another, "-o", "numvfs=2")
	Container(t, "one1", "--net", "vfs")
	Container(t, "two2", "--net", "vfs")
	Run(t, "nic", "unplug", "2")
	Docker(t, "stop", "-t1", "one1")
	Docker(t, "rm", "-f", "one1", "two2")
	Docker(t, "network", "rm", "vfs")

	Run(t, "nic", "plug", "2")
	whole(t)
	t.Cleanup(func() { replug(t) }) // before what it has configured is taken back
	Container(t, "three", "--net", "whole")
	Run(t, "nic", "unplug", "2")
	Docker(t, "rm", "-f", "three")
	Docker(t, "network", "rm", "whole")
}
