//go:build engine

package engine

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

const bundle = "../../../bin/plugin"

func TestMain(m *testing.M) {
	if err := Install(bundle); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := Record(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// veth makes a pair of devices: host end and its peer, which stays in the host to talk to.
func veth(t *testing.T, name, address string) {
	t.Helper()
	Note(t, "! veth "+name+" "+address)
	Sh(t, "ip link add "+name+" type veth peer name "+name+"p && ip link set "+name+"p up && ip addr add "+address+" dev "+name+"p")
	t.Cleanup(func() { _, _ = Try("ip", "link", "del", name+"p") })
}

// passthrough makes a network that hands a device over.
func passthrough(t *testing.T, name, device, subnet string, options ...string) {
	t.Helper()
	ours(t, "passthrough", name, device, subnet, options...)
}

// ours makes a network of the plugin's, with its addresses.
func ours(t *testing.T, mode, name, device, subnet string, options ...string) {
	t.Helper()
	args := []string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", subnet, "-o", "netdevice=" + device, "-o", "mode=" + mode}
	Network(t, name, append(args, options...)...)
}

// sendsNames returns true for engines that send the IPAM driver a container's name, 29 and newer: the container has its address again.
func sendsNames(t *testing.T) bool {
	t.Helper()
	major, _, _ := strings.Cut(Docker(t, "version", "--format", "{{.Server.Version}}"), ".")
	n, err := strconv.Atoi(major)
	if err != nil {
		t.Fatal(err)
	}
	return n >= 29
}

// TestVethEnd: a device that a container had is restored, whatever the container did to it.
func TestVethEnd(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 mtu 1400 alias mine up; ip addr add 10.21.0.5/24 dev pt0; ip route add 10.22.0.0/24 via 10.21.0.1")
	const state = "ip -d link show pt0 | sed 's/^[0-9]*: //; s/qdisc [a-z]*//; s/state [A-Z]*//; s/,LOWER_UP//'; ip -o -4 addr show dev pt0 | sed 's/^[0-9]*: //'; ip route show dev pt0"
	before := Sh(t, state)
	passthrough(t, "n1", "pt0", "10.20.0.0/24", "--ip-range", "10.20.0.64/26")
	for _, way := range [][]string{{"stop", "-t1", "c1"}, {"kill", "c1"}, {"rm", "-f", "c1"}, {"network", "disconnect", "n1", "c1"}} {
		Docker(t, "run", "-d", "--name", "c1", "--cap-add", "NET_ADMIN", "--net", "n1", "lab", "sleep", "100000")
		Reaches(t, "c1", "10.20.0.1", 5*time.Second)
		if got := Exec(t, "c1", "ip", "route"); strings.Contains(got, "default") {
			t.Errorf("a default route from nowhere: %s", got)
		}
		Exec(t, "c1", "sh", "-c", "ip link set eth0 down; ip link set eth0 mtu 1200 address 02:66:66:66:66:66 promisc on")
		Docker(t, way...)
		Within(t, 10*time.Second, func() string {
			if now, err := Try("sh", "-c", state); err != nil || now != before {
				return strings.Join(way, " ") + ": the device is\n" + now + "\nbut was\n" + before
			}
			return ""
		})
		_, _ = Try("docker", "rm", "-f", "c1")
	}
}

// TestOneAtATime: the error of the second container names the endpoint that has the device; --mac-address and connect work as with any network.
func TestOneAtATime(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	veth(t, "pt1", "10.30.0.1/24")
	passthrough(t, "n1", "pt0", "10.20.0.0/24", "--gateway", "10.20.0.1")
	passthrough(t, "n2", "pt1", "10.30.0.0/24", "-o", "prefix=data")
	Container(t, "c1", "--net", "n1", "--mac-address", "02:00:00:00:00:42")
	if got := Exec(t, "c1", "cat", "/sys/class/net/eth0/address"); got != "02:00:00:00:00:42" {
		t.Errorf("mac %s", got)
	}
	if got := Exec(t, "c1", "ip", "route"); !strings.Contains(got, "default via 10.20.0.1") {
		t.Errorf("routes: %s", got)
	}
	Refused(t, "a device that is handed over whole serves one container at a time", "run", "--rm", "--net", "n1", "lab", "true")
	Docker(t, "network", "connect", "n2", "c1")
	Exec(t, "c1", "ip", "link", "show", "data0")
	Reaches(t, "c1", "10.30.0.1", 5*time.Second)
	Docker(t, "network", "disconnect", "n2", "c1")
	Run(t, "ip", "link", "show", "pt1")
	if mac, in := MAC(t, "c1", "n1"), Exec(t, "c1", "cat", "/sys/class/net/eth0/address"); mac != in {
		t.Errorf("docker inspect shows %s, the device has %s", mac, in)
	}
}

// TestRefusals: what cannot work is refused when the network is made.
func TestRefusals(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Note(t, "! bridge br7")
	Sh(t, "ip link add br7 type bridge")
	defer Sh(t, "ip link del br7")
	veth(t, "gw0", "10.40.0.1/24")
	Note(t, "! router gw0 10.40.0.2/24 10.40.0.9")
	Sh(t, "ip link set gw0 up; ip addr add 10.40.0.2/24 dev gw0; ip route add default via 10.40.0.9 dev gw0")
	passthrough(t, "n1", "pt0", "10.20.0.0/24")
	id := Docker(t, "network", "inspect", "-f", "{{.Id}}", "n1")[:12]
	for _, c := range []struct{ device, mode, want string }{
		{"br7", "passthrough", "option netdevice: br7: a bridge cannot leave its network namespace; " +
			"use mode=macvlan on it, or hand over one of its ports"},
		{"lo", "passthrough", "option netdevice: lo: a loopback cannot leave its network namespace"},
		{"gw0", "passthrough", "option netdevice: gw0 carries the host's default route (through gw0); the host would lose that; if that is meant, say force=yes"},
		{"pt0", "passthrough", "option netdevice: pt0 is used by network " + id + Left(id)},
		{"pt0p", "sriov", "option netdevice: pt0p: it is not a PCI device, so it has no vfs; use another mode, such as passthrough"},
		{"pt0p", "bridge", `option mode: "bridge" is not allowed; allowed: sriov, passthrough, macvlan, ipvlan or ipoib`},
		{"nosuch", "sriov", "option netdevice: nosuch: no such device"},
	} {
		Refused(t, c.want, "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.9.0.0/24",
			"-o", "netdevice="+c.device, "-o", "mode="+c.mode, "refused")
	}
	if nets := Docker(t, "network", "ls", "--format", "{{.Name}}"); strings.Contains(nets, "refused") {
		t.Errorf("a refused network is there: %s", nets)
	}
}

// TestPluginRestarts: off and on, and killed, with a container that has the device.
func TestPluginRestarts(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	passthrough(t, "n1", "pt0", "10.20.0.0/24", "--gateway", "10.20.0.1")
	Container(t, "c1", "--net", "n1")
	address := Address(t, "c1", "n1")
	Docker(t, "plugin", "disable", "-f", Plugin)
	Reaches(t, "c1", "10.20.0.1", 5*time.Second)
	Docker(t, "plugin", "enable", Plugin)
	Refused(t, "a device that is handed over whole serves one container at a time", "run", "--rm", "--net", "n1", "lab", "true")
	Sh(t, "kill -9 $(pidof driver)")
	Docker(t, "stop", "-t1", "c1")
	Docker(t, "start", "c1")
	Reaches(t, "c1", "10.20.0.1", 5*time.Second)
	if now := Address(t, "c1", "n1"); (now == address) != sendsNames(t) || now == "10.20.0.1" {
		t.Errorf("the address is %s, was %s", now, address)
	}
}
