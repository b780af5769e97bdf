//go:build lab

package lab

import (
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/load"
)

// TestLoad starts and stops containers on all VFs of the NIC, one more than there are, and a few on thin children of it, all at
// the same time. Many children are test/suites/engine's: in an emulated machine most of the time would be the engine's own.
func TestLoad(t *testing.T) {
	const vfs, children = 7, 12
	asBefore(t)
	Sh(t, "ip link set "+pf+" up")
	t.Cleanup(func() { Sh(t, "ip link set "+pf+" down") })
	sriov(t, "vfs", "10.1.0.0/24", "-o", "vlan=10")
	Network(t, "thin", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6.0.0/24", "-o", "netdevice="+pf, "-o", "mode=macvlan")
	load.Batch{
		On:      map[string]int{"vfs": vfs + 1, "thin": children},
		TooMany: 1,
		Refusal: "all 7 vfs are in use",
	}.Run(t, load.Number(t, "LOAD_ROUNDS", 3))
}
