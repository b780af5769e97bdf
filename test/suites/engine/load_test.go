//go:build engine

package engine

import (
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/load"
)

// TestLoad starts and stops containers on children of one device, all at the same time: as many as LOAD_CHILDREN says, again and
// again, LOAD_ROUNDS times.
func TestLoad(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/22")
	Sh(t, "ip link set pt0 up")
	Network(t, "thin", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.20.0.0/22", "--gateway", "10.20.0.1",
		"-o", "netdevice=pt0", "-o", "mode=macvlan")
	load.Batch{On: map[string]int{"thin": load.Number(t, "LOAD_CHILDREN", 25)}}.Run(t, load.Number(t, "LOAD_ROUNDS", 3))
}
