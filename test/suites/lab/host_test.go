//go:build lab

package lab

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestManagementNIC: the NIC that these tests are driven over is not handed over, with or without a default route.
func TestManagementNIC(t *testing.T) {
	route := Sh(t, "ip route show default")
	mgmt := regexp.MustCompile(`dev (\S+)`).FindStringSubmatch(route)[1]
	create := []string{"network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.9.0.0/24", "-o", "mode=passthrough",
		"-o", "netdevice=" + mgmt, "x"}
	const remedy = "; the host would lose that; if that is meant, say force=yes"
	session := " carries a tcp session (to 10.0.2.15:22 on " + mgmt + ")"
	Refused(t, "option netdevice: "+mgmt+" carries the host's default route (through "+mgmt+") and"+session+remedy, create...)
	Sh(t, "ip route del "+route)
	defer Sh(t, "ip route add "+route)
	Refused(t, "option netdevice: "+mgmt+session+remedy, create...)
}

// TestForced: who insists hands over a device with a default route, and has that back afterwards.
func TestForced(t *testing.T) {
	asBefore(t)
	whole := func(force string) []string {
		return []string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.9.0.0/24", "-o", "mode=passthrough", "-o", "netdevice=" + another,
			"-o", "force=" + force}
	}
	Sh(t, "ip link set "+another+" up; ip addr add 192.0.2.10/24 dev "+another+"; ip route add default via 192.0.2.1 metric 5000")
	t.Cleanup(func() { Sh(t, "ip addr flush dev "+another+"; ip link set "+another+" down") })
	Refused(t, another+" carries the host's default route (through "+another+"); the host would lose that; if that is meant, say force=yes",
		append(append([]string{"network", "create"}, whole("no")...), "x")...)
	Network(t, "n", whole("yes")...)
	Docker(t, "run", "--rm", "--net", "n", "lab", "ip", "link", "show", "eth0")
	Within(t, 10*time.Second, func() string {
		if routes := Sh(t, "ip route show default dev "+another); !strings.Contains(routes, "via 192.0.2.1 metric 5000") {
			return "the default route is not back: " + routes
		}
		return ""
	})
}

// TestHostRules: udev marks VFs, and nothing else, for other software to leave alone.
func TestHostRules(t *testing.T) {
	asBefore(t)
	rule, err := os.ReadFile("host-rules/71-passthrough-vfs.rules")
	if err != nil {
		t.Fatal(err)
	}
	const place = "/etc/udev/rules.d/71-passthrough-vfs.rules"
	Sh(t, "mkdir -p /etc/udev/rules.d")
	if err := os.WriteFile(place, rule, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Sh(t, "rm "+place+"; udevadm control --reload") })
	Sh(t, "udevadm control --reload")
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=1")
	Docker(t, "run", "--rm", "--net", "n", "lab", "true")
	Sh(t, "udevadm settle; udevadm trigger --subsystem-match=net; udevadm settle")
	for dev, want := range map[string]bool{pf + "v0": true, pf: false, another: false} {
		marked := strings.Contains(Run(t, "udevadm", "info", "/sys/class/net/"+dev), "NM_UNMANAGED=1")
		if marked != want {
			t.Errorf("%s is marked: %v, want %v", dev, marked, want)
		}
	}
}
