//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// thin makes a network of children on the NIC.
func thin(t *testing.T, mode string, options ...string) {
	t.Helper()
	args := []string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6.0.0/24", "-o", "netdevice=" + pf, "-o", "mode=" + mode}
	Network(t, mode+"s", append(args, options...)...)
}

// TestThin: containers with a macvlan or an ipvlan on one NIC reach each other, and a VF of the NIC; the kernel
// loads the modules; nothing is left of them, also when the engine is killed.
func TestThin(t *testing.T) {
	Sh(t, "ip link set "+pf+" up; rmmod ipvlan macvlan 2>/dev/null || true")
	t.Cleanup(func() { Sh(t, "ip link set "+pf+" down") })
	asBefore(t)
	sriov(t, "vfs", "10.6.0.0/24", "-o", "numvfs=1")
	Container(t, "vf11", "--net", "vfs", "--ip", "10.6.0.99")
	before := host(t)
	gone := func(what string) {
		t.Helper()
		Within(t, 20*time.Second, func() string {
			if now := host(t); now != before {
				return what + ": the host is\n" + now + "\nbut was\n" + before
			}
			return ""
		})
	}
	dirty := func(container string) {
		t.Helper()
		Exec(t, container, "ip", "link", "set", "eth0", "down") // Linux 6.1 renames none that is up
		Exec(t, container, "ip", "link", "set", "eth0", "mtu", "1300", "name", "gone")
	}
	thin(t, "ipvlan")
	Container(t, "one1", "--net", "ipvlans")
	Container(t, "two2", "--net", "ipvlans", "--cap-add", "NET_ADMIN")
	Reaches(t, "one1", Address(t, "two2", "ipvlans"), 5*time.Second)
	Reaches(t, "two2", "10.6.0.99", 5*time.Second)
	if link := Exec(t, "one1", "ip", "-d", "link", "show", "eth0"); !strings.Contains(link, "ipvlan ") {
		t.Errorf("not an ipvlan: %s", link)
	}
	if in, own := Exec(t, "one1", "cat", "/sys/class/net/eth0/address"), Sh(t, "cat /sys/class/net/"+pf+"/address"); in != own {
		t.Errorf("mac %s, %s has %s", in, pf, own)
	}
	dirty("two2")
	Docker(t, "rm", "-f", "one1", "two2")
	gone("ipvlan")
	Docker(t, "network", "rm", "ipvlans")

	thin(t, "macvlan")
	Container(t, "own1", "--net", "macvlans", "--mac-address", "02:00:00:00:00:42", "--cap-add", "NET_ADMIN")
	link, mac := Exec(t, "own1", "ip", "-d", "link", "show", "eth0"), MAC(t, "own1", "macvlans")
	if !strings.Contains(link, "macvlan ") || !strings.Contains(link, "02:00:00:00:00:42") || mac != "02:00:00:00:00:42" {
		t.Errorf("docker inspect shows %s, and it is %s", mac, link)
	}
	Reaches(t, "own1", "10.6.0.99", 5*time.Second)
	Run(t, "engine", "kill")
	Run(t, "engine", "start")
	Docker(t, "start", "own1", "vf11")
	Reaches(t, "own1", "10.6.0.99", 10*time.Second)
	dirty("own1")
	Docker(t, "rm", "-f", "own1")
	gone("macvlan of a killed engine")
}
