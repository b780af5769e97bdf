//go:build engine

package engine

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// Cases of public bug reports, about this and other drivers, that need no NIC with VFs. The others are in test/suites/lab.

// TestOneAddress: a subnet of one address serves one container (moby/moby#31272, containernetworking/plugins#908).
func TestOneAddress(t *testing.T) {
	veth(t, "pt0", "10.71.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "one", "pt0", "10.71.8.2/32")
	for range 2 {
		Container(t, "c1", "--net", "one")
		if a := Address(t, "c1", "one"); a != "10.71.8.2" {
			t.Errorf("address %s, want 10.71.8.2", a)
		}
		Refused(t, "the one address is in use; remove a container, or create the network with a larger --subnet", "run", "--rm", "--net", "one", "lab", "true")
		Docker(t, "rm", "-f", "c1")
	}
}

// TestConfigFrom: a network of local scope made from a configuration has all that the configuration says (moby/moby#38731).
func TestConfigFrom(t *testing.T) {
	veth(t, "pt0", "10.72.0.1/24")
	Sh(t, "ip link set pt0 up")
	Network(t, "settings", "--config-only", "--ipam-driver", Plugin, "--subnet", "10.72.0.0/24", "--gateway", "10.72.0.254",
		"--ip-range", "10.72.0.197/32", "-o", "netdevice=pt0", "-o", "mode=macvlan")
	for range 2 {
		Network(t, "n1", "-d", Plugin, "--config-from", "settings")
		Container(t, "c1", "--net", "n1")
		if a := Address(t, "c1", "n1"); a != "10.72.0.197" {
			t.Errorf("address %s, want 10.72.0.197", a)
		}
		if link := Exec(t, "c1", "ip", "-d", "link", "show", "eth0"); !strings.Contains(strings.Join(strings.Fields(link), " "), "macvlan mode bridge") {
			t.Errorf("no macvlan: %s", link)
		}
		if routes := Exec(t, "c1", "ip", "route"); !strings.Contains(routes, "default via 10.72.0.254 dev eth0") {
			t.Errorf("routes: %s", routes)
		}
		Reaches(t, "c1", "10.72.0.1", 5*time.Second)
		Refused(t, "the one address of ip-range 10.72.0.197/32 is in use; remove a container, or create the network with a larger --ip-range",
			"run", "--rm", "--net", "n1", "lab", "true")
		Docker(t, "rm", "-f", "c1")
		Docker(t, "network", "rm", "n1")
	}
}

// TestFixedBesideChosen: all containers of a network end and start in another order, as after a power cut: none takes the address that
// another was given with --ip outside of the range, or inside if that starts first (docker/compose#11899).
func TestFixedBesideChosen(t *testing.T) {
	veth(t, "pt0", "10.73.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "n1", "pt0", "10.73.0.0/24", "--ip-range", "10.73.0.128/29")
	inside := netip.MustParsePrefix("10.73.0.128/29")
	Container(t, "outside", "--net", "n1", "--ip", "10.73.0.2")
	Container(t, "inside", "--net", "n1", "--ip", "10.73.0.130")
	Container(t, "c1", "--net", "n1")
	Container(t, "c2", "--net", "n1")
	Docker(t, "kill", "outside", "inside", "c1", "c2")
	Docker(t, "wait", "outside", "inside", "c1", "c2")
	for _, c := range []string{"inside", "c1", "c2", "outside"} {
		Docker(t, "start", c)
	}
	given := []string{Address(t, "outside", "n1"), Address(t, "inside", "n1")}
	if !slices.Equal(given, []string{"10.73.0.2", "10.73.0.130"}) {
		t.Errorf("--ip 10.73.0.2 and 10.73.0.130: %q", given)
	}
	for _, c := range []string{"c1", "c2"} {
		a := Address(t, c, "n1")
		if got, err := netip.ParseAddr(a); err != nil || !inside.Contains(got) || slices.Contains(given, a) {
			t.Errorf("%s has %s, want one of %s that no other has: %q", c, a, inside, given)
		}
		given = append(given, a)
	}
}

// TestInternalBeside: an internal network takes no default route from the other network of a container (moby/libnetwork#2406).
func TestInternalBeside(t *testing.T) {
	veth(t, "pt0", "10.74.0.1/24")
	veth(t, "pt1", "10.75.0.1/24")
	Sh(t, "ip link set pt0 up; ip link set pt1 up")
	ours(t, "macvlan", "out", "pt0", "10.74.0.0/24", "--gateway", "10.74.0.254")
	ours(t, "macvlan", "in", "pt1", "10.75.0.0/24", "--gateway", "10.75.0.254", "--internal")
	Container(t, "c1", "--net", "out")
	check := func(when, want string) {
		t.Helper()
		var got []string
		for _, route := range strings.Split(Exec(t, "c1", "ip", "route"), "\n") {
			if strings.HasPrefix(route, "default") {
				got = append(got, strings.Join(strings.Fields(route)[:3], " "))
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: default routes %q, want %q", when, got, want)
		}
	}
	Docker(t, "network", "connect", "in", "c1")
	check("on both", "default via 10.74.0.254")
	Docker(t, "network", "disconnect", "out", "c1")
	check("on the internal one", "")
	Docker(t, "network", "connect", "out", "c1")
	check("on both again", "default via 10.74.0.254")
	Docker(t, "restart", "-t1", "c1")
	check("restarted", "default via 10.74.0.254")
}

// TestStoreAway: while the etcd of STORE does not answer, a network with the engine's own addresses works as ever, and one with addresses of
// the plugin is refused with the reason (moby/libnetwork#800, projectcalico/calico#5203).
func TestStoreAway(t *testing.T) {
	store := func(value string) {
		Docker(t, "plugin", "disable", "-f", Plugin)
		Docker(t, "plugin", "set", Plugin, "STORE="+value)
		Docker(t, "plugin", "enable", Plugin)
	}
	store("etcd://127.0.0.1:1")
	t.Cleanup(func() { store("bolt") })
	veth(t, "pt0", "10.76.0.1/24")
	Sh(t, "ip link set pt0 up")
	begun := time.Now()
	Network(t, "n1", "-d", Plugin, "--subnet", "10.76.0.0/24", "--ipv6", "--subnet", "fd00:76::/64", "-o", "netdevice=pt0", "-o", "mode=macvlan",
		"-o", "gateway=none")
	Container(t, "c1", "--net", "n1")
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("network and container took %v", took)
	}
	if addrs := Exec(t, "c1", "ip", "-o", "addr", "show", "dev", "eth0"); !strings.Contains(addrs, "fd00:76::") {
		t.Errorf("no IPv6 address: %s", addrs)
	}
	_, err := Try("docker", "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.77.0.0/24", "-o", "netdevice=pt0", "-o",
		"mode=macvlan", "own")
	if err == nil || !strings.Contains(err.Error(), "etcd") {
		t.Errorf("addresses of the plugin: %v", err)
	}
}

// TestRefusedConnect: the engine keeps a connection that the plugin has refused with the container's settings, and the container does not start
// again until it was disconnected (docs/troubleshooting.md).
func TestRefusedConnect(t *testing.T) {
	veth(t, "pt0", "10.79.0.1/24")
	veth(t, "pt1", "10.79.1.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "lan", "pt0", "10.79.0.0/24")
	passthrough(t, "nic", "pt1", "10.79.1.0/24")
	Container(t, "other", "--net", "nic")
	Container(t, "web", "--net", "lan")
	held := regexp.MustCompile("pt1 is held by .* serves one container at a time")
	for _, line := range [][]string{{"network", "connect", "nic", "web"}, {"restart", "-t", "1", "web"}} {
		if _, err := Try("docker", line...); err == nil || !held.MatchString(err.Error()) {
			t.Errorf("docker %s: %v", strings.Join(line, " "), err)
		}
	}
	for _, command := range docs.Commands(t, "../../../docs/troubleshooting.md", "A refused docker network connect") {
		Sh(t, command)
	}
	Reaches(t, "web", "10.79.0.1", 5*time.Second)
}
