//go:build engine

package engine

import (
	"fmt"
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

// TestInterfaceName: a device has the exact name that its container or its network asks for, also after a restart of the container and
// beside another network's. The plugin refuses that on an engine that is known not to do it.
func TestInterfaceName(t *testing.T) {
	const label = "com.docker.network.endpoint.ifname="
	veth(t, "pt0", "10.20.0.1/24")
	veth(t, "pt1", "10.30.0.1/24")
	Sh(t, "ip link set pt0 up; ip link set pt1 up")
	ours(t, "macvlan", "n1", "pt0", "10.20.0.0/24", "--ip-range", "10.20.0.64/26")
	Network(t, "bare", "-d", Plugin, "--ipam-driver", "null", "-o", "netdevice=pt1", "-o", "mode=macvlan", "-o", "ifname=fab.1")
	run := func(args ...string) []string { return append([]string{"run", "--rm", "--network"}, args...) }
	Refused(t, `option ifname: "lo" is not allowed; allowed: up to 15 letters, digits, _, - and ., but not lo, all or default`, run("name=n1,driver-opt="+label+"lo", "lab", "true")...)
	Refused(t, "option com.docker.network.endpoint.ifnam: neither the engine nor this driver obeys it for a container; of the names that "+
		"begin with com.docker.network, users can give com.docker.network.endpoint.ifname, com.docker.network.endpoint.sysctls and "+
		"com.docker.network.driver.mtu",
		run("name=n1,driver-opt=com.docker.network.endpoint.ifnam=x", "lab", "true")...)
	if !takesIfname(t) {
		Refused(t, "option ifname: fab0 is not possible: this engine is older than 29, and names the devices of plugins by a prefix and a "+
			"number; engine 29.8 or newer is needed; or use the option prefix", run("name=n1,driver-opt="+label+"fab0", "lab", "true")...)
		Docker(t, run("name=n1,driver-opt=prefix=fab", "lab", "ip", "link", "show", "fab0")...)
		return
	}
	Container(t, "c1", "--network", "name=n1,driver-opt="+label+"fab0")
	Docker(t, "network", "connect", "bare", "c1")
	check := func() {
		t.Helper()
		Reaches(t, "c1", "10.20.0.1", 5*time.Second)
		if links := Exec(t, "c1", "ls", "/sys/class/net"); strings.Join(strings.Fields(links), " ") != "fab.1 fab0 lo" {
			t.Errorf("the devices are called %s", links)
		}
	}
	check()
	Docker(t, "restart", "-t1", "c1")
	check()
	Docker(t, "network", "disconnect", "n1", "c1")
	Docker(t, "network", "connect", "--driver-opt", label+"fab0", "n1", "c1")
	check()
	Container(t, "c2", "--network", "name=n1,driver-opt=prefix=net")
	Exec(t, "c2", "ip", "link", "show", "net0")
}

// TestIfnameUnknown: without addresses the plugin does not know whether the engine takes exact names. One that does not cannot start
// the container, its error says why, and the device comes home.
func TestIfnameUnknown(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	before := Sh(t, "ip -o link | wc -l")
	Network(t, "bare", "-d", Plugin, "--ipam-driver", "null", "-o", "netdevice=pt0", "-o", "mode=macvlan", "-o", "ifname=fab7")
	takes := takesIfname(t)
	check := func(err error) {
		t.Helper()
		switch {
		case takes != (err == nil):
			t.Errorf("the engine takes exact names: %v; the container: %v", takes, err)
		case !takes && !strings.Contains(err.Error(), "ifname-needs-docker-29.8-or-newer-0"):
			t.Errorf("%v", err)
		}
	}
	_, err := Try("docker", "run", "--rm", "--network", "bare", "lab", "ip", "link", "show", "fab7")
	check(err)
	Network(t, "other", "-d", "bridge")
	Docker(t, "run", "-d", "--name", "c1", "--network", "other", "lab", "sleep", "100000")
	_, err = Try("docker", "network", "connect", "bare", "c1")
	check(err)
	Docker(t, "rm", "-f", "c1")
	Docker(t, "network", "rm", "other")
	Docker(t, "run", "--rm", "--network", "name=bare,driver-opt=prefix=fab", "lab", "ip", "link", "show", "fab0")
	Within(t, 10*time.Second, func() string {
		if now := Sh(t, "ip -o link | wc -l"); now != before {
			return "the host has " + now + " devices, and had " + before
		}
		return ""
	})
}

// takesIfname reports whether the engine gives a device the exact name that a plugin answers: API 1.56, engine 29.8.
func takesIfname(t *testing.T) bool { return apiMinor(t) >= 56 }

// apiMinor returns the second number of the version of the engine's API, whose first is 1.
func apiMinor(t *testing.T) (minor int) {
	t.Helper()
	version := Docker(t, "version", "--format", "{{.Server.APIVersion}}")
	if _, err := fmt.Sscanf(version, "1.%d", &minor); err != nil {
		t.Fatalf("API version %s: %v", version, err)
	}
	return minor
}
