//go:build engine

package engine

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/dockertest"
)

// TestPlainProcess: the same binary as a process of its own, as systemd or a container starts it, is found by the name
// of its socket. It is not passthrough here: to the engine that would be the plugin passthrough:latest.
func TestPlainProcess(t *testing.T) {
	const socket = "/run/docker/plugins/plain.sock"
	cmd := exec.Command(bundle + "/rootfs/driver")
	cmd.Env = append(os.Environ(), "SOCKET="+socket, "STATE_DIR="+t.TempDir())
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
	Within(t, 5*time.Second, func() string {
		if _, err := os.Stat(socket); err != nil {
			return err.Error()
		}
		return ""
	})
	veth(t, "v1dev", "10.90.0.1/24")
	Network(t, "v1", "-d", "plain", "--ipam-driver", "plain", "--subnet", "10.90.0.0/24", "--gateway", "10.90.0.1",
		"-o", "netdevice=v1dev", "-o", "mode=passthrough")
	Container(t, "p1", "--net", "v1")
	Reaches(t, "p1", "10.90.0.1", 5*time.Second)
}
