//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestTwoTenants: two networks with the same subnet on one PF; the NIC keeps them apart. Each container has carrier and
// its neighbour within five seconds of docker run, on a VF whose VLAN, MAC and guards are set in the NIC.
func TestTwoTenants(t *testing.T) {
	asBefore(t)
	for name, vlan := range map[string]string{"customer1": "100", "customer2": "200"} {
		sriov(t, name, "194.168.1.0/24", "-o", "mode=sriov", "-o", "vlan="+vlan)
	}
	for _, c := range []struct{ name, network, ip string }{
		{"a1", "customer1", "194.168.1.11"}, {"a2", "customer1", "194.168.1.12"},
		{"b1", "customer2", "194.168.1.11"}, {"b2", "customer2", "194.168.1.22"},
	} {
		Container(t, c.name, "--net", c.network, "--ip", c.ip)
	}
	Reaches(t, "b2", "194.168.1.11", 5*time.Second)
	Reaches(t, "a2", "194.168.1.11", 5*time.Second)
	CannotReach(t, "a1", "194.168.1.22")
	CannotReach(t, "b1", "194.168.1.12")
	for _, c := range []struct{ name, network, vlan string }{{"a1", "customer1", "100"}, {"b1", "customer2", "200"}} {
		mac := MAC(t, c.name, c.network)
		line := vfLine(t, mac)
		for _, want := range []string{"vlan " + c.vlan, "spoof checking on", "trust off"} {
			if !strings.Contains(line, want) {
				t.Errorf("%s: %q, want %s", c.name, line, want)
			}
		}
		inside := Exec(t, c.name, "ip", "-o", "link", "show", "eth0")
		if !strings.Contains(inside, mac) || !strings.Contains(inside, "LOWER_UP") {
			t.Errorf("%s: %s, want %s with carrier", c.name, inside, mac)
		}
		if links := Exec(t, c.name, "sh", "-c", "ip -o link | wc -l"); links != "2" {
			t.Errorf("%s has %s links, want lo and eth0 only", c.name, links)
		}
	}
	if b1, a1 := MAC(t, "b1", "customer2"), MAC(t, "a1", "customer1"); b1 == a1 {
		t.Errorf("a1 and b1 both have %s", a1)
	}
}

// TestEveryWayOut: however a container ends, its VF is back in the host, clean, and serves the next one with the same
// MAC.
func TestEveryWayOut(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "vlan=7", "-o", "privileged=yes", "-o", "numvfs=1")
	clean := ""
	for _, way := range [][]string{
		{"docker", "stop", "-t1", "web1"}, {"docker", "rm", "-f", "web1"}, {"docker", "network", "disconnect", "n", "web1"},
		{"docker", "kill", "web1"},
	} {
		Docker(t, "run", "-d", "--name", "web1", "--net", "n", "--cap-add", "NET_ADMIN", "lab", "sh", "-c", "while :; do ping -f -c100 10.1.0.9 & wait; done")
		Exec(t, "web1", "ip", "link", "set", "eth0", "promisc", "on")
		mac := MAC(t, "web1", "n")
		if line := vfLine(t, mac); !strings.Contains(line, "vlan 7") || !strings.Contains(line, "trust on") ||
			!strings.Contains(line, "spoof checking off") {
			t.Errorf("in use: %s", line)
		}
		Run(t, way[0], way[1:]...)
		Within(t, 10*time.Second, func() string {
			line := vfLine(t, mac)
			if strings.Contains(line, "vlan") || strings.Contains(line, "trust on") || strings.Contains(line, "spoof checking off") {
				return strings.Join(way, " ") + ": the vf is left as " + line
			}
			link, err := Try("ip", "-o", "link", "show", pf+"v0")
			if err != nil || !strings.Contains(link, "state DOWN") || strings.Contains(link, "PROMISC") {
				return strings.Join(way, " ") + ": the host has " + link
			}
			return ""
		})
		if clean == "" {
			clean = mac
		}
		if mac != clean {
			t.Errorf("after %v the vf has %s, before it had %s", way, mac, clean)
		}
		_, _ = Try("docker", "rm", "-f", "web1")
	}
}

// TestMAC: a MAC that a VF has picks that VF; another is programmed on both sides; two containers cannot have the same.
func TestMAC(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24")
	fields := strings.Fields(Sh(t, "ip link show "+pf+" | grep 'vf 3'"))
	third := fields[3]
	if third == "00:00:00:00:00:00" {
		t.Fatalf("vf 3 has no mac: %v", fields)
	}
	Container(t, "one1", "--net", "n", "--mac-address", third)
	if n := Sh(t, "ls -d /sys/bus/pci/devices/"+pfPCI+"/virtfn3/driver /sys/bus/pci/devices/"+pfPCI+"/virtfn*/driver | wc -l"); n != "2" {
		t.Errorf("%s drivers are bound, want only vf 3's", n)
	}
	Container(t, "two2", "--net", "n", "--mac-address", "02:00:00:00:00:99")
	if got := Exec(t, "two2", "cat", "/sys/class/net/eth0/address"); got != "02:00:00:00:00:99" {
		t.Errorf("in b: %s", got)
	}
	vfLine(t, "02:00:00:00:00:99")
	Reaches(t, "two2", Address(t, "one1", "n"), 5*time.Second)
	_, err := Try("docker", "run", "--rm", "--net", "n", "--mac-address", "02:00:00:00:00:99", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "mac address 02:00:00:00:00:99: vf 0 of "+pf+" (0000:01:10.0) is held by ") {
		t.Errorf("a second container with the same mac: %v", err)
	}
}

// TestAllInUse: the error names the PF, how many VFs there are and who has them; one that is given back is to be had.
func TestAllInUse(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=2")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--net", "n")
	_, err := Try("docker", "run", "--rm", "--net", "n", "lab", "true")
	for _, want := range []string{pf + " (" + pfPCI + "): all 2 vfs are in use: ", "vf 0 of " + pf, "vf 1 of " + pf, "is held by "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("a third container: %v\nwant %q in it", err, want)
		}
	}
	Docker(t, "rm", "-f", "one1")
	Docker(t, "run", "--rm", "--net", "n", "lab", "true")
}

// TestConnect: a running container is given a second VF, and it is taken back.
func TestConnect(t *testing.T) {
	asBefore(t)
	sriov(t, "one", "10.1.0.0/24", "-o", "vlan=10")
	sriov(t, "two", "10.2.0.0/24", "-o", "vlan=20", "-o", "prefix=data")
	Container(t, "web1", "--net", "one")
	Container(t, "peer", "--net", "two")
	Docker(t, "network", "connect", "two", "web1")
	if n := lent(t); n != "3" {
		t.Errorf("%s vfs are lent, want 3", n)
	}
	Exec(t, "web1", "ip", "link", "show", "data0")
	Reaches(t, "web1", Address(t, "peer", "two"), 5*time.Second)
	Docker(t, "network", "disconnect", "two", "web1")
	Within(t, 10*time.Second, func() string {
		if n := lent(t); n != "2" {
			return n + " vfs are lent after disconnect, want 2"
		}
		return ""
	})
}

// TestVFsThatWereThere stay when the last network goes, bound or not.
func TestVFsThatWereThere(t *testing.T) {
	asBefore(t)
	Sh(t, "ip link set "+pf+" up; echo 3 > /sys/class/net/"+pf+"/device/sriov_numvfs; udevadm settle")
	t.Cleanup(func() {
		Sh(t, "echo 0 > /sys/class/net/"+pf+"/device/sriov_numvfs; ip link set "+pf+" down; udevadm settle")
	})
	before := host(t)
	Refused(t, "option numvfs: 7 is not possible: "+pf+" ("+pfPCI+") has 3 vfs that the plugin did not make and does not "+
		"remove; leave the option out, or change their number on the host",
		"network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.1.0.0/24", "-o", "netdevice="+pf, "-o", "numvfs=7", "n")
	sriov(t, "n", "10.1.0.0/24")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--net", "n", "--mac-address", "02:00:00:00:00:77")
	Reaches(t, "one1", Address(t, "two2", "n"), 5*time.Second)
	Docker(t, "rm", "-f", "one1", "two2")
	Docker(t, "network", "rm", "n")
	Within(t, 10*time.Second, func() string {
		if now := host(t); now != before {
			return "the host is\n" + now + "\nbut was\n" + before
		}
		return ""
	})
}

// TestStaleAltname: a VF whose name has become its own alternative name gets its name back.
func TestStaleAltname(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=1")
	Docker(t, "run", "--rm", "--net", "n", "lab", "true")
	Container(t, "web1", "--net", "n")
	// What udev does to a device that came home as eth0 while its name was taken.
	pid := Inspect(t, "web1", "{{.State.Pid}}")
	Sh(t, "nsenter -t "+pid+" -n ip link property add dev eth0 altname "+pf+"v0")
	Docker(t, "rm", "-f", "web1")
	Within(t, 10*time.Second, func() string {
		link, err := Try("ip", "-d", "link", "show", pf+"v0")
		if err != nil || strings.Contains(link, "altname "+pf+"v0") || !strings.Contains(link, ": "+pf+"v0:") {
			return "the host has " + link
		}
		return ""
	})
	Docker(t, "run", "--rm", "--net", "n", "lab", "true")
}

// TestHowTo runs commands of docs/how-to.md: a container that runs gets another VLAN than its network, and one makes VLAN devices on its VF.
func TestHowTo(t *testing.T) {
	asBefore(t)
	sriov(t, "blue", "10.1.0.0/24", "-o", "vlan=100")
	Container(t, "web", "--net", "blue", "--ip", "10.1.0.2")
	for _, command := range docs.Commands(t, "how-to.md", "Another VLAN for one container") {
		Sh(t, command)
	}
	if line := vfLine(t, MAC(t, "web", "blue")); !strings.Contains(line, "vlan 101") || Address(t, "web", "blue") != "10.1.0.2" {
		t.Errorf("web has %s and %q, want VLAN 101", Address(t, "web", "blue"), line)
	}

	Refused(t, "it has no trunks for vfs; have vlan devices in the container instead, see docs/how-to.md; leave it out, or use a nic that can",
		"network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.3.0.0/24", "-o", "netdevice="+pf, "-o", "trunk=100-102", "trunk")
	t.Cleanup(func() { _, _ = Try("sh", "-c", "docker rm -f router; docker network rm trunk") })
	for _, command := range docs.Commands(t, "how-to.md", "A VLAN trunk") {
		Sh(t, command)
	}
	Container(t, "peer", "--net", "trunk", "--cap-add", "NET_ADMIN")
	Exec(t, "peer", "sh", "-c", "ip link add link eth0 name eth0.55 type vlan id 55; ip link set eth0.55 up; ip addr add 10.55.0.2/24 dev eth0.55")
	Exec(t, "router", "ip", "addr", "add", "10.55.0.1/24", "dev", "eth0.55")
	Reaches(t, "router", "10.55.0.2", 5*time.Second)
}
