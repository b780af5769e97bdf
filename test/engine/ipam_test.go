//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/dockertest"
)

// TestIPAMForBridge: our addresses for Docker's own bridge driver, and a gateway, which it cannot be without.
func TestIPAMForBridge(t *testing.T) {
	Network(t, "br", "-d", "bridge", "--ipam-driver", Plugin, "--subnet", "10.50.0.0/24")
	Container(t, "b1", "--net", "br")
	Container(t, "b2", "--net", "br", "--ip", "10.50.0.77")
	Reaches(t, "b1", "10.50.0.77", 5*time.Second)
	Reaches(t, "b1", "10.50.0.1", 5*time.Second)
	_, err := Try("docker", "run", "--rm", "--net", "br", "--ip", "10.50.0.77", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "address 10.50.0.77: in use since ") {
		t.Errorf("an address twice: %v", err)
	}
}

// TestIPAMForMacvlan: the same for macvlan.
func TestIPAMForMacvlan(t *testing.T) {
	veth(t, "mv0", "10.60.0.1/24")
	Sh(t, "ip link set mv0 up")
	Network(t, "mv", "-d", "macvlan", "-o", "parent=mv0", "--ipam-driver", Plugin, "--subnet", "10.60.0.0/24",
		"--ip-range", "10.60.0.128/30", "--gateway", "10.60.0.1", "--aux-address", "host=10.60.0.129")
	for _, c := range []string{"m1", "m2", "m3"} {
		Container(t, c, "--net", "mv")
		if a := Address(t, c, "mv"); !strings.HasPrefix(a, "10.60.0.1") || len(a) != len("10.60.0.128") {
			t.Errorf("%s: address %s is outside 10.60.0.128/30", c, a)
		}
	}
	if _, err := Try("docker", "run", "--rm", "--net", "mv", "lab", "true"); err == nil || !strings.Contains(err.Error(), "10.60.0.128/30") {
		t.Errorf("a fourth address of three: %v", err)
	}
	Reaches(t, "m1", Address(t, "m3", "mv"), 5*time.Second)
}

// TestOtherIPAMDrivers: our devices with Docker's addresses, and without any.
func TestOtherIPAMDrivers(t *testing.T) {
	veth(t, "pt0", "10.70.0.1/24")
	Network(t, "theirs", "-d", Plugin, "--subnet", "10.70.0.0/24", "--ip-range", "10.70.0.64/26", "-o", "netdevice=pt0",
		"-o", "mode=passthrough", "-o", "gateway=none")
	Container(t, "c1", "--net", "theirs")
	Reaches(t, "c1", "10.70.0.1", 5*time.Second)
	if got := Exec(t, "c1", "ip", "route"); strings.Contains(got, "default") {
		t.Errorf("gateway=none: %s", got)
	}
	veth(t, "pt1", "10.71.0.1/24")
	Network(t, "bare", "-d", Plugin, "--ipam-driver", "null", "-o", "netdevice=pt1", "-o", "mode=passthrough")
	Container(t, "c2", "--net", "bare")
	if got := Exec(t, "c2", "ip", "-o", "-4", "addr", "show", "eth0"); got != "" {
		t.Errorf("an address from nowhere: %s", got)
	}
}

// TestNoSubnet: without a subnet there is nothing to give, and the error says what to add.
func TestNoSubnet(t *testing.T) {
	veth(t, "pt0", "10.80.0.1/24")
	_, err := Try("docker", "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "-o", "netdevice=pt0", "-o", "mode=passthrough", "x")
	if err == nil || !strings.Contains(err.Error(), "--subnet") {
		t.Errorf("%v", err)
	}
}
