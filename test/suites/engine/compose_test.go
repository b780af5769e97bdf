//go:build engine

package engine

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// top is the repository's top folder, where the commands of docs/compose.md are typed.
const top = "../../.."

// TestComposeMacvlan brings examples/macvlan up with the commands of docs/compose.md, changes its services and its network, and takes it
// down; of its devices and networks nothing is left.
func TestComposeMacvlan(t *testing.T) {
	veth(t, "eth0", "192.168.20.1/24")
	Sh(t, "ip link set eth0 up")
	AsBefore(t, func() string {
		return Sh(t, "ip -br link | awk '{print $1, $3}'; docker network ls --format '{{.Name}}'")
	})
	commands := Project(t, top, top+"/docs/compose.md", "Services on the host's network")
	if len(commands) != 3 {
		t.Fatalf("docs/compose.md shows %q", commands)
	}
	up, ask, scale := commands[0], commands[1], commands[2]

	InFolder(t, top, up)
	Reaches(t, "macvlan-client-1", "192.168.20.1", 5*time.Second)
	Within(t, 5*time.Second, func() string {
		if page, err := TryIn(top, ask); err != nil || page != Inspect(t, "macvlan-web-1", "{{.Config.Hostname}}") {
			return "client has the page " + page
		}
		return ""
	})
	client := Inspect(t, "macvlan-client-1", "{{.Id}}")
	InFolder(t, top, scale)
	var addresses []string
	for _, c := range []string{"macvlan-web-1", "macvlan-web-2", "macvlan-web-3"} {
		addresses = append(addresses, Address(t, c, "macvlan_lan"))
		Reaches(t, c, "192.168.20.200", 5*time.Second)
	}
	slices.Sort(addresses)
	if want := []string{"192.168.20.128", "192.168.20.129", "192.168.20.130"}; !slices.Equal(addresses, want) {
		t.Errorf("the addresses are %q, want %q", addresses, want)
	}
	if now := Inspect(t, "macvlan-client-1", "{{.Id}}"); now != client {
		t.Error("client was created again without a change")
	}

	// Another MTU is another network. Without --force-recreate Compose 2.40 starts the old containers in it without their addresses.
	InFolder(t, top, "MTU=1400 "+up+" --force-recreate")
	if mtu := Exec(t, "macvlan-client-1", "cat", "/sys/class/net/eth0/mtu"); mtu != "1400" {
		t.Errorf("after the change the mtu is %s", mtu)
	}
	Reaches(t, "macvlan-client-1", "192.168.20.1", 5*time.Second)
	if address := Address(t, "macvlan-client-1", "macvlan_lan"); address != "192.168.20.200" {
		t.Errorf("client has %s", address)
	}
}

// TestComposeNFV brings examples/nfv up on macvlans without VLANs: its router has fixed names, and forwards what the other two send by their routes.
// With VFs it is in the lab.
func TestComposeNFV(t *testing.T) {
	veth(t, "enp1s0", "192.0.2.1/24")
	Sh(t, "ip link set enp1s0 up")
	t.Setenv("MODE", "macvlan")
	t.Setenv("WAN_VLAN", "0") // not every machine that runs the tests has the module 8021q
	t.Setenv("LAN_VLAN", "0")
	AsBefore(t, func() string {
		return Sh(t, "ip -br link | awk '{print $1, $3}'; docker network ls --format '{{.Name}}'")
	})
	for i, line := range Project(t, top, top+"/docs/compose.md", "A network function") {
		InFolder(t, top, line)
		if i > 0 {
			continue
		}
		for device, address := range map[string]string{"wan0": "10.41.0.2/24", "lan0": "10.42.0.2/24"} {
			if has := Exec(t, "nfv-router-1", "ip", "-o", "-4", "address", "show", device); !strings.Contains(has, address) {
				t.Errorf("%s of router has %s", device, has)
			}
		}
		Reaches(t, "nfv-outside-1", "10.42.0.10", 10*time.Second)
	}
	Reaches(t, "nfv-outside-2", "10.42.0.10", 10*time.Second)
	Docker(t, "stop", "-t1", "nfv-router-1")
	CannotReach(t, "nfv-outside-1", "10.42.0.10")
}

// TestComposeInterfaceName: a service's interface_name is the name of its device; engines that do not give a plugin's device an exact name
// refuse the container with the reason.
func TestComposeInterfaceName(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	ours(t, "macvlan", "n1", "pt0", "10.20.0.0/24", "--ip-range", "10.20.0.64/26")
	folder := t.TempDir()
	text := `services:
  router:
    image: lab
    command: sleep 1000000
    stop_grace_period: 1s
    networks:
      n1:
        interface_name: fab0
networks:
  n1:
    external: true
`
	if err := os.WriteFile(filepath.Join(folder, "compose.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := TryIn(folder, "docker compose -p named down"); err != nil {
			t.Error(err)
		}
	})
	_, err := TryIn(folder, "docker compose -p named up -d")
	if !takesIfname(t) {
		if err == nil || !strings.Contains(err.Error(), "option ifname: fab0 is not possible: this engine is older than 29") &&
			!strings.Contains(err.Error(), "interface_name requires Docker Engine v28.1 or later") { // Compose itself
			t.Errorf("compose: %v", err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if links := Exec(t, "named-router-1", "ls", "/sys/class/net"); strings.Join(strings.Fields(links), " ") != "fab0 lo" {
		t.Errorf("the devices are called %s", links)
	}
	Reaches(t, "named-router-1", "10.20.0.1", 10*time.Second)
}

// TestComposePlugin brings the plugin itself up as examples/plugin has it, with another name for its socket: to the engine passthrough is
// passthrough:latest, too.
func TestComposePlugin(t *testing.T) {
	t.Cleanup(func() {
		_, _ = Try("docker", "volume", "rm", "passthrough-state")
		_, _ = Try("docker", "rmi", "passthrough-plugin")
	})
	t.Setenv("SOCKET", "/run/docker/plugins/composed.sock")
	Sh(t, strings.ReplaceAll(docs.Commands(t, top+"/docs/other-ways.md", "As a container")[1], "bin/plugin", bundle))
	commands := Project(t, top, top+"/docs/compose.md", "The plugin as a container")
	if len(commands) != 1 {
		t.Fatalf("docs/compose.md shows %q", commands)
	}
	InFolder(t, top, commands[0])
	Listens(t, "/run/docker/plugins/composed.sock")
	useful(t, "composed")

	// A changed setting is another container, with the same records: p1 keeps its device and its network.
	t.Setenv("LOG_LEVEL", "debug")
	before := Inspect(t, "passthrough-plugin", "{{.Id}}")
	InFolder(t, top, commands[0])
	if now := Inspect(t, "passthrough-plugin", "{{.Id}}"); now == before {
		t.Error("the container is the same in spite of LOG_LEVEL")
	}
	Listens(t, "/run/docker/plugins/composed.sock")
	Reaches(t, "p1", "10.90.0.1", 5*time.Second)
	Docker(t, "restart", "-t1", "p1")
	Reaches(t, "p1", "10.90.0.1", 5*time.Second)
}

// TestStack deploys examples/stack with the commands of docs/compose.md on a swarm of this one engine, changes and removes it.
func TestStack(t *testing.T) {
	veth(t, "eth0", "192.168.20.1/24")
	Sh(t, "ip link set eth0 up")
	Docker(t, "swarm", "init", "--advertise-addr", "192.168.20.1")
	t.Cleanup(func() {
		Docker(t, "swarm", "leave", "--force")
		_, _ = Try("docker", "network", "rm", "docker_gwbridge")
	})
	commands := docs.Commands(t, top+"/docs/compose.md", "A stack")
	if len(commands) != 5 {
		t.Fatalf("docs/compose.md shows %q", commands)
	}
	networks, deploy, scale, remove := commands[:2], commands[2], commands[3], commands[4]
	for _, line := range networks {
		InFolder(t, top, line)
	}
	t.Cleanup(func() {
		_, _ = TryIn(top, remove)
		for _, name := range []string{"lan", "lan-here"} { // a swarm ends its tasks in its own time
			Within(t, 30*time.Second, func() string {
				if _, err := Try("docker", "network", "rm", name); err != nil && !strings.Contains(err.Error(), "not found") {
					return err.Error()
				}
				return ""
			})
		}
	})
	InFolder(t, top, deploy)
	first := tasks(t, 3)
	talk(t, first)
	InFolder(t, top, scale)
	all := tasks(t, 4)
	talk(t, all)
	for _, name := range first {
		if !slices.Contains(all, name) {
			t.Errorf("%s was started again without a change", name)
		}
	}
	InFolder(t, top, remove)
	tasks(t, 0)
	Within(t, 10*time.Second, func() string {
		if links := Sh(t, "ip -br link show type macvlan"); links != "" {
			return "left is " + links
		}
		return ""
	})
}

// tasks waits until the stack has so many tasks, and returns the IDs of their containers.
func tasks(t *testing.T, n int) (all []string) {
	t.Helper()
	Within(t, 30*time.Second, func() string {
		all = strings.Fields(Docker(t, "ps", "-q", "--no-trunc", "--filter", "label=com.docker.stack.namespace=site"))
		if len(all) != n {
			return "the tasks are " + strings.Join(all, " ") + "\n" + Docker(t, "service", "ls")
		}
		return ""
	})
	return all
}

// talk checks that the tasks reach each other and the other end of the device, and no two have one address.
func talk(t *testing.T, all []string) {
	t.Helper()
	seen := map[string]string{}
	for i, task := range all {
		address := Address(t, task, "lan")
		if seen[address] != "" {
			t.Errorf("%s and %s have %s", task, seen[address], address)
		}
		seen[address] = task
		Reaches(t, all[(i+1)%len(all)], address, 10*time.Second)
		Reaches(t, task, "192.168.20.1", 10*time.Second)
	}
}
