//go:build engine

package engine

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestPlainProcess: the same binary as a process of its own, as systemd or a container starts it, is found by the name
// of its socket. It is not passthrough here: to the engine that would be the plugin passthrough:latest.
func TestPlainProcess(t *testing.T) {
	process(t, "plain")
	useful(t, "plain")
}

// process runs the plugin as a process with this name and these settings until the test ends.
func process(t *testing.T, name string, settings ...string) {
	t.Helper()
	socket := "/run/docker/plugins/" + name + ".sock"
	cmd := exec.Command(bundle + "/rootfs/driver")
	cmd.Env = append(append(os.Environ(), "SOCKET="+socket, "STATE_DIR="+t.TempDir()), settings...)
	Process(t, cmd, socket)
}

// start runs the plugin as a process with these flags until the test ends.
func start(t *testing.T, name string, flags ...string) {
	t.Helper()
	Process(t, exec.Command(bundle+"/rootfs/driver", flags...), "/run/docker/plugins/"+name+".sock")
}

// TestPlainContainer runs the commands of docs/other-ways.md that start the binary as a container, under another name
// for the same reason.
func TestPlainContainer(t *testing.T) {
	t.Cleanup(func() {
		_, _ = Try("docker", "rm", "-f", "passthrough-plugin")
		_, _ = Try("docker", "volume", "rm", "passthrough-state")
		_, _ = Try("docker", "rmi", "passthrough-plugin")
	})
	n := 0
	for _, line := range docs.Commands(t, "../../../docs/other-ways.md", "As a container") {
		if !strings.Contains(line, "docker ") {
			continue
		}
		n++
		line = strings.ReplaceAll(line, "bin/plugin", bundle)
		line = strings.ReplaceAll(line, "docker run -d", "docker run -d -e SOCKET=/run/docker/plugins/contained.sock")
		Sh(t, line)
	}
	if n != 2 {
		t.Fatalf("docs/other-ways.md shows %d docker commands, want 2", n)
	}
	Listens(t, "/run/docker/plugins/contained.sock")
	useful(t, "contained")
}

// useful checks that the plugin of that name gives a container a device.
func useful(t *testing.T, plugin string) {
	t.Helper()
	veth(t, "v1dev", "10.90.0.1/24")
	Network(t, "v1", "-d", plugin, "--ipam-driver", plugin, "--subnet", "10.90.0.0/24", "--gateway", "10.90.0.1",
		"-o", "netdevice=v1dev", "-o", "mode=passthrough")
	Container(t, "p1", "--net", "v1")
	Reaches(t, "p1", "10.90.0.1", 5*time.Second)
}
