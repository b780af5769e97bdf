//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// thin makes a network of children on the NIC.
func thin(t *testing.T, mode string, options ...string) {
	t.Helper()
	args := []string{"-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6.0.0/24", "-o", "netdevice=" + pf, "-o", "mode=" + mode}
	Network(t, mode+"s", append(args, options...)...)
}

// TestThin: containers with a macvlan or an ipvlan on one NIC reach each other, and a VF of the NIC; the kernel
// loads the modules; nothing is left of them, also when the engine is killed.
func TestThin(t *testing.T) {
	Sh(t, "ip link set "+pf+" up; rmmod ipvlan macvlan 2>/dev/null || true")
	t.Cleanup(func() { Sh(t, "ip link set "+pf+" down") })
	asBefore(t)
	sriov(t, "vfs", "10.6.0.0/24", "-o", "numvfs=1")
	Container(t, "vf11", "--net", "vfs", "--ip", "10.6.0.99")
	before := host(t)
	gone := func(what string) {
		t.Helper()
		Within(t, 20*time.Second, func() string {
			if now := host(t); now != before {
				return what + ": the host is\n" + now + "\nbut was\n" + before
			}
			return ""
		})
	}
	dirty := func(container string) {
		t.Helper()
		Exec(t, container, "ip", "link", "set", "eth0", "down") // Linux 6.1 renames none that is up
		Exec(t, container, "ip", "link", "set", "eth0", "mtu", "1300", "name", "gone")
	}
	thin(t, "ipvlan")
	Container(t, "one1", "--net", "ipvlans")
	Container(t, "two2", "--net", "ipvlans", "--cap-add", "NET_ADMIN")
	Reaches(t, "one1", Address(t, "two2", "ipvlans"), 5*time.Second)
	Reaches(t, "two2", "10.6.0.99", 5*time.Second)
	if link := Exec(t, "one1", "ip", "-d", "link", "show", "eth0"); !strings.Contains(link, "ipvlan ") {
		t.Errorf("not an ipvlan: %s", link)
	}
	if in, own := Exec(t, "one1", "cat", "/sys/class/net/eth0/address"), Sh(t, "cat /sys/class/net/"+pf+"/address"); in != own {
		t.Errorf("mac %s, %s has %s", in, pf, own)
	}
	dirty("two2")
	Docker(t, "rm", "-f", "one1", "two2")
	gone("ipvlan")
	Docker(t, "network", "rm", "ipvlans")

	thin(t, "macvlan")
	Container(t, "own1", "--net", "macvlans", "--mac-address", "02:00:00:00:00:42", "--cap-add", "NET_ADMIN")
	link, mac := Exec(t, "own1", "ip", "-d", "link", "show", "eth0"), MAC(t, "own1", "macvlans")
	if !strings.Contains(link, "macvlan ") || !strings.Contains(link, "02:00:00:00:00:42") || mac != "02:00:00:00:00:42" {
		t.Errorf("docker inspect shows %s, and it is %s", mac, link)
	}
	Reaches(t, "own1", "10.6.0.99", 5*time.Second)
	Run(t, "engine", "kill")
	Run(t, "engine", "start")
	Docker(t, "start", "own1", "vf11")
	Reaches(t, "own1", "10.6.0.99", 10*time.Second)
	dirty("own1")
	Docker(t, "rm", "-f", "own1")
	gone("macvlan of a killed engine")
}

// TestVLANParents: networks with one VLAN of one NIC share its VLAN device, which the plugin creates and removes; their containers reach a
// VF in that VLAN, and not one in another. The engine or the plugin may be killed in between.
func TestVLANParents(t *testing.T) {
	Sh(t, "ip link set "+pf+" up; rmmod 8021q 2>/dev/null || true")
	t.Cleanup(func() { Sh(t, "ip link set "+pf+" down") })
	asBefore(t)
	sriov(t, "vf100", "10.6.0.0/24", "-o", "numvfs=2", "-o", "vlan=100")
	sriov(t, "vf200", "10.6.0.0/24", "-o", "vlan=200")
	Container(t, "in100", "--net", "vf100", "--ip", "10.6.0.99")
	Container(t, "in200", "--net", "vf200", "--ip", "10.6.0.98")
	thin(t, "macvlan", "-o", "vlan=100")
	Network(t, "named", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6.0.0/24", "-o", "netdevice="+pf+".100", "-o", "mode=macvlan")
	thin(t, "ipvlan", "-o", "vlan=200", "-o", "ipvlan_flag=private")
	if link := Sh(t, "ip -d link show "+pf+".100"); !strings.Contains(link, "vlan protocol 802.1Q id 100") {
		t.Errorf("the vlan device: %s", link)
	}
	Container(t, "m1", "--net", "macvlans", "--ip", "10.6.0.11")
	Container(t, "m2", "--net", "named", "--ip", "10.6.0.12")
	Container(t, "i1", "--net", "ipvlans", "--ip", "10.6.0.13")
	Container(t, "i2", "--net", "ipvlans", "--ip", "10.6.0.14")
	if link := Exec(t, "i1", "ip", "-d", "link", "show", "eth0"); !strings.Contains(link, "ipvlan") || !strings.Contains(link, "mode l2 private") {
		t.Errorf("want an ipvlan with flag private: %s", link)
	}
	Reaches(t, "m1", "10.6.0.12", 5*time.Second)
	Reaches(t, "m1", "10.6.0.99", 5*time.Second)
	Reaches(t, "i2", "10.6.0.98", 5*time.Second)
	Reaches(t, "i1", "10.6.0.98", 5*time.Second)
	for c, address := range map[string]string{"m1": "10.6.0.98", "m2": "10.6.0.13", "i1": "10.6.0.99", "in100": "10.6.0.13"} {
		if _, err := Try("docker", "exec", c, "ping", "-c1", "-W1", address); err == nil {
			t.Errorf("%s reaches %s in another vlan", c, address)
		}
	}
	if _, err := Try("docker", "exec", "i1", "ping", "-c1", "-W1", "10.6.0.14"); err == nil {
		t.Error("private ipvlans reach each other")
	}
	Sh(t, "kill -9 $(pidof driver)")
	Docker(t, "rm", "-f", "m1")
	Docker(t, "network", "rm", "macvlans")
	Reaches(t, "m2", "10.6.0.99", 20*time.Second)
	Run(t, "engine", "kill")
	Sh(t, "ip link del "+pf+".100") // as after a reboot
	Run(t, "engine", "start")
	Docker(t, "start", "m2", "in100")
	Reaches(t, "m2", "10.6.0.99", 20*time.Second)
	Docker(t, "rm", "-f", "m2", "i1", "i2")
	Docker(t, "network", "rm", "named", "ipvlans")
	if left, err := Try("ip", "link", "show", "type", "vlan"); err != nil || left != "" {
		t.Errorf("vlan devices are left: %s, %v", left, err)
	}
}

// TestHostAccessOnVLAN: host and containers reach each other in a VLAN, IPv6 too, with macvlans and with ipvlans, and nothing is left.
func TestHostAccessOnVLAN(t *testing.T) {
	Sh(t, "ip link set "+pf+" up; sysctl -qw net.ipv6.conf.default.accept_ra=0")
	t.Cleanup(func() { Sh(t, "ip link set "+pf+" down; sysctl -qw net.ipv6.conf.default.accept_ra=1") })
	asBefore(t)
	for _, mode := range []string{"macvlan", "ipvlan"} {
		Network(t, mode+"s", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6.0.0/24", "--aux-address", "host=10.6.0.250",
			"--ipv6", "--subnet", "2001:db8:6::/64", "--aux-address", "host6=2001:db8:6::250", "-o", "netdevice="+pf, "-o", "mode="+mode,
			"-o", "vlan=100", "-o", "host_access=yes")
		Container(t, "c1", "--net", mode+"s", "--ip", "10.6.0.11", "--ip6", "2001:db8:6::11")
		Container(t, "c2", "--net", mode+"s", "--ip", "10.6.0.12", "--ip6", "2001:db8:6::12")
		for c, addresses := range map[string][]string{"c1": {"10.6.0.11", "2001:db8:6::11"}, "c2": {"10.6.0.12", "2001:db8:6::12"}} {
			Reaches(t, c, "10.6.0.250", 10*time.Second)
			Reaches(t, c, "2001:db8:6::250", 10*time.Second)
			for _, a := range addresses {
				Within(t, 10*time.Second, func() string {
					if out, err := Try("ping", "-c1", "-W1", a); err != nil {
						return mode + ": the host does not reach " + c + " at " + a + ": " + out
					}
					return ""
				})
			}
		}
		Docker(t, "rm", "-f", "c1")
		if routes := Sh(t, "ip route show proto 118; ip -6 route show proto 118"); strings.Contains(routes, "11 dev") || strings.Count(routes, "12 dev") != 2 {
			t.Errorf("%s: routes of the host:\n%s", mode, routes)
		}
		Docker(t, "rm", "-f", "c2")
		Docker(t, "network", "rm", mode+"s")
	}
	if left := Sh(t, "ip -br link | grep '^pt-\\|\\.100@' || true"); left != "" {
		t.Errorf("devices are left: %s", left)
	}
}

// TestHostAccessOfVFs: host and containers with VFs reach each other by a macvlan on the PF, untagged and in a VLAN. The NIC's switch knows
// the macvlan's MAC from the kernel.
func TestHostAccessOfVFs(t *testing.T) {
	asBefore(t)
	for _, vlan := range []string{"0", "100"} {
		sriov(t, "vfs", "10.6.0.0/24", "--aux-address", "host=10.6.0.250", "-o", "numvfs=2", "-o", "vlan="+vlan, "-o", "host_access=yes")
		for c, address := range map[string]string{"c1": "10.6.0.11", "c2": "10.6.0.12"} {
			Container(t, c, "--net", "vfs", "--ip", address)
			Reaches(t, c, "10.6.0.250", 10*time.Second)
			Within(t, 10*time.Second, func() string {
				if out, err := Try("ping", "-c1", "-W1", address); err != nil {
					return "vlan " + vlan + ": the host does not reach " + c + ": " + out
				}
				return ""
			})
		}
		Reaches(t, "c1", "10.6.0.12", 10*time.Second)
		Run(t, "engine", "kill")
		Run(t, "engine", "start")
		Docker(t, "start", "c1")
		Reaches(t, "c1", "10.6.0.250", 20*time.Second)
		Docker(t, "rm", "-f", "c1", "c2")
		Docker(t, "network", "rm", "vfs")
		if left := Sh(t, "ip -br link | grep '^pt-\\|\\.100@' || true"); left != "" {
			t.Errorf("vlan %s: devices are left: %s", vlan, left)
		}
	}
}

// TestHostAccessOnBond: host and containers on a bond of the host reach each other and the network, whichever port is active.
func TestHostAccessOnBond(t *testing.T) {
	Sh(t, "sysctl -qw net.ipv6.conf.default.accept_ra=0; ip netns add far; ip -n far link add br0 type bridge; ip -n far link set br0 up; "+
		"ip -n far addr add 10.6.0.1/24 dev br0; ip link add bond8 type bond mode active-backup miimon 50")
	t.Cleanup(func() { Sh(t, "ip link del bond8; ip netns del far; sysctl -qw net.ipv6.conf.default.accept_ra=1") })
	for _, port := range []string{"port1", "port2"} {
		Sh(t, "ip link add "+port+" type veth peer name "+port+" netns far && ip link set "+port+" master bond8 && "+
			"ip -n far link set "+port+" master br0 up")
	}
	Sh(t, "ip link set bond8 up")
	asBefore(t)
	for _, mode := range []string{"macvlan", "ipvlan"} {
		Network(t, mode+"s", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.6.0.0/24", "--aux-address", "host=10.6.0.250",
			"-o", "parent=bond8", "-o", "mode="+mode, "-o", "host_access=yes")
		Container(t, "c1", "--net", mode+"s", "--ip", "10.6.0.11")
		Container(t, "c2", "--net", mode+"s", "--ip", "10.6.0.12")
		for range 2 {
			const active = "cat /sys/class/net/bond8/bonding/active_slave"
			port := Sh(t, active)
			for _, c := range []string{"c1", "c2"} {
				Reaches(t, c, "10.6.0.250", 10*time.Second)
				Reaches(t, c, "10.6.0.1", 10*time.Second)
			}
			for _, a := range []string{"10.6.0.11", "10.6.0.12"} {
				Within(t, 10*time.Second, func() string {
					if out, err := Try("ping", "-c1", "-W1", a); err != nil {
						return mode + ": by " + port + " the host does not reach " + a + ": " + out
					}
					return ""
				})
			}
			Sh(t, "ip -n far link set "+port+" down")
			Within(t, 10*time.Second, func() string {
				if now := Sh(t, active); now == port {
					return port + " is still the active port"
				}
				return ""
			})
			Sh(t, "ip -n far link set "+port+" up")
		}
		Docker(t, "rm", "-f", "c1", "c2")
		Docker(t, "network", "rm", mode+"s")
	}
}
