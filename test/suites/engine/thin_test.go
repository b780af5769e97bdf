//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestMacvlan: containers share a device that stays in the host, each with a macvlan of its own, of which nothing is left.
func TestMacvlan(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	const links = "ip -br link | awk '{print $1, $3}'"
	before := Sh(t, links)
	Network(t, "n1", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.20.0.0/24", "--gateway", "10.20.0.1",
		"-o", "netdevice=pt0", "-o", "mode=macvlan")
	Container(t, "c1", "--net", "n1")
	Container(t, "c2", "--net", "n1", "--mac-address", "02:00:00:00:00:42")
	Reaches(t, "c1", Address(t, "c2", "n1"), 5*time.Second)
	Reaches(t, "c2", "10.20.0.1", 5*time.Second)
	for _, c := range []string{"c1", "c2"} {
		link := Exec(t, c, "ip", "-d", "link", "show", "eth0")
		if !strings.Contains(link, "macvlan mode bridge") && !strings.Contains(link, "macvlan  mode bridge") ||
			!strings.Contains(link, MAC(t, c, "n1")) {
			t.Errorf("%s: %s", c, link)
		}
	}
	Sh(t, "kill -9 $(pidof driver)")
	Docker(t, "stop", "-t1", "c1")
	Docker(t, "network", "disconnect", "n1", "c2")
	Within(t, 10*time.Second, func() string {
		if now := Sh(t, links); now != before {
			return "the host has\n" + now + "\nbut had\n" + before
		}
		return ""
	})
}
