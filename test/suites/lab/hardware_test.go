//go:build lab

package lab

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// The guest's first NIC, or that of a host which PF names and scripts/test-hw has checked.
var (
	ownNIC = os.Getenv("PF")
	pf     = cmp.Or(ownNIC, "enp1s0")
	pfPCI  = pciOf(pf)
)

// pciOf returns the PCI address of a netdev, "" if it has none.
func pciOf(netdev string) string {
	to, err := filepath.EvalSymlinks("/sys/class/net/" + netdev + "/device")
	if err != nil {
		return ""
	}
	return filepath.Base(to)
}

// few returns the options of a network, on a host's NIC with a number of VFs: some take longer to make all that they can have than the engine
// waits.
func few(options []string) []string {
	if ownNIC == "" || strings.Contains(strings.Join(options, " "), "numvfs=") {
		return options
	}
	return append(options, "-o", "numvfs=4")
}

// TestHardware runs the stories that need one NIC with a link, a Docker Engine, and nothing else of the guest: each leaves NIC and engine as they
// were. Their NIC sets VLAN, spoof check and trust.
func TestHardware(t *testing.T) {
	if ownNIC == "" || pfPCI == "" {
		t.Fatalf("PF=%s: it is no PCI device", ownNIC)
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

// TestHardwareStories: on a machine with a NIC and an engine that does not have the plugin, scripts/test-hw runs stories, and leaves NIC and engine
// as they were. The image that the stories' containers run has another name, as on such a machine.
func TestHardwareStories(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	Docker(t, "plugin", "rm", "-f", Plugin)
	Sh(t, "docker tag lab kept && docker rmi lab && ln -s "+program+" hardware.test")
	t.Cleanup(func() {
		Sh(t, "rm hardware.test; docker tag kept lab && docker rmi kept")
		if err := Install("plugin"); err != nil {
			t.Error(err)
		}
	})
	state := func() string {
		return hostAndEngine(t) + Sh(t, "docker image ls --format '{{.Repository}}:{{.Tag}}' | sort; "+
			"ip -d link show "+pf+" | sed 's/qdisc [a-z_]*//; s/state [A-Z]*//; s/NO-CARRIER,//; s/,LOWER_UP//'")
	}
	before := state()
	stories := exec.Command("./test-hw", pf, ".")
	stories.Env = append(os.Environ(), "IMAGE=kept", "RUN=AllInUse|RecordBesideContainers")
	out, err := stories.CombinedOutput()
	if passed := strings.Count(string(out), "--- PASS: TestHardware/"); err != nil || passed != 2 {
		t.Errorf("%d of 2 stories passed, %v:\n%s", passed, err, strings.ReplaceAll(string(out), "--- ", ""))
	}
	if now := state(); now != before {
		t.Errorf("NIC and engine are\n%s\nbut were\n%s", now, before)
	}
}

// hostAndEngine is the state of the host's devices, and what the engine has.
func hostAndEngine(t *testing.T) string {
	return host(t) + Sh(t, "docker ps -aq --no-trunc | sort; docker network ls -q --no-trunc | sort; docker plugin ls -q --no-trunc; docker volume ls -q")
}
