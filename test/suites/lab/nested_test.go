//go:build lab

package lab

import (
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestNested: macvlans and ipvlans on a VF, each for a container of its own. The VF is trusted, so that the NIC lets it receive for other
// MACs than its own.
func TestNested(t *testing.T) {
	asBefore(t)
	Sh(t, "ip link set "+pf+" up; echo 4 > /sys/class/net/"+pf+"/device/sriov_numvfs; udevadm settle; ip link set "+pf+" vf 3 trust on; "+
		"ip link set "+pf+"v3 up")
	t.Cleanup(func() {
		Sh(t, "echo 0 > /sys/class/net/"+pf+"/device/sriov_numvfs; ip link set "+pf+" down; udevadm settle")
	})
	sriov(t, "vfs", "10.6.0.0/24")
	Container(t, "vf11", "--net", "vfs", "--ip", "10.6.0.99")
	for _, mode := range []string{"macvlan", "ipvlan"} {
		Network(t, mode+"s", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6.0.0/24", "-o", "netdevice="+pf+"v3", "-o", "mode="+mode)
		Container(t, "one1", "--net", mode+"s")
		Container(t, "two2", "--net", mode+"s")
		Reaches(t, "one1", Address(t, "two2", mode+"s"), 5*time.Second)
		Reaches(t, "two2", "10.6.0.99", 5*time.Second)
		Reaches(t, "vf11", Address(t, "one1", mode+"s"), 5*time.Second)
		Docker(t, "rm", "-f", "one1", "two2")
		Docker(t, "network", "rm", mode+"s")
	}
}
