//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// bonded makes a bond of both NICs, as a host has one, and a network that hands it over. The NICs are not wired to each
// other: a VF of the first can be reached only through that one.
func bonded(t *testing.T) {
	t.Helper()
	Sh(t, "ip link add bond7 type bond mode active-backup miimon 100; ip link set "+pf+
		" down master bond7; ip link set "+another+" down master bond7; ip link set bond7 type bond primary "+pf+
		"; ip link set bond7 up alias mine; ip addr add 192.0.2.70/24 dev bond7; ip route add 198.51.100.0/24 via 192.0.2.1")
	t.Cleanup(func() { Sh(t, "ip link del bond7; ip link set "+pf+" down; ip link set "+another+" down") })
	Within(t, 15*time.Second, func() string {
		if link := Run(t, "ip", "-o", "link", "show", "bond7"); !strings.Contains(link, "LOWER_UP") {
			return "no carrier: " + link
		}
		return ""
	})
	Network(t, "whole", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.7.0.0/24", "-o", "netdevice=bond7",
		"-o", "mode=passthrough")
}

// bondState returns everything that must be restored.
const bondState = "ip -d link show bond7 | sed 's/promiscuity.*//'; ip addr show bond7 | grep inet.; ip route"

// TestBond: a container has a bond's MAC and its frames, and reaches a VF of one of the bond's own ports; the bond is as it
// was afterwards, whatever the container did, and when the engine was killed.
func TestBond(t *testing.T) {
	asBefore(t)
	bonded(t)
	sriov(t, "vfs", "10.7.0.0/24", "-o", "numvfs=2")
	Container(t, "vf11", "--net", "vfs", "--ip", "10.7.0.99")
	mac, before := Sh(t, "cat /sys/class/net/bond7/address"), Sh(t, bondState)
	asItWas := func(way string) {
		t.Helper()
		Within(t, 20*time.Second, func() string {
			if now := Sh(t, bondState+"; ip -o link | grep macvlan || true"); now != before {
				return way + ": the bond is\n" + now + "\nbut was\n" + before
			}
			return ""
		})
	}
	for _, way := range [][]string{{"stop", "-t1", "db1"}, {"network", "disconnect", "whole", "db1"}} {
		Docker(t, "run", "-d", "--name", "db1", "--cap-add", "NET_ADMIN", "--net", "whole", "lab", "sleep", "1000000")
		if in, shown := Exec(t, "db1", "cat", "/sys/class/net/eth0/address"), MAC(t, "db1", "whole"); in != mac || shown != mac {
			t.Errorf("mac %s, docker inspect shows %s, the bond has %s", in, shown, mac)
		}
		Reaches(t, "db1", "10.7.0.99", 10*time.Second)
		Exec(t, "db1", "sh", "-c", "ip link set eth0 down; ip link set eth0 mtu 1300 address 02:66:66:66:66:66; ip link set eth0 name gone up")
		Docker(t, way...)
		asItWas(strings.Join(way, " "))
		_, _ = Try("docker", "rm", "-f", "db1")
	}
	Container(t, "db1", "--net", "whole", "--mac-address", "02:00:00:00:00:42")
	if got := Sh(t, "cat /sys/class/net/bond7/address"); got != "02:00:00:00:00:42" {
		t.Errorf("with a mac of the user's the bond has %s", got)
	}
	Reaches(t, "db1", "10.7.0.99", 10*time.Second)
	Run(t, "engine", "kill")
	Run(t, "engine", "start")
	asItWas("engine killed")
	Docker(t, "start", "db1", "vf11")
	Reaches(t, "db1", "10.7.0.99", 10*time.Second)
	Docker(t, "rm", "-f", "db1")
	asItWas("after the engine was killed")
}
