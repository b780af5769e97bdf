//go:build engine

package engine

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// dhcpServer starts a DHCP server in a namespace of its own, on a segment with the host's device dev, with two addresses: 10.8.0.50 and .51.
// The root tree has BusyBox's; dnsmasq and Kea are tested in the layer kernel.
func dhcpServer(t *testing.T, dev string) DHCPServer {
	t.Helper()
	t.Cleanup(func() { _, _ = Try("ip", "netns", "del", "segment") })
	Sh(t, "ip netns add segment; ip link add "+dev+" type veth peer name srv0 netns segment; ip addr add 10.8.0.5/24 dev "+dev+"; ip link set "+dev+" up; "+
		"ip -n segment addr add 10.8.0.1/24 dev srv0; ip -n segment link set srv0 up; ip -n segment link set lo up")
	return StartDHCP(t, "srv0", "10.8.0.50", "10.8.0.51")
}

// TestDHCP: the commands of docs/dhcp.md. Gateway and addresses are the DHCP server's; a lease is renewed while the container runs, also
// by a plugin that was killed meanwhile, and released when it ends.
func TestDHCP(t *testing.T) {
	t.Cleanup(func() {
		for _, args := range [][]string{{"disable", "-f", Plugin}, {"set", Plugin, "DHCP=false"}, {"enable", Plugin}} {
			Docker(t, append([]string{"plugin"}, args...)...)
		}
	})
	server := dhcpServer(t, "enp1s0")
	native := []string{"network", "create", "-d", "macvlan", "-o", "parent=enp1s0", "--ipam-driver", Plugin, "--subnet", "10.8.0.0/24",
		"--ipam-opt", "dhcp=yes", "--ipam-opt", "netdevice=enp1s0", "native"}
	Refused(t, "give the plugin the setting DHCP=true, which keeps the capability CAP_NET_BIND_SERVICE", native...)
	t.Cleanup(func() { _, _ = Try("docker", "network", "rm", "office", "native") })
	for _, line := range docs.Commands(t, "../../../docs/dhcp.md", "A network") {
		if strings.HasPrefix(line, "docker network create") {
			wrong := strings.ReplaceAll(strings.ReplaceAll(line, "passthrough:latest", Plugin), "--subnet=10.8.0.0/24", "")
			_, err := Try("sh", "-c", wrong)
			if err == nil || !strings.Contains(err.Error(), "create the network with --subnet=10.8.0.0/24") {
				t.Errorf("without a subnet: %v", err)
			}
		}
		Sh(t, strings.ReplaceAll(line, "passthrough:latest", Plugin))
	}
	Container(t, "c1", "--net", "office")
	Container(t, "c2", "--net", "office")
	first, second := Address(t, "c1", "office"), Address(t, "c2", "office")
	for _, a := range []string{first, second} {
		if parsed := netip.MustParseAddr(a).String(); parsed != "10.8.0.50" && parsed != "10.8.0.51" || first == second {
			t.Errorf("the containers have %s and %s", first, second)
		}
	}
	Reaches(t, "c1", "10.8.0.1", 5*time.Second)
	Reaches(t, "c1", second, 5*time.Second)
	if got := Exec(t, "c1", "ip", "route"); !strings.Contains(got, "default via 10.8.0.1") {
		t.Errorf("routes of c1: %s", got)
	}
	Sh(t, "kill -9 $(pidof driver)")
	killed := time.Now()
	const exhausted = "is there one that has a free address, and does the firewall let UDP port 67 in?"
	Refused(t, exhausted, "run", "--rm", "--net", "office", "lab", "true")
	for _, a := range []string{first, second} {
		server.WantLease(t, a, killed.Add(15*time.Second)) // the leases of then have ended after ten
	}
	Refused(t, exhausted, "run", "--rm", "--net", "office", "lab", "true")
	Docker(t, "rm", "-f", "c1")
	Container(t, "c3", "--net", "office")
	if got := Address(t, "c3", "office"); got != first {
		t.Errorf("c3 has %s; c1 had %s", got, first)
	}
	Docker(t, "restart", "-t1", "c3")
	Reaches(t, "c3", "10.8.0.1", 5*time.Second)

	Docker(t, "rm", "-f", "c2")
	Docker(t, native...)
	Container(t, "c4", "--net", "native")
	if got := Address(t, "c4", "native"); got != second {
		t.Errorf("c4, on a network of Docker's own macvlan driver, has %s; c2 had %s", got, second)
	}
	Reaches(t, "c4", "10.8.0.1", 5*time.Second)
}
