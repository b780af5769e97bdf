//go:build engine

package engine

import (
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// TestEngineRestarted: an orderly restart. A container with restart=always has its network again, one without can be started, and
// gets what it had left.
func TestEngineRestarted(t *testing.T) {
	veth(t, "pt0", "10.20.0.1/24")
	veth(t, "pt1", "10.30.0.1/24")
	Sh(t, "ip link set pt1 up")
	passthrough(t, "whole", "pt0", "10.20.0.0/24", "--gateway", "10.20.0.1")
	ours(t, "macvlan", "children", "pt1", "10.30.0.0/24", "--gateway", "10.30.0.1")
	Container(t, "always", "--net", "children", "--restart=always")
	Container(t, "never", "--net", "whole")
	Run(t, "engine", "restart")
	Within(t, 20*time.Second, func() string {
		if up := Inspect(t, "always", "{{.State.Running}}"); up != "true" {
			return "the container with restart=always is not running"
		}
		return ""
	})
	Reaches(t, "always", "10.30.0.1", 5*time.Second)
	Run(t, "ip", "link", "show", "pt0")
	Docker(t, "start", "never")
	Reaches(t, "never", "10.20.0.1", 5*time.Second)
}

// TestEngineKilled: dockerd is killed with a container that has a child device; then the same with live restore, where the container goes
// on running. Each time it can be started, stopped and removed, and nothing is left. A whole veth would end with the container.
func TestEngineKilled(t *testing.T) {
	t.Cleanup(func() { Sh(t, "engine stop && rm -f /run/dockerd.options && engine start") })
	veth(t, "pt1", "10.30.0.1/24")
	Sh(t, "ip link set pt1 up")
	before := Sh(t, "ip -o link | wc -l")
	ours(t, "macvlan", "children", "pt1", "10.30.0.0/24", "--gateway", "10.30.0.1")
	Container(t, "never", "--net", "children")
	Run(t, "engine", "kill")
	Run(t, "engine", "start")
	Docker(t, "start", "never")
	Reaches(t, "never", "10.30.0.1", 5*time.Second)
	Docker(t, "stop", "-t1", "never")
	Run(t, "engine", "restart", "--live-restore")
	Docker(t, "start", "never")
	Run(t, "engine", "kill")
	Run(t, "engine", "start", "--live-restore")
	Reaches(t, "never", "10.30.0.1", 5*time.Second)
	Docker(t, "rm", "-f", "never")
	Within(t, 10*time.Second, func() string {
		if now := Sh(t, "ip -o link | wc -l"); now != before {
			return "the host has " + now + " devices, and had " + before
		}
		return ""
	})
}
