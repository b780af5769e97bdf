//go:build lab

package swarm

import (
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/dockertest"
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

// A task is a container of the service, where it runs.
type task struct {
	node                   node
	id, name, address, mac string
}

// tasks are the containers of the service web that run on the nodes.
func tasks(t *testing.T, nodes ...node) (all []task) {
	t.Helper()
	for _, n := range nodes {
		const format = `{{.Id}} {{.Name}} {{with .NetworkSettings.Networks.fabric}}{{.IPAddress}} {{.MacAddress}}{{end}}`
		out := n.sh(t, `docker ps -q -f label=com.docker.swarm.service.name=web | xargs -r docker inspect -f '`+format+
			`' || true`) // one may have ended meanwhile
		for line := range strings.Lines(out) {
			if f := strings.Fields(line); len(f) == 4 {
				all = append(all, task{n, f[0], f[1], f[2], f[3]})
			}
		}
	}
	return all
}

// exec runs a program in the task's container, which must succeed.
func (k task) exec(t *testing.T, line string) string {
	t.Helper()
	return k.node.sh(t, "docker exec "+k.id+" "+line)
}
