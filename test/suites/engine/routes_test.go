//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestRoutes: a container reaches what is behind a router of its segment, and what is on the segment in another subnet, by the routes of its
// network or its own, of both families; also after a restart, and while it is connected only.
func TestRoutes(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up; for a in 2001:db8:1::1/64 10.50.0.1/32 10.60.0.1/32 10.70.0.1/32 2001:db8:50::1/128; do ip addr add $a dev pt0p nodad; done")
	ours(t, "macvlan", "n1", "pt0", "10.20.0.0/24", "--ip-range", "10.20.0.64/26", "--ipv6", "--subnet", "2001:db8:1::/64",
		"-o", "routes=10.50.0.0/16 via 10.20.0.1, 10.60.0.0/24 dev, 2001:db8:50::/48 via 2001:db8:1::1")
	has := func(container string, want ...string) {
		t.Helper()
		got := Exec(t, container, "sh", "-c", "ip route; ip -6 route")
		for _, route := range []string{"10.50.0.0/16 via 10.20.0.1 ", "10.60.0.0/24 dev ", "10.70.0.1 via 10.20.0.1 ", "2001:db8:50::/48 via 2001:db8:1::1 "} {
			if strings.Contains(got, route) != strings.Contains(strings.Join(want, ","), route) {
				t.Errorf("%s has the routes\n%s\nwant %q", container, got, want)
			}
		}
	}
	Container(t, "c1", "--net", "n1")
	for range 2 {
		has("c1", "10.50.0.0/16 via 10.20.0.1 ", "10.60.0.0/24 dev ", "2001:db8:50::/48 via 2001:db8:1::1 ")
		for _, to := range []string{"10.50.0.1", "10.60.0.1", "2001:db8:50::1"} {
			Reaches(t, "c1", to, 5*time.Second)
		}
		Docker(t, "restart", "-t1", "c1")
	}
	Container(t, "c2", "--network", "name=n1,driver-opt=routes=10.70.0.1 via 10.20.0.1;10.60.0.0/24 dev")
	has("c2", "10.70.0.1 via 10.20.0.1 ", "10.60.0.0/24 dev ")
	Reaches(t, "c2", "10.70.0.1", 5*time.Second)
	Docker(t, "network", "disconnect", "n1", "c2")
	has("c2")
	Docker(t, "network", "connect", "n1", "c2")
	has("c2", "10.50.0.0/16 via 10.20.0.1 ", "10.60.0.0/24 dev ", "2001:db8:50::/48 via 2001:db8:1::1 ")

	if got := Docker(t, "network", "inspect", "-f", "{{.Options.routes}}", "n1"); !strings.HasPrefix(got, "10.50.0.0/16 via 10.20.0.1, ") {
		t.Errorf("docker network inspect shows the routes %q", got)
	}
	const outside = ": the gateway is in none of the network's subnets 10.20.0.0/24, 2001:db8:1::/64; it has to be, for containers to reach it"
	Refused(t, "option routes: 10.50.0.0/16 via 10.9.0.1"+outside, "run", "--rm", "--network", "name=n1,driver-opt=routes=10.50.0.0/16 via 10.9.0.1",
		"lab", "true")
	Refused(t, "option routes: 0.0.0.0/0 via 10.20.0.1: is a default route, which the engine chooses; use --gateway", "network", "create", "-d", Plugin,
		"--ipam-driver", Plugin, "--subnet", "10.20.0.0/24", "-o", "netdevice=pt0", "-o", "mode=macvlan", "-o", "routes=0.0.0.0/0 via 10.20.0.1", "refused")
}

// TestGatewayPriority: of a container's networks with gateways, the engine gives it one default route: from engine 28 on that of the network
// with the highest gw-priority, also when networks are connected and disconnected. Routes of each network stay.
func TestGatewayPriority(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	veth(t, "pt1", "10.30.0.1/24")
	Sh(t, "ip link set pt0 up; ip link set pt1 up")
	ours(t, "macvlan", "a", "pt0", "10.20.0.0/24", "--gateway", "10.20.0.1", "-o", "routes=10.50.0.0/16 via 10.20.0.1")
	ours(t, "macvlan", "b", "pt1", "10.30.0.0/24", "--gateway", "10.30.0.1", "-o", "routes=10.60.0.0/16 via 10.30.0.1")
	routes := func(want ...string) {
		t.Helper()
		got := Exec(t, "c1", "ip", "route")
		if strings.Count(got, "default") != 1 {
			t.Errorf("want one default route:\n%s", got)
		}
		for _, route := range want {
			if !strings.Contains(got, route+" ") {
				t.Errorf("want %s:\n%s", route, got)
			}
		}
	}
	both := []string{"10.50.0.0/16 via 10.20.0.1", "10.60.0.0/16 via 10.30.0.1"}
	if apiMinor(t) < 48 {
		Container(t, "c1", "--net", "a")
		Docker(t, "network", "connect", "b", "c1")
		routes(both...)
		return
	}
	Container(t, "c1", "--network", "name=a,gw-priority=1", "--network", "name=b,gw-priority=2")
	routes(append(both, "default via 10.30.0.1")...)
	Docker(t, "network", "disconnect", "b", "c1")
	routes("default via 10.20.0.1", both[0])
	Docker(t, "network", "connect", "--gw-priority", "0", "b", "c1")
	routes(append(both, "default via 10.20.0.1")...)
}

// TestEndpointSysctls: sysctls of one interface, which engines from 27 on set.
func TestEndpointSysctls(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "n1", "pt0", "10.20.0.0/24", "-o", "prefix=data")
	Container(t, "c1", "--network", "name=n1,driver-opt=com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.arp_ignore=1")
	want := "1"
	if apiMinor(t) < 46 {
		want = "0"
	}
	if got := Exec(t, "c1", "cat", "/proc/sys/net/ipv4/conf/data0/arp_ignore"); got != want {
		t.Errorf("arp_ignore is %s, want %s", got, want)
	}
}
