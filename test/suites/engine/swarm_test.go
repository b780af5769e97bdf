//go:build engine

package engine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestSwarmCountsVFs: scripts/swarm-rollout tells the engine how many VFs its node has. Once the engine has been restarted, a service that
// wants more of them stays pending, with the reason, until one is free; without the count all its tasks were started.
func TestSwarmCountsVFs(t *testing.T) {
	Docker(t, "swarm", "init", "--advertise-addr", "127.0.0.1")
	t.Cleanup(func() {
		for _, line := range []string{"docker swarm leave --force", "rm -f /etc/docker/daemon.json", "engine restart"} {
			if _, err := Try("sh", "-c", line); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	})
	ssh := filepath.Join(t.TempDir(), "ssh") // to this machine
	script := "#!/bin/sh\nwhile :; do case $1 in -o) shift 2 ;; -O) exit ;; -fN) exit ;; *) break ;; esac; done\nshift\nexec sh -c \"$*\"\n"
	if err := os.WriteFile(ssh, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	Sh(t, `mkdir -p /etc/docker; echo '{"labels": ["rack=7"]}' >/etc/docker/daemon.json`)
	rollOut := "SSH=" + ssh + " ROLLOUT_WORK=" + t.TempDir() + " ../../../scripts/swarm-rollout --count vf=2 " + bundle + " here"
	if out := Sh(t, rollOut); !strings.Contains(out, `here: "vf=2" is in /etc/docker/daemon.json, and counts when the engine has been restarted`) {
		t.Errorf("the rollout says\n%s", out)
	}
	Run(t, "engine", "restart")
	if out := Sh(t, rollOut); strings.Contains(out, "is in") || !strings.HasSuffix(out, "here: done") {
		t.Errorf("the second rollout says\n%s", out)
	}
	if got := Docker(t, "info", "-f", "{{.Labels}}"); got != "[rack=7]" {
		t.Errorf("the engine's labels are %s", got)
	}

	Docker(t, "service", "create", "--detach", "--name", "wants", "--replicas", "3", "--generic-resource", "vf=1", "--stop-grace-period", "1s",
		"--no-resolve-image", "lab", "sleep", "100000")
	t.Cleanup(func() { _, _ = Try("docker", "service", "rm", "wants") })
	tasks := func(want string) {
		t.Helper()
		Within(t, time.Minute, func() string {
			states := Docker(t, "service", "ps", "--no-trunc", "--filter", "desired-state=running", "--format", "{{.CurrentState}}: {{.Error}}", "wants")
			running, reason := strings.Count(states, "Running "), strings.Count(states, "insufficient resources on 1 node")
			if got := strings.Repeat("running ", running) + strings.Repeat("pending ", reason); got != want {
				return states
			}
			return ""
		})
	}
	tasks("running running pending ")
	Docker(t, "service", "scale", "--detach", "wants=2")
	tasks("running running ")
}
