//go:build lab

package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// Cases of public bug reports, about this and other software that gives NICs to containers.

// configured gives the second NIC what a host's configuration has besides addresses, and returns how to read it.
func configured(t *testing.T) (read func() string) {
	t.Helper()
	Sh(t, `set -e
ip link set `+another+` up
ip addr add 192.0.2.10/24 metric 77 dev `+another+`
ip addr add 203.0.113.7/24 noprefixroute dev `+another+`
ip route add 203.0.113.0/24 dev `+another+` proto kernel scope link src 203.0.113.7 metric 100
ip route add 198.18.0.0/15 via 203.0.113.1 proto static metric 100
ip -6 addr add 2001:db8::10/64 dev `+another+`
until ip -6 route add 2001:db8:1::/48 via 2001:db8::1 src 2001:db8::10; do sleep 0.5; done
while ip -6 addr show dev `+another+` | grep -q tentative; do sleep 0.5; done # also the link-local address, which DAD may take longer for
ip neigh add 192.0.2.99 lladdr 02:00:5e:00:53:63 nud permanent dev `+another+`
tc qdisc replace dev `+another+` root pfifo limit 555
cd /proc/sys/net/ipv4/conf/`+another+`; echo 2 >rp_filter; echo 1 >arp_ignore; echo 2 >arp_announce`)
	t.Cleanup(func() {
		Sh(t, `ip addr flush dev `+another+`; ip neigh flush nud permanent dev `+another+`; tc qdisc del dev `+another+` root; ip link set `+another+` down
cd /proc/sys/net/ipv4/conf/`+another+`; for f in rp_filter arp_ignore arp_announce; do cat ../default/$f >$f; done`)
	})
	return func() string {
		// What counts on is cut off: expiry times of nothing here, and states of neighbours that were learnt.
		out, err := Try("sh", "-c", `ip -o addr show dev `+another+` | sed 's/^[0-9]*: //'; ip route show table all dev `+another+` | sort; ip -6 route show table all dev `+another+` | sort
ip neigh show nud permanent dev `+another+`; tc qdisc show dev `+another+` | sed 's/qdisc \([a-z_]*\) [0-9a-f]*:/\1/'
cd /proc/sys/net/ipv4/conf/`+another+` && grep . rp_filter arp_ignore arp_announce`)
		if err != nil {
			return out + err.Error()
		}
		return out
	}
}

// TestHostConfiguration: a whole device comes back with all that its host had set on it: the metric of an address, NetworkManager's own
// connected routes, a route with a source address, permanent neighbours, the qdisc and sysctls (canonical/lxd#5832, docker/docs#5899).
func TestHostConfiguration(t *testing.T) {
	asBefore(t)
	read := configured(t)
	before := read()
	Network(t, "whole", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.7.0.0/24", "-o", "netdevice="+another, "-o", "mode=passthrough")
	for range 2 {
		Docker(t, "run", "--rm", "--net", "whole", "lab", "true")
		Within(t, 20*time.Second, func() string {
			if now := read(); now != before {
				return "the host has\n" + now + "\nbut had\n" + before
			}
			return ""
		})
	}
}

// TestVLANBridgePort: a whole device that is a port of a VLAN-aware bridge comes back into its VLANs, not into VLAN 1, and isolated as it
// was (openwrt/openwrt#14195).
func TestVLANBridgePort(t *testing.T) {
	asBefore(t)
	Sh(t, `set -e
ip link add br7 type bridge vlan_filtering 1
ip link set br7 up; ip link set `+another+` master br7; ip link set `+another+` up
bridge vlan add vid 100 pvid untagged dev `+another+`; bridge vlan add vid 200-210 dev `+another+`; bridge vlan del vid 1 dev `+another+`
bridge link set dev `+another+` isolated on`)
	t.Cleanup(func() { Sh(t, "ip link del br7; ip link set "+another+" down") })
	read := func() string {
		out, err := Try("sh", "-c", "bridge vlan show dev "+another+"; bridge -d link show dev "+another+" | grep -o 'master [a-z0-9]*\\|isolated [a-z]*'")
		if err != nil {
			return out + err.Error()
		}
		return out
	}
	before := read()
	if !strings.Contains(before, "isolated on") {
		t.Fatalf("the port is %s", before)
	}
	Network(t, "port", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.7.0.0/24", "-o", "netdevice="+another, "-o", "mode=passthrough",
		"-o", "force=yes")
	Docker(t, "run", "--rm", "--net", "port", "lab", "true")
	Within(t, 20*time.Second, func() string {
		if now := read(); now != before {
			return "the port is\n" + now + "\nbut was\n" + before
		}
		return ""
	})
}

// TestCannotStart: containers that the engine cannot start, each for another reason, leave the whole device as it was (lxc/lxc#2733).
func TestCannotStart(t *testing.T) {
	asBefore(t)
	whole(t)
	before := host(t)
	for _, why := range [][]string{
		{"lab", "/no/such/program"}, {"--device", "/dev/nosuch", "lab", "true"}, {"--sysctl", "net.ipv4.no_such_thing=1", "lab", "true"},
	} {
		if _, err := Try("docker", append([]string{"run", "--rm", "--net", "whole"}, why...)...); err == nil {
			t.Fatalf("docker run %s: succeeded", strings.Join(why, " "))
		}
		Within(t, 20*time.Second, func() string {
			if now := host(t); now != before {
				return strings.Join(why, " ") + ": the host is\n" + now + "\nbut was\n" + before
			}
			return ""
		})
	}
	Docker(t, "run", "--rm", "--net", "whole", "lab", "ip", "link", "show", "eth0")
}

// TestSharedNamespace: a container whose network namespace another one shares is stopped, which does not end the namespace. Its VF
// serves the next container all the same (moby/moby#24935).
func TestSharedNamespace(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=1")
	Container(t, "owner", "--net", "n")
	Container(t, "guest", "--net", "container:owner")
	Exec(t, "guest", "ip", "link", "show", "eth0")
	Docker(t, "stop", "-t1", "owner")
	Docker(t, "run", "--rm", "--net", "n", "lab", "ip", "link", "show", "eth0")
	if links := Exec(t, "guest", "ip", "-o", "link"); strings.Contains(links, "eth0") {
		t.Errorf("the second container still has a VF: %s", links)
	}
	Docker(t, "start", "owner")
	Exec(t, "owner", "ip", "link", "show", "eth0")
}

// TestHostHasEth0: a host whose own NIC is called eth0 (net.ifnames=0): it keeps name, state and address while containers that have an
// eth0 of their own end in every way (lxc/incus#146).
func TestHostHasEth0(t *testing.T) {
	asBefore(t)
	Sh(t, "ip link set "+another+" down; ip link set "+another+" name eth0; ip addr add 192.0.2.13/24 dev eth0; ip link set eth0 up")
	t.Cleanup(func() {
		Sh(t, "ip addr flush dev eth0; ip link set eth0 down; ip link property del dev eth0 altname "+another+" 2>/dev/null; ip link set eth0 name "+another)
	})
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=1")
	const state = "cat /sys/class/net/eth0/ifindex; ip -o addr show dev eth0 scope global; ip -o link show up dev eth0 | grep -c eth0"
	before := Sh(t, state)
	for _, way := range []string{"kill -9 $(docker inspect -f '{{.State.Pid}}' web1)", "docker rm -f web1", "docker stop -t1 web1"} {
		Docker(t, "run", "-d", "--name", "web1", "--net", "n", "lab", "sleep", "1000000")
		Sh(t, way)
		_, _ = Try("docker", "rm", "-f", "web1")
		Within(t, 20*time.Second, func() string {
			if now := Sh(t, state); now != before {
				return way + ": eth0 is\n" + now + "\nbut was\n" + before
			}
			if _, err := Try("ip", "link", "show", pf+"v0"); err != nil {
				return way + ": the VF is not at home under its name: " + err.Error()
			}
			return ""
		})
	}
}

// TestRoutedNetworks: containers of two networks with ipvlan_mode=l3 on one device reach each other without a gateway, a container can be
// on both, and so can one of a subnet of one address (moby/libnetwork#964, moby/moby#48576).
func TestRoutedNetworks(t *testing.T) {
	Sh(t, "ip link set "+pf+" up")
	t.Cleanup(func() { Sh(t, "ip link set "+pf+" down") })
	asBefore(t)
	for name, subnets := range map[string][]string{
		"red":  {"--subnet", "10.81.7.0/24", "--ipv6", "--subnet", "fd00:81::/64"},
		"blue": {"--subnet", "10.82.7.0/24", "--ipv6", "--subnet", "fd00:82::/64"},
		"one":  {"--subnet", "10.83.7.9/32"},
	} {
		args := []string{"-d", Plugin, "--ipam-driver", Plugin, "-o", "netdevice=" + pf, "-o", "mode=ipvlan", "-o", "ipvlan_mode=l3"}
		if name == "one" {
			args = append(args, "--ipam-opt", "gateway=none") // which engines before 28 would give the one address
		}
		Network(t, name, append(args, subnets...)...)
	}
	Container(t, "red1", "--net", "red", "--ip", "10.81.7.1", "--ip6", "fd00:81::1")
	Container(t, "blue1", "--net", "blue", "--ip", "10.82.7.254", "--ip6", "fd00:82::fe")
	Container(t, "single", "--net", "one")
	Reaches(t, "red1", "10.82.7.254", 10*time.Second)
	Reaches(t, "red1", "fd00:82::fe", 10*time.Second)
	Reaches(t, "blue1", "10.83.7.9", 10*time.Second)
	Docker(t, "network", "connect", "blue", "single")
	Docker(t, "network", "connect", "red", "blue1")
	Reaches(t, "single", "10.81.7.1", 10*time.Second)
	Reaches(t, "blue1", "10.81.7.1", 10*time.Second)
	Docker(t, "restart", "-t1", "single", "blue1")
	Reaches(t, "single", "10.81.7.1", 10*time.Second)
	for _, c := range []string{"red1", "blue1", "single"} {
		if routes := Exec(t, c, "ip", "route"); strings.Count(routes, "default") != 1 {
			t.Errorf("%s: routes %s", c, routes)
		}
	}
}

// TestVLANsInside: what trunk users do, VLAN devices and QinQ on a trusted VF, does not reach the next container (openshift/openshift-docs#74534).
func TestVLANsInside(t *testing.T) {
	asBefore(t)
	sriov(t, "trunk", "10.1.0.0/24", "-o", "numvfs=2", "-o", "privileged=yes")
	for i, c := range []string{"one1", "two2"} {
		Container(t, c, "--net", "trunk", "--cap-add", "NET_ADMIN")
		Exec(t, c, "sh", "-c", `set -e; ip link add link eth0 name eth0.30 type vlan id 30; ip link add link eth0.30 name in type vlan id 31
ip addr add 10.30.0.`+string(rune('1'+i))+`/24 dev eth0.30; ip link set eth0.30 up; ip link set in up; ip link set eth0 mtu 1400`)
	}
	Reaches(t, "one1", "10.30.0.2", 10*time.Second)
	Docker(t, "rm", "-f", "one1")
	Docker(t, "stop", "-t1", "two2")
	Docker(t, "rm", "two2")
	Docker(t, "network", "rm", "trunk")
	sriov(t, "plain", "10.1.0.0/24", "-o", "numvfs=2")
	Container(t, "next1", "--net", "plain")
	if links := Exec(t, "next1", "ip", "-o", "link"); strings.Count(links, "\n") != 1 || !strings.Contains(links, "mtu 1500") {
		t.Errorf("the next container has %s", links)
	}
	if line := vfLine(t, MAC(t, "next1", "plain")); !strings.Contains(line, "spoof checking on") || !strings.Contains(line, "trust off") {
		t.Errorf("its VF is %s", line)
	}
}

// TestDHCP: a DHCP server on the PF's side has a reservation for a container's MAC, and the container on a VF gets that address
// (containernetworking/cni#232).
func TestDHCP(t *testing.T) {
	asBefore(t)
	Sh(t, "ip link set "+pf+" up; ip addr add 10.81.11.1/24 dev "+pf)
	t.Cleanup(func() { Sh(t, "ip addr del 10.81.11.1/24 dev "+pf+"; ip link set "+pf+" down") })
	dir := t.TempDir()
	config := "interface " + pf + "\nstart 10.81.11.100\nend 10.81.11.110\nlease_file " + dir + "/leases\npidfile " + dir + "/pid\n" +
		"option subnet 255.255.255.0\nstatic_lease 02:81:11:00:00:05 10.81.11.50\n"
	if err := os.WriteFile(filepath.Join(dir, "conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	Sh(t, ": >"+dir+"/leases; busybox udhcpd "+dir+"/conf")
	t.Cleanup(func() { Sh(t, "kill $(cat "+dir+"/pid)") })
	Network(t, "leased", "-d", Plugin, "--ipam-driver", "null", "-o", "netdevice="+pf, "-o", "numvfs=1")
	out := Sh(t, "docker run --rm --net leased --mac-address 02:81:11:00:00:05 lab udhcpc -f -q -n -i eth0 -t 8 -T 3 -s /bin/true 2>&1")
	if !strings.Contains(out, "lease of 10.81.11.50 obtained") {
		t.Errorf("want 10.81.11.50: %s", out)
	}
}

// TestCarriesVLAN: a NIC that carries a VLAN device of the host is not handed over, whether the device was there when the network was
// created or has come since; the VLAN device keeps state, addresses and routes (MichaIng/DietPi#6884).
func TestCarriesVLAN(t *testing.T) {
	asBefore(t)
	const add = "ip link add link " + another + " name host50 type vlan id 50; ip link set host50 up; ip addr add 10.99.5.1/24 dev host50; " +
		"ip -6 addr add fd00:99:5::1/64 nodad dev host50; ip route add 198.51.100.0/24 via 10.99.5.254 dev host50"
	const state = "ip -o link show up dev host50 | grep -c host50; ip -o addr show dev host50 scope global | sed 's/^[0-9]*: //'; " +
		"(ip route show dev host50; ip -6 route show dev host50 | grep ^fd) | sed 's/ linkdown//'" // until the NIC has carrier
	const why = another + " carries host50 (vlan); the host would lose that; if that is meant, say force=yes"
	whole := []string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.7.0.0/24", "-o", "netdevice=" + another, "-o", "mode=passthrough"}
	Sh(t, "ip link set "+another+" up; "+add)
	t.Cleanup(func() { Sh(t, "ip link del host50; ip link set "+another+" down") })
	before := Sh(t, state)
	Refused(t, "option netdevice: "+why, append(append([]string{"network", "create"}, whole...), "x")...)
	Sh(t, "ip link del host50")
	Network(t, "whole", whole...)
	Sh(t, add)
	Refused(t, why, "run", "--rm", "--net", "whole", "lab", "true")
	if now := Sh(t, state); now != before {
		t.Errorf("host50 has\n%s\nbut had\n%s", now, before)
	}
}
