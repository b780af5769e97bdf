//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestAttributes: what igb can set for a VF and its netdev is set from the network's options, seen by other eyes than the
// plugin's, and gone afterwards.
func TestAttributes(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=2", "-o", "vlan=100", "-o", "vlan_qos=5", "-o", "max_tx_rate=300", "-o", "spoofchk=off",
		"-o", "trust=on", "-o", "mtu=1400", "-o", "txqlen=500", "-o", "promisc=yes", "-o", "allmulti=yes",
		"-o", "gso_max_size=40000", "-o", "gro_max_size=150000")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--net", "n")
	line := vfLine(t, MAC(t, "one1", "n"))
	for _, want := range []string{"vlan 100, qos 5", "tx rate 300", "max_tx_rate 300", "spoof checking off", "trust on"} {
		if !strings.Contains(line, want) {
			t.Errorf("%q, want %s", line, want)
		}
	}
	inside := Run(t, "nsenter", "--net=/proc/"+Inspect(t, "one1", "{{.State.Pid}}")+"/ns/net", "ip", "-d", "-o", "link", "show", "eth0")
	for _, want := range []string{"mtu 1400", "qlen 500", "PROMISC", "ALLMULTI", "gso_max_size 40000", "gro_max_size 150000"} {
		if !strings.Contains(inside, want) {
			t.Errorf("%q, want %s", inside, want)
		}
	}
	Reaches(t, "one1", Address(t, "two2", "n"), 5*time.Second)
	Docker(t, "rm", "-f", "one1", "two2")
	Within(t, 10*time.Second, func() string {
		vfs := Run(t, "ip", "link", "show", pf)
		for _, left := range []string{"vlan 100", "tx rate", "spoof checking off", "trust on"} {
			if strings.Contains(vfs, left) {
				return "left of it: " + vfs
			}
		}
		link, err := Try("ip", "-d", "-o", "link", "show", pf+"v0")
		if err != nil { // its driver is bound anew
			return err.Error()
		}
		for _, want := range []string{"mtu 1500", "qlen 1000", "gso_max_size 65536", "gro_max_size 65536"} {
			if !strings.Contains(link, want) {
				return "without " + want + ": " + link
			}
		}
		if strings.Contains(link, "PROMISC") || strings.Contains(link, "ALLMULTI") {
			return "left of it: " + link
		}
		return ""
	})
}

// TestContainerOptions: options for one container, with docker run (whose command line makes them lower case) and with
// docker network connect.
func TestContainerOptions(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "vlan=100", "-o", "lock=trust")
	sriov(t, "m", "10.2.0.0/24", "-o", "vfs=5-6")
	Container(t, "one1", "--network", "name=n,driver-opt=VLAN=200,driver-opt=vf=3,driver-opt=prefix=Data")
	mac := MAC(t, "one1", "n")
	if line := vfLine(t, mac); !strings.HasPrefix(line, "vf 3 ") || !strings.Contains(line, "vlan 200") {
		t.Errorf("%s, want vf 3 with vlan 200", line)
	}
	Exec(t, "one1", "ip", "link", "show", "data0")
	Docker(t, "network", "connect", "--driver-opt", "Mac=02:00:00:00:00:AB", "m", "one1")
	if line := vfLine(t, "02:00:00:00:00:ab"); !strings.HasPrefix(line, "vf 5 ") {
		t.Errorf("%s, want vf 5", line)
	}
	if shown := MAC(t, "one1", "m"); shown != "02:00:00:00:00:ab" {
		t.Errorf("docker inspect shows %s", shown)
	}
	for opt, want := range map[string]string{
		"trust=yes":         "option trust: the network does not let containers change it (lock)",
		"numvfs=3":          "option numvfs: cannot be given for one container; give it with docker network create",
		"mtu=9000":          "set mtu 9000: its pf has mtu 1500, which a vf cannot exceed; raise the pf's first",
		"vlan_qos=9":        `option vlan_qos: "9" is not allowed; allowed: 0 to 7`,
		"vf=9":              `option vf: "9" is none of the vfs that this network has on ` + pf + " (" + pfPCI + ")",
		"link_state=enable": "set link_state enable: driver igb does not support it; leave link_state out",
	} {
		Refused(t, want, "run", "--rm", "--network", "name=n,driver-opt="+opt, "lab", "true")
	}
	_, err := Try("docker", "run", "--rm", "--network", "name=n,driver-opt=vf=3", "lab", "true")
	if err == nil || !strings.Contains(err.Error(), "option vf=3 is not free: vf 3 of "+pf+" (0000:01:10.6) is held by ") {
		t.Errorf("a vf that is taken: %v", err)
	}
}

// TestWhichVF: a container names its VF in each of the ways that there are, and gets the one again that one with the same
// key, MAC or address had.
func TestWhichVF(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=4")
	run := func(name, option string) (mac string) {
		t.Helper()
		Container(t, name, "--network", "name=n,driver-opt="+option)
		return MAC(t, name, "n")
	}
	isVF := func(mac string, index string) {
		t.Helper()
		if line := vfLine(t, mac); !strings.HasPrefix(line, "vf "+index+" ") {
			t.Errorf("%s, want vf %s", line, index)
		}
	}
	isVF(run("one1", "vf=0000:01:10.4"), "2")
	third := run("two2", "vf=3")
	isVF(third, "3")
	Docker(t, "rm", "-f", "one1", "two2")
	isVF(run("one1", "vf="+pf+"v2"), "2")
	isVF(run("two2", "vf="+third), "3")
	Docker(t, "rm", "-f", "one1", "two2")

	run("first", "vf=0")
	isVF(run("db1", "sticky=Database"), "1")
	Docker(t, "rm", "-f", "first", "db1")
	isVF(run("db2", "sticky=Database"), "1")
	isVF(run("first", "vf=0"), "0")
	isVF(run("own", "mac=02:00:00:00:00:77"), "2")
	Docker(t, "rm", "-f", "first", "own")
	isVF(run("own", "mac=02:00:00:00:00:77"), "2")

	isVF(run("there", "vf=3,ip=10.1.0.77"), "3")
	Docker(t, "rm", "-f", "there", "own")
	Container(t, "there", "--network", "name=n,ip=10.1.0.77")
	isVF(MAC(t, "there", "n"), "3")
}
