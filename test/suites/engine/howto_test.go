//go:build engine

package engine

import (
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestMoveNetwork runs the commands of docs/how-to.md: a network gets another device and a larger subnet. A container that runs keeps its
// address, and one that is stopped starts afterwards.
func TestMoveNetwork(t *testing.T) {
	veth(t, "enp1s0", "10.9.0.1/28")
	veth(t, "enp2s0", "192.0.2.1/24") // the host can have a route to the subnet on one device
	commands := docs.Commands(t, "../../../docs/how-to.md", "Move a network to another NIC")
	t.Chdir(t.TempDir())
	ours(t, "macvlan", "office", "enp1s0", "10.9.0.0/28")
	Container(t, "web", "--net", "office", "--ip", "10.9.0.5")
	Docker(t, "create", "--name", "spare", "--net", "office", "lab", "sleep", "1000000")
	t.Cleanup(func() { Docker(t, "rm", "-f", "spare") })
	for _, command := range commands {
		Sh(t, command)
	}
	if address := Address(t, "web", "office"); address != "10.9.0.5" {
		t.Errorf("web has %s, want its address", address)
	}
	Docker(t, "start", "spare")
	Reaches(t, "web", Address(t, "spare", "office"), 5*time.Second)
	Sh(t, "ip addr del 10.9.0.1/28 dev enp1s0p && ip addr add 10.9.0.1/24 dev enp2s0p")
	Reaches(t, "web", "10.9.0.1", 5*time.Second)
}
