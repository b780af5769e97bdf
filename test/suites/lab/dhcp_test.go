//go:build lab

package lab

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestDHCPOfVFs: a container's VF gets its address from the DHCP server on the NIC's wire, in a namespace with the second NIC, untagged and in a VLAN. The lease is renewed, also
// by a plugin that was killed, and released with the container.
func TestDHCPOfVFs(t *testing.T) {
	for _, args := range [][]string{{"disable", "-f", Plugin}, {"set", Plugin, "DHCP=true"}, {"enable", Plugin}} {
		Docker(t, append([]string{"plugin"}, args...)...)
	}
	t.Cleanup(func() {
		for _, args := range [][]string{{"disable", "-f", Plugin}, {"set", Plugin, "DHCP=false"}, {"enable", Plugin}} {
			Docker(t, append([]string{"plugin"}, args...)...)
		}
	})
	Sh(t, "ip netns add segment; ip link set "+another+" netns segment; ip -n segment link set "+another+" up; "+
		"ip -n segment link add "+another+".100 link "+another+" type vlan id 100; ip -n segment link set "+another+".100 up; "+
		"ip link set "+pf+" up; ip addr add 10.8.0.5/24 dev "+pf+"; ip link add "+pf+".100 link "+pf+" type vlan id 100; ip link set "+pf+".100 up")
	t.Cleanup(func() {
		Sh(t, "ip link del "+pf+".100; ip addr del 10.8.0.5/24 dev "+pf+"; ip link set "+pf+" down; "+
			"ip -n segment link set "+another+" down; ip -n segment link set "+another+" netns 1; ip netns del segment")
	})
	for _, vlan := range []string{"0", "100"} {
		t.Run("vlan "+vlan, func(t *testing.T) { dhcpOfVFs(t, vlan) })
	}
}

// dhcpOfVFs is TestDHCPOfVFs in one VLAN, 0 for none.
func dhcpOfVFs(t *testing.T, vlan string) {
	mine, servers := pf, another
	if vlan != "0" {
		mine, servers = pf+"."+vlan, another+"."+vlan
		Sh(t, "ip addr del 10.8.0.5/24 dev "+pf+"; ip addr add 10.8.0.5/24 dev "+mine)
		t.Cleanup(func() { Sh(t, "ip addr del 10.8.0.5/24 dev "+mine+"; ip addr add 10.8.0.5/24 dev "+pf) })
	}
	Sh(t, "ip -n segment addr add 10.8.0.1/24 dev "+servers)
	t.Cleanup(func() { Sh(t, "ip -n segment addr del 10.8.0.1/24 dev "+servers) })
	server := StartDHCP(t, servers, "10.8.0.50", "10.8.0.59")
	asBefore(t)
	sriov(t, "leased", "10.8.0.0/24", "-o", "numvfs=2", "-o", "vlan="+vlan, "--ipam-opt", "dhcp=yes", "--ipam-opt", "netdevice="+mine)
	Container(t, "c1", "--net", "leased")
	Container(t, "c2", "--net", "leased")
	first, second := Address(t, "c1", "leased"), Address(t, "c2", "leased")
	for _, a := range []string{first, second} {
		if got := netip.MustParseAddr(a); got.Less(netip.MustParseAddr("10.8.0.50")) || netip.MustParseAddr("10.8.0.59").Less(got) || first == second {
			t.Errorf("the containers have %s and %s", first, second)
		}
		server.WantLease(t, a, time.Now())
	}
	Reaches(t, "c1", "10.8.0.1", 10*time.Second)
	Reaches(t, "c2", first, 10*time.Second)
	if got := Exec(t, "c1", "ip", "route"); !strings.Contains(got, "default via 10.8.0.1") {
		t.Errorf("routes of c1: %s", got)
	}
	Sh(t, "kill -9 $(pidof driver)")
	killed := time.Now()
	for _, a := range []string{first, second} {
		server.WantLease(t, a, killed.Add(15*time.Second)) // the leases of then have ended after ten
	}
	Reaches(t, "c1", "10.8.0.1", 10*time.Second)
	Docker(t, "rm", "-f", "c1")
	server.WantLease(t, first, time.Time{})
	server.WantLease(t, second, time.Now())
	Container(t, "c3", "--net", "leased")
	Reaches(t, "c3", second, 10*time.Second)
}
