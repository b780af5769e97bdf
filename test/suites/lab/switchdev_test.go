//go:build lab

package lab

import (
	"slices"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestBridge runs the commands of docs/switchdev.md for a bridge, with the end of a veth pair as the uplink: it is in the VLANs of the network. The
// network itself is refused, because the NIC of the lab is in legacy mode.
func TestBridge(t *testing.T) {
	asBefore(t)
	t.Cleanup(func() { _, _ = Try("sh", "-c", "ip link del br0; ip link del uplink") })
	Sh(t, "ip link add uplink type veth peer name wire")
	commands := docs.Commands(t, "switchdev.md", "A bridge")
	last := len(commands) - 1
	for _, command := range commands[:last] {
		Sh(t, strings.ReplaceAll(command, "ens1f0np0", "uplink"))
	}
	vlans := strings.Fields(Sh(t, "bridge vlan show dev uplink"))
	for _, vlan := range []string{"100", "200", "201", "202"} {
		if !slices.Contains(vlans, vlan) {
			t.Errorf("the uplink is in the VLANs %s, not in %s", vlans, vlan)
		}
	}
	_, err := Try("sh", "-c", strings.ReplaceAll(commands[last], "ens1f0np0", pf))
	if want := "option bridge: " + pf + " (" + pfPCI + ") is in legacy mode, in which its vfs have no ports on the host"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v, want one with %s", err, want)
	}
}
