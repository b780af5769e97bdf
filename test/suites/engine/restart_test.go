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
