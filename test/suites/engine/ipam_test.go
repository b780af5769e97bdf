//go:build engine

package engine

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestIPAMForBridge: our addresses for Docker's own bridge driver, and a gateway, which it cannot be without.
func TestIPAMForBridge(t *testing.T) {
	Network(t, "br", "-d", "bridge", "--ipam-driver", Plugin, "--subnet", "10.50.0.0/24")
	Container(t, "b1", "--net", "br")
	Container(t, "b2", "--net", "br", "--ip", "10.50.0.77")
	Reaches(t, "b1", "10.50.0.77", 5*time.Second)
	Reaches(t, "b1", "10.50.0.1", 5*time.Second)
	_, err := Try("docker", "run", "--rm", "--net", "br", "--ip", "10.50.0.77", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "address 10.50.0.77: in use since ") {
		t.Errorf("an address twice: %v", err)
	}
}

// TestIPAMForMacvlan: the same for macvlan.
func TestIPAMForMacvlan(t *testing.T) {
	veth(t, "mv0", "10.60.0.1/24")
	Sh(t, "ip link set mv0 up")
	Network(t, "mv", "-d", "macvlan", "-o", "parent=mv0", "--ipam-driver", Plugin, "--subnet", "10.60.0.0/24",
		"--ip-range", "10.60.0.128/30", "--gateway", "10.60.0.1", "--aux-address", "host=10.60.0.129")
	for _, c := range []string{"m1", "m2", "m3"} {
		Container(t, c, "--net", "mv")
		if a := Address(t, c, "mv"); !strings.HasPrefix(a, "10.60.0.1") || len(a) != len("10.60.0.128") {
			t.Errorf("%s: address %s is outside 10.60.0.128/30", c, a)
		}
	}
	if _, err := Try("docker", "run", "--rm", "--net", "mv", "lab", "true"); err == nil || !strings.Contains(err.Error(), "10.60.0.128/30") {
		t.Errorf("a fourth address of three: %v", err)
	}
	Reaches(t, "m1", Address(t, "m3", "mv"), 5*time.Second)
}

// TestOtherIPAMDrivers: our devices with Docker's addresses, and without any.
func TestOtherIPAMDrivers(t *testing.T) {
	veth(t, "pt0", "10.70.0.1/24")
	Network(t, "theirs", "-d", Plugin, "--subnet", "10.70.0.0/24", "--ip-range", "10.70.0.64/26", "-o", "netdevice=pt0",
		"-o", "mode=passthrough", "-o", "gateway=none")
	Container(t, "c1", "--net", "theirs")
	Reaches(t, "c1", "10.70.0.1", 5*time.Second)
	if got := Exec(t, "c1", "ip", "route"); strings.Contains(got, "default") {
		t.Errorf("gateway=none: %s", got)
	}
	veth(t, "pt1", "10.71.0.1/24")
	Network(t, "bare", "-d", Plugin, "--ipam-driver", "null", "-o", "netdevice=pt1", "-o", "mode=passthrough")
	Container(t, "c2", "--net", "bare")
	if got := Exec(t, "c2", "ip", "-o", "-4", "addr", "show", "eth0"); got != "" {
		t.Errorf("an address from nowhere: %s", got)
	}
}

// TestNoSubnet: without a subnet there is nothing to give, and the error says what to add.
func TestNoSubnet(t *testing.T) {
	veth(t, "pt0", "10.80.0.1/24")
	_, err := Try("docker", "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "-o", "netdevice=pt0", "-o", "mode=passthrough", "x")
	if err == nil || !strings.Contains(err.Error(), "--subnet") {
		t.Errorf("%v", err)
	}
}

// children makes a macvlan network with our addresses on a device of its own.
func children(t *testing.T, name, device, ipam string, options ...string) {
	t.Helper()
	Sh(t, "ip link add "+device+" type veth peer name "+device+"p && ip link set "+device+" up && ip link set "+device+"p up")
	t.Cleanup(func() { _, _ = Try("ip", "link", "del", device) })
	args := append([]string{"-d", "macvlan", "-o", "parent=" + device, "--ipam-driver", ipam}, options...)
	Network(t, name, args...)
}

// TestManual runs the commands that docs/ipam.md shows.
func TestManual(t *testing.T) {
	page, err := os.ReadFile("../../../docs/ipam.md")
	if err != nil {
		t.Fatal(err)
	}
	veth(t, "enp1s0", "192.0.2.1/24")
	veth(t, "enp2s0", "198.51.100.1/24")
	n := 0
	for _, line := range strings.Split(strings.ReplaceAll(string(page), "\\\n", ""), "\n") {
		if !strings.HasPrefix(line, "    docker network create ") {
			continue
		}
		n++
		fields := strings.Fields(line)
		name := fields[len(fields)-1]
		Network(t, name, fields[3:len(fields)-1]...)
		Container(t, "c1", "--net", name)
		Docker(t, "rm", "-f", "c1")
		Docker(t, "network", "rm", name)
	}
	if n != 6 {
		t.Errorf("docs/ipam.md shows %d networks, want 6", n)
	}
}

// TestSubnets: a network with two subnets of one family goes on with the second when the first is full. The gateways take
// the first address of each.
func TestSubnets(t *testing.T) {
	children(t, "two", "mv1", Plugin, "--subnet", "10.61.0.0/30", "--gateway", "10.61.0.1", "--subnet", "10.62.0.0/30",
		"--gateway", "10.62.0.1", "--ipam-opt", "overflow=two")
	var got []string
	for _, c := range []string{"s1", "s2"} {
		Container(t, c, "--net", "two")
		got = append(got, Address(t, c, "two"))
	}
	if slices.Sort(got); !slices.Equal(got, []string{"10.61.0.2", "10.62.0.2"}) {
		t.Errorf("addresses %q", got)
	}
	if out := Exec(t, "s2", "ip", "-o", "-4", "addr", "show", "dev", "eth0"); !strings.Contains(out, Address(t, "s2", "two")+"/30") {
		t.Errorf("s2 has %s", out)
	}
	if _, err := Try("docker", "run", "--rm", "--net", "two", "lab", "true"); err == nil || !strings.Contains(err.Error(), "as the gateway; remove a container") {
		t.Errorf("a third address of two: %v", err)
	}
	Docker(t, "rm", "-f", "s2")
	Container(t, "s3", "--net", "two")
	if a := Address(t, "s3", "two"); !slices.Contains(got, a) {
		t.Errorf("s3 got %s", a)
	}
}

// TestSubnetsOfOurs: on our own networks a container on the second subnet has the gateway of that.
func TestSubnetsOfOurs(t *testing.T) {
	veth(t, "mv1", "10.61.0.1/30")
	Sh(t, "ip link set mv1 up; ip addr add 10.62.0.1/30 dev mv1p")
	Network(t, "ours", "-d", Plugin, "--ipam-driver", Plugin, "-o", "netdevice=mv1", "-o", "mode=macvlan", "--subnet", "10.61.0.0/30",
		"--gateway", "10.61.0.1", "--subnet", "10.62.0.0/30", "--gateway", "10.62.0.1", "--ipam-opt", "overflow=ours")
	for _, c := range []string{"o1", "o2"} {
		Container(t, c, "--net", "ours")
		gateway := strings.TrimSuffix(Address(t, c, "ours"), "2") + "1"
		if got := Exec(t, c, "ip", "route"); !strings.Contains(got, "default via "+gateway+" ") {
			t.Errorf("%s: routes %s, want %s", c, got, gateway)
		}
		Reaches(t, c, gateway, 5*time.Second)
	}
}

// TestTwoAddresses: on our own network without a gateway both addresses of a /31 are for containers, with every engine.
func TestTwoAddresses(t *testing.T) {
	veth(t, "mv1", "10.65.1.1/24")
	Sh(t, "ip link set mv1 up")
	Network(t, "link", "-d", Plugin, "--ipam-driver", Plugin, "-o", "netdevice=mv1", "-o", "mode=macvlan", "--subnet", "10.65.0.0/31")
	Container(t, "l1", "--net", "link")
	Container(t, "l2", "--net", "link")
	if a, b := Address(t, "l1", "link"), Address(t, "l2", "link"); a != "10.65.0.0" || b != "10.65.0.1" {
		t.Errorf("the addresses are %s and %s", a, b)
	}
	Reaches(t, "l1", "10.65.0.1", 5*time.Second)
	Refused(t, "all 2 addresses are in use; remove a container, or create the network with a larger --subnet", "run", "--rm", "--net", "link", "lab", "true")
}

// TestSharedPool: two networks on one segment share a pool, with what it excludes.
func TestSharedPool(t *testing.T) {
	options := []string{"--subnet", "10.63.0.0/29", "--gateway", "10.63.0.1", "--ipam-opt", "pool=lan",
		"--ipam-opt", "exclude=10.63.0.2-10.63.0.4"}
	children(t, "red", "mv1", Plugin, options...)
	children(t, "blue", "mv2", Plugin, options...)
	Container(t, "r1", "--net", "red")
	Container(t, "b1", "--net", "blue")
	if r, b := Address(t, "r1", "red"), Address(t, "b1", "blue"); r != "10.63.0.5" || b != "10.63.0.6" {
		t.Errorf("red has %s, blue %s", r, b)
	}
	_, err := Try("docker", "run", "--rm", "--net", "red", "--ip", "10.63.0.6", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "address 10.63.0.6: in use since ") {
		t.Errorf("red with blue's address: %v", err)
	}
	Container(t, "r2", "--net", "red", "--ip", "10.63.0.3")
	Refused(t, `pool "lan" has subnet 10.63.0.0/29; networks that share a pool must say the same of it`, "network", "create",
		"-d", "macvlan", "-o", "parent=mv1p", "--ipam-driver", Plugin, "--subnet", "10.64.0.0/29", "--ipam-opt", "pool=lan", "x")
	Docker(t, "rm", "-f", "r1", "r2")
	Docker(t, "network", "rm", "red")
	Docker(t, "restart", "-t1", "b1")
	want := "10.63.0.5"
	if sendsNames(t) {
		want = "10.63.0.6"
	}
	if a := Address(t, "b1", "blue"); a != want {
		t.Errorf("blue has %s, want %s", a, want)
	}
}

// TestGatewayOption: a gateway outside of the subnet, and none at all.
func TestGatewayOption(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	passthrough(t, "far", "pt0", "10.20.0.0/24", "--ipam-opt", "gateway=192.0.2.1")
	Container(t, "c1", "--net", "far")
	if got := Exec(t, "c1", "ip", "route"); !strings.Contains(got, "default via 192.0.2.1") {
		t.Errorf("routes: %s", got)
	}
	veth(t, "pt1", "10.21.0.1/24")
	passthrough(t, "routerless", "pt1", "10.21.0.0/24", "--ipam-opt", "gateway=none", "-o", "gateway=auto", "--aux-address", "host=10.21.0.2")
	Container(t, "c2", "--net", "routerless", "--ip", "10.21.0.3")
	if got := Exec(t, "c2", "ip", "route"); strings.Contains(got, "default") {
		t.Errorf("a default route from nowhere: %s", got)
	}
	Reaches(t, "c2", "10.21.0.1", 5*time.Second)
}

// TestDefaultPools: a network without a subnet gets one that the host has nothing to do with.
func TestDefaultPools(t *testing.T) {
	process(t, "pools", "DEFAULT_POOLS=10.65.0.0/16:24,fd00:65::/48:64")
	veth(t, "taken", "10.65.0.1/24")
	children(t, "first", "mv1", "pools", "--ipv6")
	children(t, "second", "mv2", "pools")
	Container(t, "c1", "--net", "first")
	Container(t, "c2", "--net", "second")
	if a, b := Address(t, "c1", "first"), Address(t, "c2", "second"); !strings.HasPrefix(a, "10.65.1.") || !strings.HasPrefix(b, "10.65.2.") {
		t.Errorf("addresses %s and %s", a, b)
	}
	if got := Exec(t, "c1", "ip", "-6", "addr", "show", "dev", "eth0"); !strings.Contains(got, "fd00:65::") {
		t.Errorf("c1 has %s", got)
	}
}

// TestStickyByMAC: a container that comes back with its MAC has its address, though others came meanwhile.
func TestStickyByMAC(t *testing.T) {
	process(t, "macs", "REQUIRE_MAC=true")
	children(t, "keep", "mv1", "macs", "--subnet", "10.66.0.0/24", "--ipam-opt", "sticky=1h", "--ipam-opt", "reuse=immediate")
	Container(t, "c1", "--net", "keep", "--mac-address", "02:00:00:00:00:42")
	was := Address(t, "c1", "keep")
	Docker(t, "rm", "-f", "c1")
	Container(t, "c2", "--net", "keep")
	Container(t, "c3", "--net", "keep", "--mac-address", "02:00:00:00:00:42")
	if other, now := Address(t, "c2", "keep"), Address(t, "c3", "keep"); now != was || other == was {
		t.Errorf("it had %s and has %s; another has %s", was, now, other)
	}
	children(t, "stay", "mv2", "macs", "--subnet", "10.68.0.0/24")
	if !staysAtRestart(t, "stay", "--mac-address", "02:00:00:00:00:43") {
		t.Error("it has another address")
	}
}

// TestStickyByName: by default a container has its address again when it is restarted, if the engine says who it is, as engines from 29 on do.
// Others do not, so that it gets the next one, as docs/ipam.md says.
func TestStickyByName(t *testing.T) {
	veth(t, "mv3", "10.69.0.1/24")
	ours(t, "macvlan", "named", "mv3", "10.69.0.0/24")
	says := apiMinor(t) >= 52 // engine 29.0
	if stays := staysAtRestart(t, "named"); stays != says {
		t.Errorf("the engine says who asks: %v; the container has its address again: %v", says, stays)
	}
}

// staysAtRestart starts a container on a network that has room, without any option for addresses, and restarts it in each way. It returns true
// if it has its address again each time, though another container has come meanwhile.
func staysAtRestart(t *testing.T, network string, options ...string) (stays bool) {
	t.Helper()
	stays = true
	Container(t, "stays", append(options, "--net", network, "--restart", "always")...)
	was := Address(t, "stays", network)
	for way, again := range map[string]func(){
		"docker restart": func() { Docker(t, "restart", "-t1", "stays") },
		"docker stop and start": func() {
			Docker(t, "stop", "-t1", "stays")
			Container(t, "comes", "--net", network)
			Docker(t, "start", "stays")
		},
		"--restart": func() {
			pid := Docker(t, "inspect", "-f", "{{.State.Pid}}", "stays")
			Sh(t, "kill -9 "+pid)
			Within(t, 20*time.Second, func() string {
				state := Docker(t, "inspect", "-f", "{{.State.Pid}} {{.State.Restarting}}", "stays")
				if strings.HasPrefix(state, pid+" ") || strings.HasPrefix(state, "0 ") || !strings.HasSuffix(state, " false") || Address(t, "stays", network) == "" {
					return "process and whether it is being restarted: " + state
				}
				return ""
			})
		},
	} {
		again()
		if now := Address(t, "stays", network); now != was {
			t.Logf("%s: it had %s and has %s", way, was, now)
			stays = false
		}
	}
	return stays
}

// TestProbe: what another machine on the segment has is passed over. The plugin has no right to open a packet socket.
func TestProbe(t *testing.T) {
	Note(t, "! log address is in use outside; it is skipped")
	veth(t, "lan0", "10.67.0.2/24")
	Sh(t, "ip link set lan0 up; ip netns add other; ip link set lan0p netns other; ip -n other addr add 10.67.0.2/24 dev lan0p; ip -n other link set lan0p up")
	t.Cleanup(func() { _, _ = Try("ip", "netns", "del", "other") })
	Network(t, "asked", "-d", "macvlan", "-o", "parent=lan0", "--ipam-driver", Plugin, "--subnet", "10.67.0.0/24", "--gateway", "10.67.0.1",
		"--ipam-opt", "probe=arp@lan0")
	Container(t, "c1", "--net", "asked")
	if a := Address(t, "c1", "asked"); a != "10.67.0.3" {
		t.Errorf("c1 has %s; 10.67.0.2 is another's", a)
	}
	Reaches(t, "c1", "10.67.0.2", 5*time.Second)
	if left := Sh(t, "ip neigh show dev lan0"); left != "" {
		t.Errorf("the host remembers %s", left)
	}
}

// TestSLAAC: the only global IPv6 address that a container has is the one that a router advertises.
func TestSLAAC(t *testing.T) {
	veth(t, "pt0", "10.69.0.1/24")
	Sh(t, "ip link set pt0 up")
	passthrough(t, "advertised", "pt0", "10.69.0.0/24", "--ipv6", "--subnet", "fe80::/64", "--ipam-opt", "slaac=yes")
	Container(t, "c1", "--net", "advertised")
	Within(t, 10*time.Second, func() string {
		Advertise(t, "pt0p", netip.MustParsePrefix("2001:db8:69::/64"))
		global := Exec(t, "c1", "ip", "-6", "addr", "show", "dev", "eth0", "scope", "global")
		if !strings.Contains(global, "inet6 2001:db8:69:") || strings.Count(global, "inet6") != 1 {
			return "global addresses: " + global + Exec(t, "c1", "ip", "-6", "addr", "show", "dev", "eth0")
		}
		if routes := Exec(t, "c1", "ip", "-6", "route"); strings.Count(routes, "default") != 1 {
			return "routes: " + routes
		}
		return ""
	})
}
