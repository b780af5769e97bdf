//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestEngineKilled: dockerd is killed with containers on VFs and on a whole device, and started again: containers that
// restart have their network, the devices of the others are in the host again as they were.
func TestEngineKilled(t *testing.T) {
	asBefore(t)
	sriov(t, "vfs", "10.1.0.0/24", "-o", "numvfs=2", "-o", "vlan=9")
	whole(t)
	const state = "ip -o addr show scope global dev " + another + "; ip route show dev " + another
	before := Sh(t, state)
	Container(t, "always", "--net", "vfs", "--restart=always")
	Container(t, "never", "--net", "vfs")
	Container(t, "whole", "--net", "whole")
	mac := MAC(t, "never", "vfs")
	Run(t, "engine", "kill")
	Run(t, "engine", "start")
	Within(t, 20*time.Second, func() string {
		if up := Inspect(t, "always", "{{.State.Running}}"); up != "true" {
			return "the container with restart=always is not running"
		}
		return ""
	})
	Exec(t, "always", "ip", "link", "show", "eth0")
	Within(t, 20*time.Second, func() string {
		if line := vfLine(t, mac); strings.Contains(line, "vlan") && lent(t) != "1" {
			return "the free vf is left as " + line
		}
		if now, _ := Try("sh", "-c", state); now != before {
			return another + " has\n" + now + "\nbut had\n" + before
		}
		return ""
	})
	Docker(t, "start", "never")
	Docker(t, "start", "whole")
	Reaches(t, "never", Address(t, "always", "vfs"), 5*time.Second)
	_, err := Try("docker", "run", "--rm", "--net", "vfs", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "all 2 vfs are in use") {
		t.Errorf("a third container on two vfs: %v", err)
	}
}

// TestLiveRestore: after an orderly restart a container has a VF again. From then on the engine goes and comes with its containers
// running; their VFs stay theirs, and come back.
func TestLiveRestore(t *testing.T) {
	asBefore(t)
	t.Cleanup(func() { Sh(t, "engine stop && rm -f /run/dockerd.options && engine start") })
	sriov(t, "vfs", "10.1.0.0/24", "-o", "numvfs=2")
	Container(t, "one1", "--net", "vfs", "--restart=always")
	Run(t, "engine", "restart", "--live-restore")
	Within(t, 20*time.Second, func() string {
		if _, err := Try("docker", "exec", "one1", "ip", "link", "show", "eth0"); err != nil {
			return "the container has no eth0: " + err.Error()
		}
		return ""
	})
	Run(t, "engine", "kill")
	Run(t, "engine", "start", "--live-restore")
	Container(t, "two2", "--net", "vfs")
	Reaches(t, "one1", Address(t, "two2", "vfs"), 5*time.Second)
	Docker(t, "rm", "-f", "one1")
	Container(t, "three", "--net", "vfs")
	Reaches(t, "three", Address(t, "two2", "vfs"), 5*time.Second)
}

// TestPluginRestarted: with containers running the plugin is switched off and on, and killed. What is in use is not
// handed out again, and everything can be stopped, started, inspected and removed.
func TestPluginRestarted(t *testing.T) {
	asBefore(t)
	sriov(t, "vfs", "10.1.0.0/24", "-o", "numvfs=3")
	Container(t, "one1", "--net", "vfs")
	Docker(t, "plugin", "disable", "-f", Plugin)
	Docker(t, "plugin", "enable", Plugin)
	Container(t, "two2", "--net", "vfs")
	Reaches(t, "two2", Address(t, "one1", "vfs"), 5*time.Second)
	Sh(t, "kill -9 $(pidof driver)")
	Container(t, "three", "--net", "vfs")
	Reaches(t, "three", Address(t, "one1", "vfs"), 5*time.Second)
	Docker(t, "stop", "-t1", "one1")
	Docker(t, "start", "one1")
	Reaches(t, "three", Address(t, "one1", "vfs"), 5*time.Second)
	if a, b := Address(t, "one1", "vfs"), Address(t, "two2", "vfs"); a == b {
		t.Errorf("both have %s", a)
	}
	Docker(t, "network", "inspect", "vfs")
}

// TestRemovedWhileOff: a container that is removed while the plugin is off gives its VF back all the same: the engine
// never says so, the device does. It takes three times 15 seconds in which the engine calls a plugin that is not there.
func TestRemovedWhileOff(t *testing.T) {
	asBefore(t)
	sriov(t, "vfs", "10.1.0.0/24", "-o", "numvfs=1")
	Container(t, "one1", "--net", "vfs")
	Docker(t, "plugin", "disable", "-f", Plugin)
	Docker(t, "rm", "-f", "one1")
	Docker(t, "plugin", "enable", Plugin)
	Docker(t, "network", "rm", "vfs") // its VF goes with it
}

// TestPluginRemoved: the plugin is removed with containers on VFs and on a whole device running, and installed again with the folder of the host
// that has its records. Containers go on, VFs in use are not given out again, and all can be stopped and started.
func TestPluginRemoved(t *testing.T) {
	const folder = "/var/lib/passthrough-plugin"
	asBefore(t)
	t.Cleanup(func() {
		Sh(t, "docker plugin rm -f "+Plugin+"; rm -rf "+folder)
		if err := Install("plugin"); err != nil {
			t.Fatal(err)
		}
	})
	sriov(t, "vfs", "10.1.0.0/24", "-o", "numvfs=3", "-o", "vlan=9")
	whole(t)
	Container(t, "one1", "--net", "vfs")
	Container(t, "whole", "--net", "whole")
	Sh(t, "mkdir -p -m 700 "+folder)
	Docker(t, "plugin", "disable", "-f", Plugin)
	Docker(t, "plugin", "set", Plugin, "state.source="+folder)
	Docker(t, "plugin", "enable", Plugin)
	Container(t, "two2", "--net", "vfs")

	Docker(t, "plugin", "rm", "-f", Plugin)
	Reaches(t, "two2", Address(t, "one1", "vfs"), 5*time.Second)
	Docker(t, "plugin", "create", Plugin, "plugin")
	Docker(t, "plugin", "set", Plugin, "state.source="+folder)
	Docker(t, "plugin", "enable", Plugin)
	Reaches(t, "two2", Address(t, "one1", "vfs"), 5*time.Second)
	Container(t, "three", "--net", "vfs")
	if n := lent(t); n != "3" {
		t.Errorf("%s vfs are in containers, want 3", n)
	}
	addresses := map[string]bool{Address(t, "one1", "vfs"): true, Address(t, "two2", "vfs"): true, Address(t, "three", "vfs"): true}
	if len(addresses) != 3 {
		t.Errorf("three containers have the addresses %v", addresses)
	}
	_, err := Try("docker", "run", "--rm", "--net", "vfs", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "all 3 vfs are in use") {
		t.Errorf("a fourth container on three vfs: %v", err)
	}
	for _, name := range []string{"one1", "whole"} {
		Docker(t, "stop", "-t1", name)
		Docker(t, "start", name)
	}
	Reaches(t, "three", Address(t, "one1", "vfs"), 5*time.Second)
	if line := vfLine(t, MAC(t, "one1", "vfs")); !strings.Contains(line, "vlan 9") {
		t.Errorf("the vf of one1 is %s", line)
	}
}
