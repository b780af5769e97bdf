//go:build lab

package lab

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestPassthroughctl: the operator's tool shows the NICs, who has which VF, and what the NIC has set for it; and what is wrong.
func TestPassthroughctl(t *testing.T) {
	asBefore(t)
	Network(t, "customer1", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "194.168.1.0/24", "-o", "netdevice="+pf, "-o", "vlan=100")
	Container(t, "web1", "--net", "customer1")
	mac, addr := MAC(t, "web1", "customer1"), Address(t, "web1", "customer1")

	WantLine(t, Sh(t, "./passthroughctl nics"), pf, "igb", "up 1G", "7/7")
	var vfs []struct {
		PF, PCI, State, Container, Network, MAC, Driver string
		VF, VLAN                                        int
		Spoofchk, Trust                                 bool
	}
	if err := json.Unmarshal([]byte(Sh(t, "./passthroughctl vfs "+pf+" -f json")), &vfs); err != nil {
		t.Fatal(err)
	}
	given := 0
	for _, v := range vfs {
		switch {
		case v.PF != pf || !v.Spoofchk || v.Trust:
			t.Errorf("a VF is %+v", v)
		case v.State == "free" && v.VLAN == 0 && v.Driver == "": // a VF is bound when a container gets it
		case v.State == "lent" && v.Driver == "igbvf" && v.Container == "web1" && v.Network == "customer1" && v.VLAN == 100 && v.MAC == mac:
			given++
			WantLine(t, Sh(t, "./passthroughctl who "+v.PCI), "web1", addr+"/24")
		default:
			t.Errorf("a VF is %+v", v)
		}
	}
	if len(vfs) != 7 || given != 1 {
		t.Errorf("%d VFs, of which %d are given to web1: %+v", len(vfs), given, vfs)
	}
	WantLine(t, Sh(t, "./passthroughctl vfs"), pf+"/0", "lent", "web1", "customer1", "100", mac)

	explained := Sh(t, "./passthroughctl explain web1")
	WantLine(t, explained, "device", "vf 0 of "+pf, "lent for")
	WantLine(t, explained, "nic", pf, "driver igb, link up, mtu 1500, 7 of 7 VFs")
	WantLine(t, explained, "vf", "driver igbvf, in the container")
	WantLine(t, explained, "nic sets", "mac "+mac+", vlan 100, spoofchk on, trust off, link auto, rate not limited")
	if strings.Contains(explained, "problem") {
		t.Errorf("explain:\n%s", explained)
	}

	healthy := []string{"ok", pf, "igb: link up 1G, 7 of 7 VFs"}
	WantLine(t, Sh(t, "./passthroughctl doctor "+pf), healthy...)
	remedy := "ip link set " + pf + " up"
	Sh(t, "ip link set "+pf+" down")
	t.Cleanup(func() { Sh(t, remedy) })
	WantLine(t, Sh(t, "./passthroughctl explain web1"), "problem", fmt.Sprintf("the link of %s is down", pf))
	WantLine(t, Sh(t, "./passthroughctl doctor "+pf), "warn", pf, "it is down, and so are its VFs; "+remedy)
	Sh(t, remedy)
	Within(t, 10*time.Second, func() string {
		if out := Sh(t, "./passthroughctl doctor "+pf); !strings.Contains(out, healthy[2]) {
			return "after the remedy:\n" + out
		}
		return ""
	})
}

// TestQuarantineByHand: the operator's tool takes a free VF out of use, and puts it back. No container gets it meanwhile, and it is as it was
// afterwards. A VF that a container has is refused.
func TestQuarantineByHand(t *testing.T) {
	asBefore(t)
	Network(t, "customer1", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "194.168.1.0/24", "-o", "netdevice="+pf, "-o", "vlan=100")
	Container(t, "web1", "--net", "name=customer1,driver-opt=vf=0")
	Sh(t, "./passthroughctl quarantine "+pf+"/3 'ticket 4711'")
	WantLine(t, Sh(t, "./passthroughctl vfs"), pf+"/3", "quarantined", "by an administrator: ticket 4711")
	if _, err := Try("sh", "-c", "./passthroughctl quarantine "+pf+"/0"); err == nil || !strings.Contains(err.Error(), "only a free vf can be taken out of use") {
		t.Errorf("quarantine of the VF of a container: %v", err)
	}
	_, err := Try("docker", "run", "--rm", "--net", "name=customer1,driver-opt=vf=3", "lab:latest", "true")
	if err == nil || !strings.Contains(err.Error(), "vf 3 of "+pf+" (") || !strings.Contains(err.Error(), "is quarantined: by an administrator: ticket 4711") {
		t.Errorf("a container on a VF that is out of use: %v", err)
	}
	Sh(t, "./passthroughctl retry "+pf+"/3")
	WantLine(t, Sh(t, "./passthroughctl vfs"), pf+"/3", "free")
	Docker(t, "run", "--rm", "--net", "name=customer1,driver-opt=vf=3", "lab:latest", "true")
}

// TestPlanNetwork: a plan of a network on VFs says what docker network create does to the NIC, or with which error it ends, and changes
// nothing.
func TestPlanNetwork(t *testing.T) {
	asBefore(t)
	state := "ip -d link show " + pf + " | sed 's/<.*> //; s/ state [A-Z]*//'; cat /sys/class/net/" + pf + "/device/sriov_numvfs; docker network ls -q; ./passthroughctl status; ./passthroughctl pools"
	create := func(options ...string) []string {
		return append([]string{"network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "194.168.1.0/24", "-o", "netdevice=" + pf}, options...)
	}
	plan := func(args []string) (string, error) {
		return Try("./passthroughctl", append([]string{"plan"}, args...)...)
	}
	before := Sh(t, state)
	out, err := plan(create("-o", "vlan=100", "-o", "trust=yes", "customer1"))
	if err != nil {
		t.Fatal(err)
	}
	WantLine(t, out, "network", "customer1, mode sriov, on "+pf)
	WantLine(t, out, "then", "7 vfs are created on "+pf, "and removed with its last network")
	WantLine(t, out, "then", "vlan 100 of "+pf, "belongs to this network")
	WantLine(t, out, "not known", "whether driver igb can set trust; it is tried on a free vf of "+pf)
	if now := Sh(t, state); now != before {
		t.Errorf("a plan changed the machine from\n%s\nto\n%s", before, now)
	}
	Network(t, "customer1", create("-o", "vlan=100", "-o", "trust=yes")[2:]...)
	out, err = plan(create("-o", "vlan=101", "customer2"))
	if err != nil {
		t.Fatal(err)
	}
	WantLine(t, out, "then", "containers get the 7 vfs that "+pf, "has")
	before = Sh(t, state)
	for _, refused := range [][]string{
		create("-o", "vlan=100", "x"), create("-o", "numvfs=3", "x"), create("-o", "vfs=9", "x"), create("-o", "mtu=9500", "x"), create("-o", "mode=passthrough", "x"),
	} {
		_, err := plan(refused)
		if err == nil {
			t.Errorf("a plan of %s is not refused", strings.Join(refused, " "))
			continue
		}
		Refused(t, strings.TrimPrefix(err.Error(), "passthroughctl: refused: "), refused...)
	}
	if now := Sh(t, state); now != before {
		t.Errorf("what was refused changed the machine from\n%s\nto\n%s", before, now)
	}
}
