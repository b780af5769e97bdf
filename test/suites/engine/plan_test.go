//go:build engine

package engine

import (
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestPlanNetwork: a plan of a network says what docker network create does, or with which error it ends, and changes nothing.
func TestPlanNetwork(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	const state = "ip -d -o link | sed 's/<.*> //; s/ state [A-Z]*//; s/ qlen.*//'; docker network ls -q; ../../../bin/passthroughctl pools; ../../../bin/passthroughctl status"
	args := func(options ...string) []string {
		return append([]string{"network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.20.0.0/28", "--gateway", "10.20.0.1"}, options...)
	}
	lan := args("-o", "netdevice=pt0", "-o", "mode=macvlan", "lan")

	before := Sh(t, state)
	out := ctl(t, append([]string{"plan", "docker"}, lan...)...)
	WantLine(t, out, "network", "lan, mode macvlan, on pt0")
	WantLine(t, out, "pool", "10.20.0.0/28, 13 of 14 addresses are free for containers")
	WantLine(t, out, "gateway", "10.20.0.1")
	WantLine(t, out, "then", "pt0 stays in the host; each container gets a device of kind macvlan on it")
	if now := Sh(t, state); now != before {
		t.Errorf("a plan changed the machine from\n%s\nto\n%s", before, now)
	}
	Network(t, "lan", lan[2:len(lan)-1]...)
	WantLine(t, ctl(t, "pools"), "10.20.0.0/28", "10.20.0.1", "1/14")

	before = Sh(t, state)
	for _, refused := range [][]string{
		args("-o", "netdevice=pt0", "-o", "mode=passthrough", "x"),
		args("-o", "netdevice=pt0", "-o", "mode=ipvlan", "x"),
		args("-o", "netdevice=nosuch", "x"),
		args("-o", "netdevice=pt0", "-o", "mode=macvlan", "-o", "mtu=9000", "x"),
		args("-o", "netdevice=pt0", "-o", "mode=macvlan", "--ipam-opt", "excluded=10.20.0.9", "x"),
		args("-o", "netdevise=pt0", "x"),
	} {
		_, err := Try("../../../bin/passthroughctl", append([]string{"plan"}, refused...)...)
		if err == nil {
			t.Errorf("a plan of %s is not refused", strings.Join(refused, " "))
			continue
		}
		why, ok := strings.CutPrefix(err.Error(), "passthroughctl: refused: ")
		if !ok {
			t.Errorf("a plan of %s: %v", strings.Join(refused, " "), err)
		}
		Refused(t, why, refused...)
	}
	if now := Sh(t, state); now != before {
		t.Errorf("what was refused changed the machine from\n%s\nto\n%s", before, now)
	}
	_, err := Try("../../../bin/passthroughctl", append([]string{"plan"}, lan...)...)
	if err == nil || err.Error() != "passthroughctl: network with name lan already exists" {
		t.Errorf("a plan of a network that is there: %v", err)
	}
	Refused(t, "network with name lan already exists", lan...)
}
