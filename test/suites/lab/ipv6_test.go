//go:build lab

package lab

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// onPF gives the PF an IPv6 address, as a host has that uses the network of its containers.
func onPF(t *testing.T, address string) {
	t.Helper()
	Sh(t, "ip link set "+pf+" up; ip -6 addr add "+address+"/64 nodad dev "+pf)
	t.Cleanup(func() { Sh(t, "ip -6 addr del "+address+"/64 dev "+pf+"; ip link set "+pf+" down") })
}

// hostReaches waits until the host reaches an address through the PF, with nothing known about its neighbours.
func hostReaches(t *testing.T, address string) {
	t.Helper()
	Within(t, 10*time.Second, func() string {
		if _, err := Try("sh", "-c", "ip -6 neigh flush dev "+pf+"; ping -6 -c1 -W1 "+address); err != nil {
			return "the host does not reach " + address
		}
		return ""
	})
}

// ipIn runs the host's ip in a container's network namespace; busybox's, which the image has, knows less.
func ipIn(t *testing.T, container, command string) string {
	t.Helper()
	return Sh(t, "nsenter --net=/proc/"+Inspect(t, container, "{{.State.Pid}}")+"/ns/net ip -6 "+command)
}

// forget has a container look for its neighbours again.
func forget(t *testing.T, container string) {
	t.Helper()
	ipIn(t, container, "neigh flush dev eth0")
}

// address6 is a container's IPv6 address on a network.
func address6(t *testing.T, container, network string) string {
	t.Helper()
	return Inspect(t, container, fmt.Sprintf("{{(index .NetworkSettings.Networks %q).GlobalIPv6Address}}", network))
}

// global6 is what a container has of global IPv6 addresses on eth0, in the words of ip.
func global6(t *testing.T, container string) string {
	t.Helper()
	return ipIn(t, container, "-o addr show dev eth0 scope global")
}

// TestIPv6: on VFs that are not trusted, containers with addresses of both families find each other and the host on the PF, and the
// host finds them. The multicast groups of neighbour discovery reach a VF.
func TestIPv6(t *testing.T) {
	asBefore(t)
	onPF(t, "2001:db8:1::ffff")
	sriov(t, "dual", "10.1.0.0/24", "--ipv6", "--subnet", "2001:db8:1::/64", "-o", "numvfs=3")
	Container(t, "one1", "--net", "dual")
	Container(t, "two2", "--net", "dual", "--ip6", "2001:db8:1::77")
	if line := vfLine(t, MAC(t, "one1", "dual")); !strings.Contains(line, "trust off") || !strings.Contains(line, "spoof checking on") {
		t.Errorf("one1 has %s", line)
	}
	if got := address6(t, "two2", "dual"); got != "2001:db8:1::77" {
		t.Errorf("two2 has %s", got)
	}
	Reaches(t, "one1", Address(t, "two2", "dual"), 5*time.Second)
	for _, c := range []string{"one1", "two2"} {
		forget(t, c)
	}
	Reaches(t, "one1", "2001:db8:1::77", 5*time.Second)
	forget(t, "two2")
	Reaches(t, "two2", address6(t, "one1", "dual"), 5*time.Second)
	Reaches(t, "one1", "2001:db8:1::ffff", 5*time.Second)
	hostReaches(t, "2001:db8:1::77")
	hostReaches(t, address6(t, "one1", "dual"))
}

// TestIPv6Only: a network without IPv4, in a VLAN of its own. Engines before 28 have no such networks.
func TestIPv6Only(t *testing.T) {
	asBefore(t)
	if help := Docker(t, "network", "create", "--help"); !strings.Contains(help, "--ipv4") {
		return
	}
	Network(t, "six", "-d", Plugin, "--ipam-driver", Plugin, "-o", "netdevice="+pf, "-o", "vlan=60", "-o", "numvfs=3",
		"--ipv4=false", "--ipv6", "--subnet", "2001:db8:6::/64", "--gateway", "2001:db8:6::1")
	Container(t, "one1", "--net", "six")
	Container(t, "router", "--net", "six", "--ip6", "2001:db8:6::99", "--cap-add", "NET_ADMIN")
	Reaches(t, "one1", "2001:db8:6::99", 5*time.Second)
	if four := Exec(t, "one1", "ip", "-4", "-o", "addr", "show", "dev", "eth0"); four != "" {
		t.Errorf("one1 has an IPv4 address: %s", four)
	}
	if route := Exec(t, "one1", "ip", "-6", "route", "show", "default"); !strings.Contains(route, "via 2001:db8:6::1 dev eth0") {
		t.Errorf("one1 has the default route %q", route)
	}
	// The gateway is given to no container. Who has it is reached, and what is behind it.
	Exec(t, "router", "sh", "-c", "ip -6 addr add 2001:db8:6::1/64 dev eth0; ip -6 addr add 2001:db8:66::1/128 dev lo")
	Reaches(t, "one1", "2001:db8:66::1", 10*time.Second)
}

// TestRouterAdvertisement: with slaac=yes the global IPv6 addresses of a container on a VF are those that a router on the PF's side
// advertises, with IPv4 and, where the engine can do without, alone.
func TestRouterAdvertisement(t *testing.T) {
	asBefore(t)
	onPF(t, "2001:db8:61::ffff")
	for name, family := range map[string][]string{"both": {"--subnet", "10.61.0.0/24"}, "alone": {"--ipv4=false"}} {
		if name == "alone" && !strings.Contains(Docker(t, "network", "create", "--help"), "--ipv4") {
			continue
		}
		Network(t, name, append(family, "-d", Plugin, "--ipam-driver", Plugin, "-o", "netdevice="+pf, "-o", "numvfs=2",
			"--ipv6", "--subnet", "fe80::/64", "--ipam-opt", "slaac=yes")...)
		Container(t, "auto"+name, "--net", name)
		global := ""
		Within(t, 15*time.Second, func() string {
			Advertise(t, pf, netip.MustParsePrefix("2001:db8:61::/64"))
			global = global6(t, "auto"+name)
			if !strings.Contains(global, "inet6 2001:db8:61:") || strings.Count(global, "inet6") != 1 || strings.Contains(global, "tentative") {
				return name + ": global addresses: " + global
			}
			if route := Exec(t, "auto"+name, "ip", "-6", "route", "show", "default"); !strings.Contains(route, "via fe80::") {
				return name + ": default route: " + route
			}
			return ""
		})
		address := strings.Split(strings.Fields(global[strings.Index(global, "inet6 "):])[1], "/")[0]
		Reaches(t, "auto"+name, "2001:db8:61::ffff", 5*time.Second)
		hostReaches(t, address)
	}
}

// TestDuplicateIPv6: duplicate address detection works on a VF that is not trusted: an address that the host has on the PF, or another
// container on a VF, is found to be taken.
func TestDuplicateIPv6(t *testing.T) {
	asBefore(t)
	const mac, same = "02:00:00:00:00:a6", "2001:db8:62::ff:fe00:a6" // which SLAAC makes of that MAC (RFC 4291, appendix A)
	onPF(t, same)
	sriov(t, "auto", "10.62.0.0/24", "--ipv6", "--subnet", "fe80::/64", "--ipam-opt", "slaac=yes", "-o", "numvfs=3")
	Container(t, "late", "--net", "auto", "--mac-address", mac)
	Within(t, 15*time.Second, func() string {
		Advertise(t, pf, netip.MustParsePrefix("2001:db8:62::/64"))
		// The kernel removes an address of its own that is taken, so that only its log has the reason.
		if said, err := Try("sh", "-c", "dmesg | grep 'eth0: IPv6 duplicate address "+same+" '"); err != nil {
			return "the host's address is not found to be taken: " + said + global6(t, "late")
		}
		return ""
	})
	Within(t, 5*time.Second, func() string { return global6(t, "late") })
	Container(t, "first", "--net", "auto")
	Container(t, "second", "--net", "auto")
	for _, c := range []string{"first", "second"} {
		ipIn(t, c, "addr add 2001:db8:62::5/64 dev eth0")
		Within(t, 10*time.Second, func() string {
			has := ipIn(t, c, "-o addr show dev eth0 to 2001:db8:62::5")
			if failed := strings.Contains(has, "dadfailed"); failed != (c == "second") || strings.Contains(has, "tentative") && !failed {
				return c + " has " + has
			}
			return ""
		})
	}
}

// TestManyGroups: what docs/tuning.md says about the multicast groups of a VF that igbvf drives: 30 get through, and neither allmulti nor
// trust helps. The addresses of a container that are too many are not found by their neighbours.
func TestManyGroups(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "--ipv6", "--subnet", "2001:db8:1::/64", "-o", "numvfs=2", "-o", "allmulti=yes", "-o", "trust=on")
	Container(t, "many", "--net", "n")
	Container(t, "peer", "--net", "n")
	for i := range 40 {
		ipIn(t, "many", fmt.Sprintf("addr add 2001:db8:1::aa:%d/64 nodad dev eth0", i+1))
	}
	Reaches(t, "peer", "2001:db8:1::aa:1", 5*time.Second)
	CannotReach(t, "peer", "2001:db8:1::aa:40")
}
