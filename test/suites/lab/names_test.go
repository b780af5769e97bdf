//go:build lab

package lab

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestNamesAndRoutes: VFs in a container have the names that it asks for and the routes of their networks, by way of a container that is the
// router, also after the container was killed and started again; and come home under their own names. An engine that is too old for exact
// names says so, and prefixes do.
func TestNamesAndRoutes(t *testing.T) {
	asBefore(t)
	sriov(t, "front", "10.7.0.0/24", "-o", "vlan=100", "-o", "routes=10.50.0.0/16 via 10.7.0.254", "-o", "numvfs=4")
	sriov(t, "back", "10.8.0.0/24", "-o", "vlan=200", "-o", "numvfs=4")
	Container(t, "router", "--net", "front", "--ip", "10.7.0.254", "--cap-add", "NET_ADMIN")
	Exec(t, "router", "ip", "address", "add", "10.50.0.1/32", "dev", "lo")
	first, second := "ifname=in", "ifname=out"
	names := []string{"in", "lo", "out"}
	if apiMinor(t) < 56 { // engine 29.8
		Refused(t, "option ifname: in is not possible: this engine is older than 29, and names the devices of plugins by a prefix and a number; "+
			"engine 29.8 or newer is needed; or use the option prefix", "run", "--rm", "--network", "name=front,driver-opt="+first, "lab", "true")
		first, second = "prefix=in", "prefix=out"
		names = []string{"in0", "lo", "out0"}
	}
	Docker(t, "create", "--name", "c1", "--network", "name=front,driver-opt="+first, "lab", "sleep", "100000")
	t.Cleanup(func() { Docker(t, "rm", "-f", "c1") })
	Docker(t, "network", "connect", "--driver-opt", second, "back", "c1")
	for range 2 {
		Docker(t, "start", "c1")
		if got := strings.Fields(Exec(t, "c1", "sh", "-c", "cd /sys/class/net; ls -d */ | tr -d /")); strings.Join(got, " ") != strings.Join(names, " ") {
			t.Errorf("the devices are called %s, want %s", got, names)
		}
		if got := Exec(t, "c1", "ip", "route"); !strings.Contains(got, "10.50.0.0/16 via 10.7.0.254 dev "+names[0]) {
			t.Errorf("the routes are\n%s", got)
		}
		Reaches(t, "c1", "10.50.0.1", 10*time.Second)
		Docker(t, "kill", "c1")
	}
}

// apiMinor returns the minor number of the version of the engine's API.
func apiMinor(t *testing.T) (minor int) {
	t.Helper()
	if _, err := fmt.Sscanf(Docker(t, "version", "--format", "{{.Server.APIVersion}}"), "1.%d", &minor); err != nil {
		t.Fatal(err)
	}
	return minor
}
