//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestComposeTenants brings examples/two-tenants up with the commands of docs/compose.md, changes an option of one container, and takes
// it down: the VFs go with it.
func TestComposeTenants(t *testing.T) {
	asBefore(t)
	commands := Project(t, ".", "compose.md", "Two tenants")
	if len(commands) != 2 {
		t.Fatalf("docs/compose.md shows %q", commands)
	}
	up, change := commands[0], commands[1]
	InFolder(t, ".", up)
	Reaches(t, "two-tenants-client1-1", "194.168.1.10", 10*time.Second)
	Reaches(t, "two-tenants-client2-1", "194.168.1.10", 10*time.Second)
	CannotReach(t, "two-tenants-client1-1", "194.168.1.20")
	for name, vlan := range map[string]string{"1": "vlan 100,", "2": "vlan 200,"} {
		line := vfLine(t, MAC(t, "two-tenants-web"+name+"-1", "two-tenants_customer"+name))
		if !strings.Contains(line, vlan) || strings.Contains(line, "max_tx_rate") {
			t.Errorf("web%s has %s, want %s and no rate", name, line, vlan)
		}
	}
	web2 := Inspect(t, "two-tenants-web2-1", "{{.Id}}")
	InFolder(t, ".", change)
	line := vfLine(t, MAC(t, "two-tenants-web1-1", "two-tenants_customer1"))
	if !strings.Contains(line, "vlan 100,") || !strings.Contains(line, "max_tx_rate 100Mbps") {
		t.Errorf("after the change web1 has %s", line)
	}
	if now := Inspect(t, "two-tenants-web2-1", "{{.Id}}"); now != web2 {
		t.Error("web2 was created again without a change")
	}
	Reaches(t, "two-tenants-client1-1", "194.168.1.10", 10*time.Second)
}

// TestComposeNFV brings examples/nfv up with the commands of docs/compose.md: its router has a VF in each VLAN, under fixed names, and
// forwards between them.
func TestComposeNFV(t *testing.T) {
	asBefore(t)
	commands := Project(t, ".", "compose.md", "A network function")
	if len(commands) != 3 {
		t.Fatalf("docs/compose.md shows %q", commands)
	}
	up, ask, scale := commands[0], commands[1], commands[2]
	InFolder(t, ".", up)
	for device, address := range map[string]string{"wan0": "10.41.0.2/24", "lan0": "10.42.0.2/24"} {
		if has := Exec(t, "nfv-router-1", "ip", "-o", "-4", "address", "show", device); !strings.Contains(has, address) {
			t.Errorf("%s of router has %s", device, has)
		}
	}
	Reaches(t, "nfv-outside-1", "10.42.0.10", 10*time.Second)
	if out := InFolder(t, ".", ask); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("%s: %s", ask, out)
	}
	InFolder(t, ".", scale)
	Reaches(t, "nfv-outside-2", "10.42.0.10", 10*time.Second)
	// The restarted router has its VFs, addresses and names again.
	Docker(t, "restart", "-t1", "nfv-router-1")
	Reaches(t, "nfv-outside-1", "10.42.0.10", 10*time.Second)
	Docker(t, "stop", "-t1", "nfv-router-1")
	CannotReach(t, "nfv-outside-1", "10.42.0.10")
}
