//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestGateway: a default route only for those who ask, and never a second leg into the engine's own networks. All networks have one
// subnet.
func TestGateway(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	for _, c := range []struct {
		name, want string
		options    []string
	}{
		{"unasked", "", nil},
		{"given", "default via 10.20.0.254", []string{"--gateway", "10.20.0.254"}},
		{"auto", "default via 10.20.0.1", []string{"-o", "gateway=auto"}},
		{"nogw", "", []string{"--gateway", "10.20.0.254", "-o", "gateway=none"}},
		{"internal", "", []string{"--gateway", "10.20.0.254", "--internal"}},
	} {
		ours(t, "macvlan", c.name, "pt0", "10.20.0.0/24", c.options...)
		Container(t, "on-"+c.name, "--net", c.name)
		got := Exec(t, "on-"+c.name, "ip", "route")
		if has := strings.Contains(got, "default"); has != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %q", c.name, got, c.want)
		}
		if links := Exec(t, "on-"+c.name, "ip", "-o", "link"); strings.Count(links, "\n") != 1 {
			t.Errorf("%s: want lo and eth0 only:\n%s", c.name, links)
		}
	}
	if nets := Docker(t, "network", "ls", "--format", "{{.Name}}"); strings.Contains(nets, "docker_gwbridge") {
		t.Errorf("the engine has made a network of its own: %s", nets)
	}
}

// TestIPv6GatewayOnly: a dual-stack network with an IPv6 gateway alone: one interface, the IPv6 default route, no IPv4 one.
func TestIPv6GatewayOnly(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "v6gw", "pt0", "10.20.0.0/24", "--ipv6", "--subnet", "2001:db8:1::/64", "--gateway", "2001:db8:1::1")
	Container(t, "c1", "--net", "v6gw")
	if links := Exec(t, "c1", "ip", "-o", "link"); strings.Count(links, "\n") != 1 {
		t.Errorf("want lo and eth0 only:\n%s", links)
	}
	if routes := Exec(t, "c1", "ip", "route"); strings.Contains(routes, "default") {
		t.Errorf("an IPv4 default route: %s", routes)
	}
	if routes := Exec(t, "c1", "ip", "-6", "route"); !strings.Contains(routes, "default via 2001:db8:1::1 dev eth0") {
		t.Errorf("no IPv6 default route: %s", routes)
	}
}

// TestEngineLabels: labels that the engine acts on itself do not make the plugin refuse a network, and its label for the MTU is obeyed.
func TestEngineLabels(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "labels", "pt0", "10.20.0.0/24", "--ipv6", "--subnet", "2001:db8:1::/64", "-o", "com.docker.network.enable_ipv4=true",
		"-o", "com.docker.network.enable_ipv6=true", "-o", "com.docker.network.driver.mtu=1400")
	Container(t, "c1", "--net", "labels")
	if link := Exec(t, "c1", "ip", "-o", "link", "show", "eth0"); !strings.Contains(link, " mtu 1400 ") {
		t.Errorf("want mtu 1400: %s", link)
	}
}

// TestAddresses: range, auxiliary and chosen addresses, both families; the errors say what is wrong.
func TestAddresses(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "n1", "pt0", "10.20.0.0/24", "--ip-range", "10.20.0.128/29", "--gateway", "10.20.0.1", "--aux-address", "router=10.20.0.129",
		"--ipv6", "--subnet", "2001:db8:1::/64")
	Container(t, "c1", "--net", "n1")
	if a := Address(t, "c1", "n1"); !strings.HasPrefix(a, "10.20.0.1") || a == "10.20.0.129" {
		t.Errorf("address %s, want one of 10.20.0.128/29 but not 10.20.0.129", a)
	}
	Container(t, "c2", "--net", "n1", "--ip", "10.20.0.77", "--ip6", "2001:db8:1::77")
	if a := Address(t, "c2", "n1"); a != "10.20.0.77" {
		t.Errorf("address %s, want 10.20.0.77", a)
	}
	Reaches(t, "c1", "10.20.0.77", 5*time.Second)
	Reaches(t, "c1", "2001:db8:1::77", 5*time.Second)
	for _, ip := range []string{"10.20.0.77", "10.20.0.129", "10.20.0.1", "10.20.0.255"} {
		if _, err := Try("docker", "run", "--rm", "--net", "n1", "--ip", ip, "lab", "true"); err == nil || !strings.Contains(err.Error(), ip) {
			t.Errorf("--ip %s: %v", ip, err)
		}
	}
}
