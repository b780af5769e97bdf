//go:build lab

package swarm

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// routing is the page whose commands and files TestBGP uses.
const routing = root + "docs/l3.md"

// distributed is how long a route may take to the other host, through two sessions of BGP on emulated processors.
const distributed = 15 * time.Second

// TestBGP is the story of docs/l3.md: containers of two hosts in different subnets, with a router between them, reach each other as soon
// as they run, and the routes to them go when they end or their host dies. The router is a network namespace of node1 with two VFs of its NIC.
func TestBGP(t *testing.T) {
	for _, n := range []node{one, two} {
		n.reach(t)
		n.sh(t, "mkdir -p bgp")
		n.lab(t, "put", root+"bin/plugin", "bgp/")
		n.sh(t, "docker plugin create "+Plugin+" bgp/plugin && docker plugin enable "+Plugin+" && ip link set enp1s0 up")
		t.Cleanup(func() { n.clear(t) })
	}
	router(t)
	one.joinRouter(t, "192.0.2.11", "2001:db8:1::11", nil)
	two.joinRouter(t, "198.51.100.12", "2001:db8:2::12", strings.NewReplacer("192.0.2.11", "198.51.100.12", "65011", "65012",
		"192.0.2.1;", "198.51.100.1;"))
	networks := docs.Commands(t, routing, "Networks on two hosts")
	one.sh(t, networks[0])
	two.sh(t, networks[1])
	for _, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"containers reach each other", routedContainers},
		{"both hosts have containers of one subnet", routedShared},
		{"the route of a subnet", routedSubnet},
		{"a route is removed by hand and the plugin is killed", routeRepaired},
		{"a container ends", routedEnd},
		{"a host dies", routedPowerCut},
	} {
		if !t.Run(part.name, part.run) {
			t.Log(one.try("birdc -s bgp/bird.sock show route all; birdc -s bgp/router.sock show protocols all; ip route; ip -6 route; ip route show table 117"))
			t.Fatal("the other parts need this one")
		}
	}
}

// clear removes what the test has made on a node.
func (n node) clear(t *testing.T) {
	t.Helper()
	n.sh(t, `kill $(cat bgp/*.pid 2>/dev/null) 2>/dev/null; docker rm -f $(docker ps -aq) 2>/dev/null; docker network rm routed whole shared 2>/dev/null
		docker plugin disable -f `+Plugin+` && docker plugin rm `+Plugin+`; ip netns del router 2>/dev/null
		echo 0 >/sys/class/net/enp1s0/device/sriov_numvfs; ip addr flush dev enp1s0; ip link set enp1s0 down; rm -rf bgp`)
}

// router makes the router.
func router(t *testing.T) {
	t.Helper()
	one.sh(t, `echo 2 >/sys/class/net/enp1s0/device/sriov_numvfs`)
	Within(t, 20*time.Second, func() string {
		_, err := one.try("udevadm settle; ip link show enp1s0v0 && ip link show enp1s0v1")
		if err != nil {
			return err.Error()
		}
		return ""
	})
	one.sh(t, `set -e; ip netns add router; ip -n router link set lo up
		leg() {
			ip link set $1 netns router; ip -n router link set $1 up
			ip -n router addr add $2 dev $1; ip -n router addr add $3 dev $1 nodad
		}
		leg enp1s0v0 192.0.2.1/24 2001:db8:1::1/64; leg enp1s0v1 198.51.100.1/24 2001:db8:2::1/64
		ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.arp_ignore=1`)
	one.write(t, "bgp/router.conf", strings.Join(docs.Commands(t, routing, "BIRD on the router"), "\n"))
	one.sh(t, "ip netns exec router bird -c bgp/router.conf -s bgp/router.sock -P bgp/router.pid")
}

// joinRouter gives a host its addresses and its BIRD.
func (n node) joinRouter(t *testing.T, v4, v6 string, own *strings.Replacer) {
	t.Helper()
	conf := strings.Join(docs.Commands(t, routing, "BIRD on a host"), "\n")
	if own != nil {
		conf = own.Replace(conf)
	}
	n.write(t, "bgp/bird.conf", conf)
	n.sh(t, "ip addr add "+v4+"/24 dev enp1s0; ip addr add "+v6+"/64 dev enp1s0 nodad; bird -c bgp/bird.conf -s bgp/bird.sock -P bgp/bird.pid")
	Within(t, time.Minute, func() string {
		if state := n.sh(t, "birdc -s bgp/bird.sock show protocols uplink"); !strings.Contains(state, "Established") {
			return state
		}
		return ""
	})
}

// write writes a file.
func (n node) write(t *testing.T, name, text string) {
	t.Helper()
	n.sh(t, "cat >"+name+" <<'END'\n"+text+"\nEND")
}

// routed is a container on a routed network.
type routed struct {
	node   node
	id     string
	v4, v6 string
}

// container starts a container on a network of the node.
func (n node) container(t *testing.T, network, v4, v6 string) routed {
	t.Helper()
	args := " --ip " + v4
	if v6 != "" {
		args += " --ip6 " + v6
	}
	return routed{n, n.sh(t, "docker run -d --net "+network+args+" lab sleep 100000"), v4, v6}
}

// reaches waits until a container reaches another, and says how long it took.
func (c routed) reaches(t *testing.T, other routed) {
	t.Helper()
	began := time.Now()
	for _, address := range []string{other.v4, other.v6} {
		if address == "" || strings.Contains(address, ":") && c.v6 == "" {
			continue
		}
		Within(t, distributed, func() string {
			if out, err := engines[c.node].Exec(c.id, "ping", "-c1", "-W1", address); err != nil {
				return c.v4 + " does not reach " + address + ": " + out + " " + err.Error()
			}
			return ""
		})
	}
	t.Logf("%s reaches %s after %s", c.v4, other.v4, time.Since(began).Round(time.Millisecond))
}

// wantRoute waits until a node has a route to a destination, or has none.
func (n node) wantRoute(t *testing.T, dst string, want bool, bound time.Duration) {
	t.Helper()
	began := time.Now()
	Within(t, bound, func() string {
		if got := n.sh(t, "ip route show "+dst); (got != "") != want {
			return string(n) + " has for " + dst + " the route " + got
		}
		return ""
	})
	t.Logf("%s: route to %s: %v after %s", n, dst, want, time.Since(began).Round(time.Millisecond))
}

// The two containers of the story.
const (
	first4, first6   = "10.1.1.5", "fd00:1:1::5"
	second4, second6 = "10.1.2.5", "fd00:1:2::5"
)

func routedContainers(t *testing.T) {
	a := one.container(t, "routed", first4, first6)
	b := two.container(t, "routed", second4, second6)
	a.reaches(t, b)
	b.reaches(t, a)
	late := two.container(t, "routed", "10.1.2.6", "fd00:1:2::6")
	late.reaches(t, a)
	a.reaches(t, late)
}

// again finds a container of the story that an earlier part has started.
func (n node) again(t *testing.T, v4, v6 string) routed {
	t.Helper()
	return routed{n, n.sh(t, `docker ps -q | xargs docker inspect -f '{{.Id}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' | `+
		`sed -n 's/ `+v4+`$//p'`), v4, v6}
}

// routedShared: node2 has a network with the subnet of node1's, with other addresses, as two nodes have whose pools are in an etcd.
func routedShared(t *testing.T) {
	two.sh(t, "docker network create -d "+Plugin+" --ipam-driver "+Plugin+" --subnet 10.1.1.0/24 -o netdevice=enp1s0 -o mode=ipvlan "+
		"-o ipvlan_mode=l3 shared")
	b := two.container(t, "shared", "10.1.1.9", "")
	a := one.again(t, first4, "")
	b.reaches(t, a)
	a.reaches(t, b)
	two.sh(t, "docker rm -f "+b.id+" && docker network rm shared")
	one.wantRoute(t, b.v4, false, distributed)
}

func routedSubnet(t *testing.T) {
	one.sh(t, "docker network create -d "+Plugin+" --ipam-driver "+Plugin+" --subnet 10.1.3.0/24 -o netdevice=enp1s0 -o mode=ipvlan "+
		"-o ipvlan_mode=l3 -o announce=subnet whole")
	a, b := one.container(t, "whole", "10.1.3.5", ""), one.container(t, "whole", "10.1.3.6", "")
	two.wantRoute(t, "10.1.3.0/24", true, distributed)
	peer := two.again(t, second4, second6)
	peer.reaches(t, a)
	peer.reaches(t, b)
	one.sh(t, "docker rm -f "+a.id)
	peer.reaches(t, b)
	one.sh(t, "docker rm -f "+b.id)
	two.wantRoute(t, "10.1.3.0/24", false, distributed)
}

func routeRepaired(t *testing.T) {
	one.sh(t, "ip route del "+first4+" table 117; ip route add 10.1.1.77 dev enp1s0 table 117 proto 117; ip route add 10.1.1.78 dev enp1s0 table 117 proto static; kill -9 $(pidof driver)")
	two.wantRoute(t, first4, true, 30*time.Second)
	if got := one.sh(t, "ip route show table 117 10.1.1.77"); got == "" {
		t.Error("a route that the ledger does not have is gone: its container may be running")
	}
	if got := one.sh(t, "ip route show table 117 10.1.1.78"); got == "" {
		t.Error("the route of an administrator is gone")
	}
	one.sh(t, "ip route del 10.1.1.78 table 117; ip route del 10.1.1.77 table 117")
	two.again(t, second4, second6).reaches(t, one.again(t, first4, first6))
}

func routedEnd(t *testing.T) {
	one.sh(t, "docker rm -f "+one.again(t, first4, first6).id)
	two.wantRoute(t, first4, false, distributed)
	if got := one.sh(t, "ip route show table 117; ip -6 route show table 117"); got != "" {
		t.Errorf("node1 still announces %s", got)
	}
	a := one.container(t, "routed", first4, first6)
	two.again(t, second4, second6).reaches(t, a)
}

// routedPowerCut: the hold time of the example is nine seconds.
func routedPowerCut(t *testing.T) {
	two.lab(t, "off")
	one.wantRoute(t, second4, false, 30*time.Second)
	two.lab(t, "on")
	two.reach(t)
	Within(t, time.Minute, func() string {
		if got, err := two.try("docker plugin inspect -f '{{.Enabled}}' " + Plugin); err != nil || got != "true" {
			return got
		}
		return ""
	})
	if got := two.sh(t, "ip route show table 117 2>/dev/null || true"); got != "" {
		t.Errorf("after its boot node2 announces %s", got)
	}
}
