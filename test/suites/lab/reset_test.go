//go:build lab

package lab

import (
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// restarted restarts a container until it runs; each refusal must say what is wrong.
func restarted(t *testing.T, container string, reasons *regexp.Regexp) {
	t.Helper()
	Within(t, time.Minute, func() string {
		_, err := Try("docker", "restart", "-t1", container)
		if err == nil {
			return ""
		}
		if !reasons.MatchString(err.Error()) {
			t.Errorf("docker restart %s: %v\nwant a reason like %s", container, err, reasons)
		}
		return err.Error()
	})
}

// TestVFReset: a function-level reset of a VF that a container has, as a VM monitor or an administrator starts it: the VF comes back by
// itself, in its VLAN, and serves the next container. On Linux 6.1 igbvf does not handle resets (igbvf_err_handler has no reset_done): the
// container has to be started again.
func TestVFReset(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "vlan=10", "-o", "numvfs=2")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--net", "n")
	other, mac := Address(t, "two2", "n"), MAC(t, "one1", "n")
	Reaches(t, "one1", other, 5*time.Second)
	Sh(t, "echo 1 >/sys/bus/pci/devices/0000:01:10.0/reset")
	if !strings.HasPrefix(Sh(t, "uname -r"), "6.1.") {
		Reaches(t, "one1", other, 20*time.Second)
	}
	if line := vfLine(t, mac); !strings.Contains(line, "vlan 10") || !strings.Contains(line, "spoof checking on") {
		t.Errorf("after the reset: %s", line)
	}
	Docker(t, "restart", "-t1", "one1")
	Reaches(t, "one1", other, 5*time.Second)
	Sh(t, "echo 1 >/sys/bus/pci/devices/0000:01:10.0/reset") // and once more, as it comes home
	Docker(t, "rm", "-f", "one1")
	Docker(t, "run", "--rm", "--net", "n", "lab", "ip", "link", "show", "eth0")
}

// isNamed checks that status and explain soon say that a container is without its device, why, and what to do.
func isNamed(t *testing.T, container, why string) {
	t.Helper()
	want := regexp.MustCompile(container + ` is without vf \d of ` + pf + ` \(.*\), which ` + why + `; give it another: docker restart ` + container)
	Within(t, 20*time.Second, func() string {
		for _, command := range []string{"status", "explain " + container} {
			if out := Sh(t, "./passthroughctl "+command); !want.MatchString(out) {
				return command + " has no " + want.String() + ":\n" + out
			}
		}
		return ""
	})
}

// TestPFReset: a reset of the PF resets its VFs, and their drivers do not notice. What the PF has lost of its VFs is set again for containers
// that run: igb loses nothing, so the test does that in its place. The containers, which are named, have no network until they are started
// again, which the plugin gives them a VF for that works.
func TestPFReset(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "vlan=10", "-o", "trust=yes", "-o", "numvfs=3")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--net", "n")
	Reaches(t, "one1", Address(t, "two2", "n"), 5*time.Second)
	Sh(t, "echo 1 >/sys/bus/pci/devices/"+pfPCI+"/reset; for vf in 0 1; do ip link set "+pf+" vf $vf vlan 0 spoofchk off trust off; done")
	for _, c := range []string{"one1", "two2"} {
		mac := MAC(t, c, "n")
		Within(t, 20*time.Second, func() string {
			if line := vfLine(t, mac); !strings.Contains(line, "vlan 10,") || !strings.Contains(line, "spoof checking on") || !strings.Contains(line, "trust on") {
				return "after the reset " + c + " has " + line
			}
			return ""
		})
		isNamed(t, c, "does nothing: its pf was reset, which its driver has not noticed")
	}
	// On an emulated processor igbvf waits for the PF longer than the engine waits for the plugin.
	reasons := regexp.MustCompile(`took longer than 20s and is left to finish|vf \d of ` + pf + ` .*: |all 3 vfs are in use`)
	restarted(t, "one1", reasons)
	restarted(t, "two2", reasons)
	Reaches(t, "one1", Address(t, "two2", "n"), 20*time.Second)
	Container(t, "three", "--net", "n")
	Reaches(t, "three", Address(t, "two2", "n"), 20*time.Second)
	if n := lent(t); n != "3" {
		t.Errorf("%s vfs are lent, want 3", n)
	}
	for _, c := range []string{"one1", "two2", "three"} {
		if line := vfLine(t, MAC(t, c, "n")); !strings.Contains(line, "vlan 10") {
			t.Errorf("%s: %s", c, line)
		}
	}
}

// TestDriverReloaded: the PFs' driver is unloaded and loaded again with containers running. The VFs go, and are made again for the
// containers that start. In between a start says what is missing.
func TestDriverReloaded(t *testing.T) {
	asBefore(t)
	t.Cleanup(func() { Sh(t, "modprobe igb; udevadm settle") })
	sriov(t, "n", "10.1.0.0/24", "-o", "vlan=10", "-o", "numvfs=2")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--net", "n", "--ip", "10.1.0.77")
	Reaches(t, "one1", "10.1.0.77", 5*time.Second)
	Sh(t, "rmmod igb")
	if links := Exec(t, "one1", "ip", "-o", "link"); strings.Contains(links, "eth0") {
		t.Errorf("a VF outlives its PF's driver: %s", links)
	}
	isNamed(t, "one1", "is gone, with the driver of its pf or with the nic")
	id := Docker(t, "network", "inspect", "-f", "{{.Id}}", "n")[:12]
	Refused(t, "network "+id+": "+pfPCI+": it has no driver, and thus no netdev; load the driver, or bind it: echo "+pfPCI+
		" >/sys/bus/pci/drivers_probe", "run", "--rm", "--net", "n", "lab", "true")
	Sh(t, "modprobe igb; udevadm settle")
	none := regexp.MustCompile(`^$`)
	restarted(t, "one1", none)
	restarted(t, "two2", none)
	Reaches(t, "one1", "10.1.0.77", 20*time.Second)
	if line := vfLine(t, MAC(t, "two2", "n")); !strings.Contains(line, "vlan 10") {
		t.Errorf("two2: %s", line)
	}
}
