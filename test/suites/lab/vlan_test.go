//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestUntagged: a network without vlan is untagged, also on a VF that still has the VLAN of another tenant: of one whose ledger was
// lost, or that an administrator has tagged. Its containers reach each other, and not that tenant.
func TestUntagged(t *testing.T) {
	asBefore(t)
	Sh(t, "ip link set "+pf+" up; echo 4 >/sys/class/net/"+pf+"/device/sriov_numvfs; udevadm settle; ip link set "+pf+" vf 0 vlan 100")
	t.Cleanup(func() {
		Sh(t, "echo 0 >/sys/class/net/"+pf+"/device/sriov_numvfs; ip link set "+pf+" down; udevadm settle")
	})
	sriov(t, "plain", "10.66.0.0/24")
	sriov(t, "tenant", "10.67.0.0/24", "-o", "vlan=100")
	Container(t, "one1", "--network", "name=plain,driver-opt=vf=0", "--cap-add", "NET_ADMIN")
	Container(t, "two2", "--net", "plain")
	Container(t, "tenant1", "--net", "tenant")
	if line := vfLine(t, MAC(t, "one1", "plain")); !strings.HasPrefix(line, "vf 0 ") || strings.Contains(line, "vlan") {
		t.Errorf("want vf 0 without a vlan: %s", line)
	}
	Reaches(t, "one1", Address(t, "two2", "plain"), 5*time.Second)
	Exec(t, "one1", "ip", "addr", "add", "10.67.0.99/24", "dev", "eth0")
	CannotReach(t, "one1", Address(t, "tenant1", "tenant"))
	// An administrator's tag is back when the container has gone.
	Docker(t, "rm", "-f", "one1")
	Within(t, 10*time.Second, func() string {
		if vf := Sh(t, "ip link show "+pf+" | grep 'vf 0 '"); !strings.Contains(vf, "vlan 100") {
			return "vf 0 had vlan 100, and has " + vf
		}
		return ""
	})
}

// TestChangedOnHost: what is changed on the host of a VF that a container has: VLAN and spoof check are as they were within a
// minute, and the tenants stay apart.
func TestChangedOnHost(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "vlan=100", "-o", "numvfs=2")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--net", "n")
	Reaches(t, "one1", Address(t, "two2", "n"), 5*time.Second)
	mac := MAC(t, "one1", "n")
	vf := strings.Fields(vfLine(t, mac))[1]
	Sh(t, "ip link set "+pf+" vf "+vf+" vlan 200; ip link set "+pf+" vf "+vf+" spoofchk off")
	Within(t, 75*time.Second, func() string {
		if line := vfLine(t, mac); !strings.Contains(line, "vlan 100") || !strings.Contains(line, "spoof checking on") {
			return line
		}
		return ""
	})
	Reaches(t, "one1", Address(t, "two2", "n"), 10*time.Second)
}
