//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// inUse waits until every bond in the host uses a port of that name's PF.
func inUse(t *testing.T, pf string) {
	t.Helper()
	Within(t, 30*time.Second, func() string {
		out := Sh(t, "grep -h 'Currently Active Slave' /proc/net/bonding/*")
		for _, line := range strings.Split(out, "\n") {
			if !strings.Contains(line, ": "+pf+"v") {
				return "want ports of " + pf + " in use:\n" + out
			}
		}
		return ""
	})
}

// TestBondOfVFs: containers on bonds of one VF of each PF go on reaching each other when the PF in use goes down, and use
// it again when it is back; nothing is left of the bonds afterwards, also when the engine was killed. (QEMU's igb does not
// tell its VFs that the cable was pulled.)
func TestBondOfVFs(t *testing.T) {
	asBefore(t)
	Network(t, "n", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.1.0.0/24", "-o", "netdevice="+pf+","+another,
		"-o", "bond=active-backup", "-o", "vlan=100", "-o", "numvfs=2")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--net", "n", "--restart=always")
	other := Address(t, "two2", "n")
	Reaches(t, "one1", other, 10*time.Second)
	if in, told := Exec(t, "one1", "cat", "/sys/class/net/eth0/address"), MAC(t, "one1", "n"); in != told {
		t.Errorf("eth0 has %s, docker says %s", in, told)
	}
	if links := Exec(t, "one1", "ip", "-o", "link"); strings.Count(links, "\n") != 1 {
		t.Errorf("the container has more than lo and eth0:\n%s", links)
	}
	inUse(t, pf)
	Sh(t, "ip link set "+pf+" down")
	Reaches(t, "one1", other, 20*time.Second)
	inUse(t, another)
	Sh(t, "ip link set "+pf+" up")
	inUse(t, pf)
	Reaches(t, "one1", other, 20*time.Second)

	Run(t, "engine", "kill")
	Run(t, "engine", "start")
	Within(t, 20*time.Second, func() string {
		if up := Inspect(t, "two2", "{{.State.Running}}"); up != "true" {
			return "the container with restart=always is not running"
		}
		return ""
	})
	Docker(t, "start", "one1")
	Reaches(t, "one1", Address(t, "two2", "n"), 20*time.Second)
}
