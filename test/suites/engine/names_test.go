//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestNamesOfContainer: the host's device is called eth1, as one of the container is when it is moved in, and as one is when it is moved
// out of a container that had it as eth0.
func TestNamesOfContainer(t *testing.T) {
	veth(t, "eth1", "10.20.0.1/24")
	passthrough(t, "n1", "eth1", "10.20.0.0/24")
	Network(t, "b1", "-d", "bridge", "--subnet", "10.51.0.0/24")
	Network(t, "b2", "-d", "bridge", "--subnet", "10.52.0.0/24")
	home := func() {
		t.Helper()
		Within(t, 10*time.Second, func() string {
			if link, err := Try("ip", "-o", "link", "show", "eth1"); err != nil || strings.Contains(link, "altname") {
				return "the host has " + link
			}
			return ""
		})
	}
	Container(t, "c1", "--net", "b1")
	Docker(t, "network", "connect", "b2", "c1")
	Docker(t, "network", "connect", "n1", "c1")
	Reaches(t, "c1", "10.20.0.1", 5*time.Second)
	Docker(t, "network", "disconnect", "n1", "c1")
	home()

	Container(t, "c2", "--net", "n1")
	Docker(t, "network", "connect", "b1", "c2")
	Exec(t, "c2", "ip", "link", "show", "eth1")
	Docker(t, "network", "disconnect", "n1", "c2")
	home()
	Docker(t, "run", "--rm", "--net", "n1", "lab", "true")
	home()
}
