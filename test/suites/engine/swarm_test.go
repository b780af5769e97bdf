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

// TestServiceDevices: the tasks of a service have the name of the device and the routes that the service says. With an engine that says who
// asks for an address, a slot's next task has the address of the one before.
func TestServiceDevices(t *testing.T) {
	Docker(t, "swarm", "init", "--advertise-addr", "127.0.0.1")
	t.Cleanup(func() { _, _ = Try("docker", "swarm", "leave", "--force") })
	veth(t, "pt0", "10.20.0.1/24")
	Sh(t, "ip link set pt0 up")
	Network(t, "svc-here", "--config-only", "--ipam-driver", Plugin, "--subnet", "10.20.0.0/24", "--ip-range", "10.20.0.64/26",
		"-o", "netdevice=pt0", "-o", "mode=macvlan", "-o", "routes=10.60.0.0/24 dev")
	Network(t, "svc", "--scope", "swarm", "-d", Plugin, "--config-from", "svc-here")
	name := "prefix=fab"
	if takesIfname(t) {
		name = "ifname=fab0"
	}
	t.Cleanup(func() {
		_, _ = Try("docker", "service", "rm", "devices", "other")
		_ = Await(30*time.Second, func() string {
			left, _ := Try("docker", "ps", "-aq", "--filter", "label=com.docker.swarm.service.name")
			return left
		})
	})
	create := func(name, network string) {
		Docker(t, "service", "create", "--detach", "--name", name, "--network", network, "--stop-grace-period", "1s", "--no-resolve-image",
			"lab", "sleep", "100000")
	}
	create("other", "svc") // the node has the network, and its pool, as long as there is a task of it
	create("devices", "name=svc,driver-opt="+name+",driver-opt=routes=10.70.0.0/24 dev")
	task := func(before string) (id string) {
		t.Helper()
		Within(t, time.Minute, func() string {
			id = Docker(t, "ps", "-q", "--filter", "label=com.docker.swarm.service.name=devices")
			if id == "" || id == before || strings.Contains(id, "\n") || Address(t, id, "svc") == "" {
				return Docker(t, "service", "ps", "--no-trunc", "devices")
			}
			return ""
		})
		if routes := Exec(t, id, "ip", "route"); !strings.Contains(routes, "10.70.0.0/24 dev fab0") || strings.Contains(routes, "10.60.0.0/24") {
			t.Errorf("the routes are\n%s", routes)
		}
		return id
	}
	first := task("")
	was := Address(t, first, "svc")
	Docker(t, "service", "update", "--detach", "--force", "devices")
	second := task(first)
	if now := Address(t, second, "svc"); (now == was) != (apiMinor(t) >= 52) {
		t.Errorf("the slot had %s and has %s", was, now)
	}
}

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
	Docker(t, "service", "update", "--detach", "--generic-resource-add", "vf=2", "wants")
	tasks("running pending ")
	node := Docker(t, "node", "inspect", "-f", "{{.Status.State}} {{json .Description.Resources.GenericResources}}", "self")
	if node != `ready [{"DiscreteResourceSpec":{"Kind":"vf","Value":2}}]` {
		t.Errorf("the swarm says of the node %s", node)
	}
}
