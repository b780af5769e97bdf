//go:build engine

package engine

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// overlap is what Docker's own IPAM driver says of a subnet that another network has; engines put different words before it.
const overlap = "Pool overlaps with other one on this address space"

// TestDockersIPAM runs the commands of docs/ipam.md: Docker's own IPAM driver refuses a subnet that another network has, and this one
// does not.
func TestDockersIPAM(t *testing.T) {
	veth(t, "enp1s0", "194.168.1.1/24")
	veth(t, "enp2s0", "192.0.2.1/24") // the host can have a route to the subnet on one device
	commands := docs.Commands(t, "../../../docs/ipam.md", "Docker's own IPAM driver")
	if len(commands) != 3 {
		t.Fatalf("docs/ipam.md shows %d commands, want 3: %q", len(commands), commands)
	}
	for i, line := range commands {
		args := strings.Fields(line)[1:]
		if i == 1 {
			refusedIn(t, overlap, args...)
			continue
		}
		name := args[len(args)-1]
		Network(t, name, args[2:len(args)-1]...)
		Container(t, "in-"+name, "--net", name, "--ip", "194.168.1.77")
		if addresses := Exec(t, "in-"+name, "ip", "-o", "-4", "address", "show", "eth0"); !strings.Contains(addresses, "194.168.1.77/24") {
			t.Errorf("in-%s has %s", name, addresses)
		}
	}
	Reaches(t, "in-first", "194.168.1.1", 5*time.Second)
	bare := []string{"network", "create", "-o", "netdevice=enp2s0", "-o", "mode=macvlan", "--subnet", "194.168.2.0/24"}
	refusedIn(t, "could not resolve driver passthrough in registry", append(bare, "-d", "passthrough", "third")...)
	refusedIn(t, `invalid ipam driver: "passthrough"`, append(bare, "-d", Plugin, "--ipam-driver", "passthrough", "third")...)
}

// TestQuickStart: with the plain binary, started without any setting but its state directory, the commands of
// docker-passthrough-plugin work as they were documented: -d passthrough, and no IPAM driver.
func TestQuickStart(t *testing.T) {
	withoutPlugin(t)
	veth(t, "ens2f0", "194.168.1.1/24")
	start(t, "passthrough", "-d", "--state-dir", t.TempDir())
	Nginx(t)
	Network(t, "mynet", strings.Fields("-d passthrough --subnet=194.168.1.0/24 --ip-range=194.168.1.128/25 -o netdevice=ens2f0 -o mode=passthrough")...)
	Docker(t, strings.Fields("run -itd --net=mynet --name=web nginx")...)
	Reaches(t, "web", "194.168.1.1", 5*time.Second)
	refusedIn(t, overlap, strings.Fields("network create -d passthrough --subnet=194.168.1.0/24 -o netdevice=ens2f1 -o mode=passthrough other")...)
}

// withoutPlugin removes the managed plugin until the test ends: to the engine passthrough is passthrough:latest, too.
func withoutPlugin(t *testing.T) {
	t.Helper()
	Docker(t, "plugin", "rm", "-f", Plugin)
	t.Cleanup(func() {
		if err := Install(bundle); err != nil {
			t.Fatal(err)
		}
	})
}

// refusedIn is Refused for an error that engines put different words around.
func refusedIn(t *testing.T, want string, args ...string) {
	t.Helper()
	if _, err := Try("docker", args...); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("docker %s: %v; want an error with %q", strings.Join(args, " "), err, want)
	}
}
