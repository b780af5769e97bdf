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

// TestHostAccess: with host_access=yes host and containers reach each other, and without they do not. The host's own addresses and routes
// stay as they are, also when the plugin is killed, and nothing is left.
func TestHostAccess(t *testing.T) {
	veth(t, "pt0", "192.0.2.1/24")
	Sh(t, "ip link set pt0 up; ip addr add 10.20.0.5/24 dev pt0")
	const (
		// The kernel takes a moment to see the carrier of a link that was just set up.
		own   = "ip -4 -br addr show dev pt0 | tr -s ' ' | cut -d' ' -f1,3-; ip -4 route show table all | grep -v ' dev pt-' | sed 's/ linkdown//'"
		links = "ip -br link | awk '{print $1, $3}'; ip route show | sed 's/ linkdown//'"
	)
	before, routes := Sh(t, links), Sh(t, own)
	network := func(name string, options ...string) {
		args := []string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.20.0.0/24", "--ip-range", "10.20.0.64/26",
			"--aux-address", "host=10.20.0.70", "-o", "mode=macvlan"}
		Network(t, name, append(args, options...)...)
	}
	network("alone", "-o", "parent=pt0")
	Container(t, "c0", "--net", "alone")
	CannotReach(t, "c0", "10.20.0.5")
	CannotReach(t, "c0", "10.20.0.70")
	Docker(t, "rm", "-f", "c0")
	Docker(t, "network", "rm", "alone")

	network("both", "-o", "netdevice=pt0", "-o", "host_access=yes")
	Container(t, "c1", "--net", "both")
	Container(t, "c2", "--net", "both")
	both := func(what string, containers ...string) {
		t.Helper()
		for _, c := range containers {
			Reaches(t, c, "10.20.0.70", 10*time.Second)
			address := Address(t, c, "both")
			Within(t, 10*time.Second, func() string {
				if out, err := Try("ping", "-c1", "-W1", address); err != nil {
					return what + ": the host does not reach " + c + " at " + address + ": " + out
				}
				return ""
			})
			if out := Sh(t, "ip route get "+address); !strings.Contains(out, "src 10.20.0.70") {
				t.Errorf("%s: the host's route to %s: %s", what, c, out)
			}
		}
		if now := Sh(t, own); now != routes {
			t.Errorf("%s: the host's own addresses and routes are\n%s\nbut were\n%s", what, now, routes)
		}
	}
	both("at first", "c1", "c2")
	const kept = "cd /proc/sys/net/ipv4/conf/pt-*; cat arp_ignore arp_announce forwarding | tr '\n' ' '"
	if got := Sh(t, kept); strings.TrimSpace(got) != "1 2 0" {
		t.Errorf("arp_ignore, arp_announce and forwarding are %s", got)
	}
	if ra := Sh(t, "cat /proc/sys/net/ipv6/conf/pt-*/accept_ra 2>/dev/null || echo 0; ip -6 -br addr show | grep ^pt- || true"); ra != "0" {
		t.Errorf("a container can configure the host by router advertisements: %s", ra)
	}
	Reaches(t, "c1", Address(t, "c2", "both"), 5*time.Second)
	Sh(t, "kill -9 $(pidof driver)")
	Docker(t, "restart", "-t1", "c1")
	both("after the plugin was killed", "c1", "c2")
	Docker(t, "rm", "-f", "c1")
	if left := Sh(t, "ip route show proto 118 | grep -c . || true"); left != "1" {
		t.Errorf("the host has %s routes to one container", left)
	}
	Sh(t, "ip link del $(ip -br link | awk -F@ '/^pt-/{print $1}')") // by an administrator
	Docker(t, "restart", "-t1", "c2")
	both("after the device was removed", "c2")
	Docker(t, "rm", "-f", "c2")
	Docker(t, "network", "rm", "both")
	if now := Sh(t, links); now != before {
		t.Errorf("the host has\n%s\nbut had\n%s", now, before)
	}
}
