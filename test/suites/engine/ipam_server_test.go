//go:build engine

package engine

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
	"github.com/mellanox/passthrough/test/harness/ipamserver"
)

// TestIPAMServer: with STORE=https://... containers have the addresses of a server, and its gateway. While the server is away they run on, what they
// release is released at the server later, and another container is refused with the reason.
func TestIPAMServer(t *testing.T) {
	program, err := filepath.Abs("../../../.cache/test/remote-ipam")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("REMOTE_IPAM", program)
	s := ipamserver.Start(t, `[{"name": "mynet", "subnets": [{"subnet": "10.55.206.0/26", "first": "10.55.206.46", "last": "10.55.206.62", "gateway": "10.55.206.1"}]}]`)
	process(t, "served", "STORE="+s.URL+"?ca="+s.CA+"&token-file="+s.TokenFile)
	veth(t, "pt0", "10.55.206.1/26")
	Sh(t, "ip link set pt0 up")
	Refused(t, "it has no network for this request; create the network with one of its subnets, --subnet=... of 10.55.206.0/26 (mynet); "+
		"or with --ipam-opt remote=off, so that this node chooses the addresses itself",
		"network", "create", "-d", "served", "--ipam-driver", "served", "-o", "netdevice=pt0", "-o", "mode=macvlan", "--subnet=10.55.0.0/26", "other")
	commands := docs.Commands(t, "../../../docs/remote-ipam.md", "Docker")
	create := strings.Fields(strings.NewReplacer("docker network create ", "", " mynet", "", "passthrough:latest", "served",
		"netdevice=eth1", "netdevice=pt0 -o mode=macvlan").Replace(commands[len(commands)-1]))
	Network(t, "mynet", create...)
	Container(t, "first", "--net", "mynet")
	Container(t, "second", "--net", "mynet", "--ip", "10.55.206.60")
	if leased := s.Leases(); len(leased) != 2 || leased[Address(t, "first", "mynet")] == "" || leased["10.55.206.60"] == "" {
		t.Errorf("the server has leased %v, first has %s", leased, Address(t, "first", "mynet"))
	}
	if routes := Exec(t, "first", "ip", "route"); !strings.Contains(routes, "default via 10.55.206.1") {
		t.Errorf("routes: %s", routes)
	}

	s.Kill()
	Reaches(t, "first", "10.55.206.1", 5*time.Second)
	if _, err := Try("docker", "run", "--rm", "--net", "mynet", "lab", "true"); err == nil || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("while the server is away: %v", err)
	}
	Docker(t, "rm", "-f", "second")
	s.Restart()
	Within(t, 20*time.Second, func() string {
		if s.Leases()["10.55.206.60"] != "" {
			return "the server still has the address of a container that was removed while it was away"
		}
		_, err := Try("docker", "run", "--rm", "--net", "mynet", "--ip", "10.55.206.60", "lab", "true")
		return text(err)
	})
}
