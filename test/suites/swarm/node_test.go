//go:build lab

package swarm

import (
	"net/url"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/engineapi"
)

// root is the repository, seen from this package's folder.
const root = "../../../"

// A node is a guest, and its name in the swarm.
type node string

const (
	one node = "node1"
	two node = "node2"
)

// lab runs scripts/lab for the node, which must succeed.
func (n node) lab(t *testing.T, args ...string) string {
	t.Helper()
	return Run(t, root+"scripts/lab", append([]string{"--guest", string(n)}, args...)...)
}

// sh runs a command line there, as root, which must succeed.
func (n node) sh(t *testing.T, line string) string {
	t.Helper()
	return n.lab(t, "sh", line)
}

// try runs a command line there and returns its error with what it wrote to stderr.
func (n node) try(line string) (string, error) {
	return Try(root+"scripts/lab", "--guest", string(n), "sh", line)
}

// stalls are the lines in which the node's kernel says that it has missed a processor for a while, since it was booted.
func (n node) stalls(t *testing.T) string {
	t.Helper()
	return n.sh(t, "dmesg | grep 'rcu: INFO: .* detected stalls' || true")
}

// vfs is how many VFs the node's NIC has.
func (n node) vfs(t *testing.T) string {
	t.Helper()
	return n.sh(t, "cat /sys/class/net/enp1s0/device/sriov_numvfs")
}

// version is the end of the plugin's description, in brackets.
func (n node) version(t *testing.T) string {
	t.Helper()
	description := n.sh(t, "docker plugin inspect -f '{{.Config.Description}}' "+Plugin)
	return description[strings.LastIndex(description, "("):]
}

// engines are the nodes' engines, see reach.
var engines = map[node]engineapi.Client{}

// reach finds the socket by which the node's engine is asked from here: a command line in the guest for each look would keep it
// busier than what is looked for.
func (n node) reach(t *testing.T) {
	t.Helper()
	status := n.lab(t, "status")
	_, folder, ok := strings.Cut(status, "folder ")
	if !ok {
		t.Fatalf("%s is %s", n, status)
	}
	engines[n] = engineapi.Over(folder + "/docker.sock")
}

// A task is a container of the service, where it runs.
type task struct {
	node                   node
	id, name, address, mac string
}

// tasks are the containers of the service web that run on the nodes.
func tasks(t *testing.T, nodes ...node) (all []task) {
	t.Helper()
	for _, n := range nodes {
		var running []struct {
			ID              string `json:"Id"`
			Names           []string
			NetworkSettings struct {
				Networks map[string]struct{ IPAddress, MacAddress string }
			}
		}
		ofWeb := url.QueryEscape(`{"label":["com.docker.swarm.service.name=web"]}`)
		if err := engines[n].Read("/containers/json?filters="+ofWeb, &running); err != nil {
			t.Fatal(err)
		}
		for _, c := range running {
			if at := c.NetworkSettings.Networks["fabric"]; at.IPAddress != "" {
				all = append(all, task{n, c.ID, strings.TrimPrefix(c.Names[0], "/"), at.IPAddress, at.MacAddress})
			}
		}
	}
	return all
}

// exec runs a program in the task's container, which must succeed.
func (k task) exec(t *testing.T, line string) string {
	t.Helper()
	out, err := engines[k.node].Exec(k.id, strings.Fields(line)...)
	if err != nil {
		t.Fatalf("%s: %s: %v", k.name, line, err)
	}
	return out
}
