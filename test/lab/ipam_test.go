//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/dockertest"
)

// routes is a container's routing table.
func routes(t *testing.T, container string) string {
	t.Helper()
	return Exec(t, container, "ip", "route")
}

// TestGateway: a default route only for those who ask, and never a second leg into the engine's own networks.
func TestGateway(t *testing.T) {
	asBefore(t)
	for _, c := range []struct {
		name, want string
		options    []string
	}{
		{"unasked", "", nil},
		{"given", "default via 10.1.0.254", []string{"--gateway", "10.1.0.254"}},
		{"auto", "default via 10.1.0.1", []string{"-o", "gateway=auto"}},
		{"nogw", "", []string{"--gateway", "10.1.0.254", "-o", "gateway=none"}},
		{"internal", "", []string{"--gateway", "10.1.0.254", "--internal"}},
	} {
		sriov(t, c.name, "10.1.0.0/24", append([]string{"-o", "numvfs=5"}, c.options...)...)
		Container(t, "on-"+c.name, "--net", c.name)
		got := routes(t, "on-"+c.name)
		if has := strings.Contains(got, "default"); has != (c.want != "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %s\nwant %q", c.name, got, c.want)
		}
		if links := Exec(t, "on-"+c.name, "sh", "-c", "ip -o link | wc -l"); links != "2" {
			t.Errorf("%s: %s links, want lo and eth0 only", c.name, links)
		}
	}
	if nets := Docker(t, "network", "ls", "--format", "{{.Name}}"); strings.Contains(nets, "docker_gwbridge") {
		t.Errorf("the engine has made a network of its own: %s", nets)
	}
}

// TestIPAMOptions: range, auxiliary and chosen addresses, both families; the errors say what is wrong.
func TestIPAMOptions(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "--ip-range", "10.1.0.128/29", "--gateway", "10.1.0.1", "--aux-address", "router=10.1.0.129",
		"--ipv6", "--subnet", "2001:db8:1::/64")
	Container(t, "one1", "--net", "n")
	if a := Address(t, "one1", "n"); !strings.HasPrefix(a, "10.1.0.1") || a == "10.1.0.129" {
		t.Errorf("address %s, want one of 10.1.0.128/29 but not 10.1.0.129", a)
	}
	Container(t, "two2", "--net", "n", "--ip", "10.1.0.77", "--ip6", "2001:db8:1::77")
	if a := Address(t, "two2", "n"); a != "10.1.0.77" {
		t.Errorf("address %s, want 10.1.0.77", a)
	}
	Within(t, 5*time.Second, func() string {
		if _, err := Try("docker", "exec", "one1", "ping", "-6", "-c1", "-W1", "2001:db8:1::77"); err != nil {
			return "no answer over IPv6"
		}
		return ""
	})
	for _, ip := range []string{"10.1.0.77", "10.1.0.129", "10.1.0.1", "10.1.0.255"} {
		if _, err := Try("docker", "run", "--rm", "--net", "n", "--ip", ip, "lab", "true"); err == nil || !strings.Contains(err.Error(), ip) {
			t.Errorf("--ip %s: %v", ip, err)
		}
	}
	if _, err := Try("docker", "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "-o", "netdevice="+pf, "nosubnet"); err == nil ||
		!strings.Contains(err.Error(), "--subnet") {
		t.Errorf("no subnet: %v", err)
	}
}

// TestOtherIPAMDrivers: our devices with Docker's own addresses, and with none.
func TestOtherIPAMDrivers(t *testing.T) {
	asBefore(t)
	Network(t, "theirs", "-d", Plugin, "--subnet", "10.3.0.0/24", "-o", "netdevice="+pf, "-o", "vlan=3", "-o", "numvfs=4", "-o", "gateway=none")
	Container(t, "one1", "--net", "theirs")
	Container(t, "two2", "--net", "theirs")
	Reaches(t, "one1", Address(t, "two2", "theirs"), 5*time.Second)
	if got := routes(t, "one1"); strings.Contains(got, "default") {
		t.Errorf("gateway=none: %s", got)
	}
	Network(t, "bare", "-d", Plugin, "--ipam-driver", "null", "-o", "netdevice="+pf, "-o", "vlan=4")
	Container(t, "three", "--net", "bare")
	if a := Exec(t, "three", "ip", "-o", "-4", "addr", "show", "eth0"); a != "" {
		t.Errorf("an address from nowhere: %s", a)
	}
}

// TestIPAMForOthers: our addresses for the engine's own macvlan driver.
func TestIPAMForOthers(t *testing.T) {
	Sh(t, "modprobe dummy numdummies=0") // older kernels make one of themselves
	asBefore(t)
	Sh(t, "ip link set "+another+" up")
	t.Cleanup(func() { Sh(t, "ip link set "+another+" down") })
	// The same subnet, which Docker's own IPAM refuses.
	for n, driver := range map[string]string{"left": "macvlan", "right": "ipvlan"} {
		Sh(t, "ip link add "+n+"0 type dummy && ip link set "+n+"0 up")
		t.Cleanup(func() { Sh(t, "ip link del "+n+"0") })
		Network(t, n, "-d", driver, "-o", "parent="+n+"0", "--ipam-driver", Plugin, "--subnet", "10.8.0.0/24")
		Container(t, n+"1", "--net", n)
		Container(t, n+"2", "--net", n)
		Reaches(t, n+"1", Address(t, n+"2", n), 5*time.Second)
		if a, b := Address(t, n+"1", n), Address(t, n+"2", n); a == b {
			t.Errorf("both have %s", a)
		}
	}
}
