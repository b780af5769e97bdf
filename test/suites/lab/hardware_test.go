//go:build lab && hardware

package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// The NIC of the host that PF names, which scripts/test-hw has checked.
var (
	pf    = os.Getenv("PF")
	pfPCI = pciOf(pf)
)

// pciOf returns the PCI address of a netdev, "" if it has none.
func pciOf(netdev string) string {
	to, err := filepath.EvalSymlinks("/sys/class/net/" + netdev + "/device")
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// few returns the options of a network, with a number of VFs: some NICs take longer to make all that they can have than the engine waits.
func few(options []string) []string {
	if strings.Contains(strings.Join(options, " "), "numvfs=") {
		return options
	}
	return append(options, "-o", "numvfs=4")
}

// TestHardware runs the stories that need one NIC with a link, a Docker Engine, and nothing else of the guest: each leaves NIC and engine as they
// were. Their NIC sets VLAN, spoof check and trust.
func TestHardware(t *testing.T) {
	if pfPCI == "" {
		t.Fatalf("PF=%s: it is no PCI device", pf)
	}
	before := hostAndEngine(t)
	for _, story := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"TwoTenants", TestTwoTenants},
		{"EveryWayOut", TestEveryWayOut},
		{"AllInUse", TestAllInUse},
		{"Connect", TestConnect},
		{"NamesAndRoutes", TestNamesAndRoutes},
		{"RecordBesideContainers", TestRecordBesideContainers},
	} {
		t.Run(story.name, story.run)
	}
	if now := hostAndEngine(t); now != before {
		t.Errorf("host and engine are\n%s\nbut were\n%s", now, before)
	}
}

// hostAndEngine is the state of the host's devices, and what the engine has.
func hostAndEngine(t *testing.T) string {
	return host(t) + Sh(t, "docker ps -aq --no-trunc | sort; docker network ls -q --no-trunc | sort; docker plugin ls -q --no-trunc; docker volume ls -q")
}
