//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// children are commands that make a child of eth0, which is up.
var children = map[string]string{
	"macvlan": "ip link add left link eth0 type macvlan mode bridge",
	"ipvlan":  "ip link add left link eth0 type ipvlan mode l2",
	"vlan":    "ip link add left link eth0 type vlan id 5",
}

// TestNothingOutlivesAllocation: a container makes a child of its device and is disconnected while it runs. When the next container has the
// device, the child is gone: it would be in the VLAN of that container, with the MAC of its VF.
func TestNothingOutlivesAllocation(t *testing.T) {
	asBefore(t)
	Sh(t, "modprobe -a macvlan ipvlan 8021q")
	sriov(t, "customer1", "10.1.0.0/24", "-o", "numvfs=1", "-o", "vlan=100")
	sriov(t, "customer2", "10.1.0.0/24", "-o", "vlan=200")
	sriov(t, "untagged", "10.1.0.0/24") // igb refuses the VLANs of a VF that the PF has put in one
	whole(t)
	for _, c := range []struct{ what, first, next string }{{"vf", "customer1", "customer2"}, {"whole device", "whole", "whole"}} {
		for kind, add := range children {
			first := c.first
			if c.what == "vf" && kind == "vlan" {
				first = "untagged"
			}
			Container(t, "first", "--net", first, "--cap-add", "NET_ADMIN")
			Exec(t, "first", "sh", "-c", add+"; ip link set left up; ip addr add 10.1.0.66/24 dev left")
			begun := time.Now()
			Docker(t, "network", "disconnect", first, "first")
			Within(t, 20*time.Second, func() string {
				if links := Exec(t, "first", "ip", "-o", "link"); strings.Contains(links, "left") {
					return c.what + ": the " + kind + " is still there: " + links
				}
				return ""
			})
			t.Logf("%s, %s: gone after %v", c.what, kind, time.Since(begun).Round(time.Millisecond))
			Container(t, "next", "--net", c.next)
			if links := Exec(t, "first", "ip", "-o", "link"); strings.Contains(links, "left") {
				t.Errorf("%s: the %s is there while another container has the device: %s", c.what, kind, links)
			}
			Docker(t, "rm", "-f", "first", "next")
		}
	}
}

// TestEthtoolLeftBehind: what a container sets on a whole device with ethtool, on a real driver, is as before: RSS, a private flag, queues,
// rings and offloads. The emulated NIC has no rules for flows.
func TestEthtoolLeftBehind(t *testing.T) {
	asBefore(t)
	whole(t)
	read := func() string {
		return Sh(t, "for o in k l g -show-priv-flags; do ethtool -$o "+another+"; done 2>&1; ethtool -x "+another+
			" | awk '/^ +[0-9]+:/ {for (i = 2; i <= NF; i++) n[$i]++} END {for (q in n) print q, n[q]}' | sort")
	}
	before := read()
	if !strings.Contains(before, "legacy-rx") || !strings.Contains(before, "Combined:") {
		t.Fatalf("it has %s", before)
	}
	for _, args := range []string{
		"-X eth0 weight 0 1",
		"-K eth0 gro off rxvlan off;-L eth0 combined 1;-G eth0 rx 512;--set-priv-flags eth0 legacy-rx on",
	} {
		Container(t, "c1", "--net", "whole")
		for _, a := range strings.Split(args, ";") {
			inside(t, "c1", strings.Fields(a)...)
		}
		Docker(t, "rm", "-f", "c1")
		Within(t, 20*time.Second, func() string {
			if now := read(); now != before {
				return "after " + args + " it has\n" + now + "\nbut had\n" + before
			}
			return ""
		})
	}
}
