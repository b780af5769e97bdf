//go:build engine

package engine

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

const backupPage = "../../../docs/backup.md"

// page runs the commands of a section of docs/backup.md, from the repository's folder.
func page(t *testing.T, heading string) {
	t.Helper()
	for _, line := range docs.Commands(t, backupPage, heading) {
		switch {
		case line == "make install":
			line = "../../../scripts/install " + bundle + " " + Plugin // which is what it does, once it has built the plugin
		case strings.HasPrefix(line, "passthroughctl "):
			line = "../../../bin/" + line
		}
		Sh(t, line)
	}
}

// installedAgain has the plugin as the other tests use it, without a folder of the host, when the test ends.
func installedAgain(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		Docker(t, "plugin", "rm", "-f", Plugin)
		Sh(t, "rm -rf /var/lib/passthrough-plugin")
		if err := Install(bundle); err != nil {
			t.Fatal(err)
		}
	})
}

// TestPluginRemoved runs the commands of docs/backup.md: with containers running the records move to a folder of the host, the plugin is
// removed and installed again. Networks, leases and devices are as before, containers go on, and no address is given twice.
func TestPluginRemoved(t *testing.T) {
	installedAgain(t)
	veth(t, "pt0", "10.20.0.1/24")
	veth(t, "pt1", "10.30.0.1/24")
	Sh(t, "ip link set pt1 up")
	passthrough(t, "whole", "pt0", "10.20.0.0/24", "--gateway", "10.20.0.1")
	ours(t, "macvlan", "children", "pt1", "10.30.0.0/28", "--gateway", "10.30.0.1")
	Container(t, "w1", "--net", "whole")
	Container(t, "a1", "--net", "children")
	page(t, "A folder of the host")
	Container(t, "b1", "--net", "children")
	was := shown(t)
	if len(was) < 5 {
		t.Fatalf("the plugin shows %q", was)
	}

	Docker(t, "plugin", "rm", "-f", Plugin)
	reached(t)
	page(t, "The plugin was removed")
	Sh(t, "engine log | grep 'records of an earlier installation were found, and are used'")
	if now := shown(t); !slices.Equal(now, was) {
		t.Errorf("after the removal the plugin shows\n%s\nand before\n%s", strings.Join(now, "\n"), strings.Join(was, "\n"))
	}
	reached(t)
	Refused(t, "a device that is handed over whole serves one container at a time", "run", "--rm", "--net", "whole", "lab", "true")
	given := map[string]string{Address(t, "a1", "children"): "a1", Address(t, "b1", "children"): "b1", "10.30.0.1": "the gateway"}
	for _, name := range []string{"c1", "d1"} {
		Container(t, name, "--net", "children")
		if other := given[Address(t, name, "children")]; other != "" {
			t.Errorf("%s has %s, which is the address of %s", name, Address(t, name, "children"), other)
		}
		given[Address(t, name, "children")] = name
	}
	for _, name := range []string{"w1", "a1"} {
		Docker(t, "stop", "-t1", name)
		Docker(t, "start", name)
	}
	reached(t)
	Docker(t, "rm", "-f", "w1")
	Run(t, "ip", "link", "show", "pt0")
}

// shown are the networks, devices and leases that the plugin has recorded.
func shown(t *testing.T) []string {
	t.Helper()
	networks := ctl(t, "status", "-f", "{{range .Networks}}{{.Name}} {{.Mode}} {{.Devices}} {{.InUse}} {{.Containers}} {{.Subnets}}\n{{end}}{{.Problems}}")
	leases := ctl(t, "leases", "-f", "{{.Address}} {{.Kind}} {{.Container}} {{.MAC}}")
	return strings.Split(strings.TrimSpace(networks+"\n"+leases), "\n")
}

// reached checks that the containers of TestPluginRemoved have their networks.
func reached(t *testing.T) {
	t.Helper()
	Reaches(t, "w1", "10.20.0.1", 5*time.Second)
	Reaches(t, "a1", "10.30.0.1", 5*time.Second)
	Reaches(t, "b1", "10.30.0.1", 5*time.Second)
}

// TestFolderMissing: a plugin whose records are in a folder of the host does not start empty without it, as after an upgrade.
func TestFolderMissing(t *testing.T) {
	installedAgain(t)
	page(t, "A folder of the host")
	veth(t, "pt0", "10.20.0.1/24")
	passthrough(t, "n1", "pt0", "10.20.0.0/24")
	Container(t, "c1", "--net", "n1")
	with := func(folder string) {
		t.Helper()
		Docker(t, "plugin", "disable", "-f", Plugin)
		Docker(t, "plugin", "set", Plugin, "state.source="+folder)
		Docker(t, "plugin", "enable", Plugin)
	}
	with("/proc/irq")
	refusedIn(t, "state.source: the records are in a folder of the host, which the plugin does not have any more", "run", "--rm", "--net", "n1", "lab", "true")
	Sh(t, "mkdir -p /var/lib/passthrough-other")
	defer Sh(t, "rm -rf /var/lib/passthrough-other")
	with("/var/lib/passthrough-other")
	refusedIn(t, "state.source: the records are in another folder of the host", "run", "--rm", "--net", "n1", "lab", "true")
	Reaches(t, "c1", "10.20.0.1", 5*time.Second)
	with("/var/lib/passthrough-plugin")
	Refused(t, "a device that is handed over whole serves one container at a time", "run", "--rm", "--net", "n1", "lab", "true")
	Docker(t, "rm", "-f", "c1")
	Docker(t, "run", "--rm", "--net", "n1", "lab", "true")
}

// TestRestore runs the commands of docs/backup.md: a plugin that was removed without a folder of the host says which networks it has lost, and
// has them back from a backup, but not while a container runs that was started after it.
func TestRestore(t *testing.T) {
	t.Cleanup(func() { Sh(t, "rm -f /root/passthrough.backup") })
	veth(t, "pt1", "10.30.0.1/24")
	Sh(t, "ip link set pt1 up")
	ours(t, "macvlan", "lan", "pt1", "10.30.0.0/28", "--gateway", "10.30.0.1")
	Container(t, "a1", "--net", "lan")
	WantLine(t, ctl(t, "doctor"), "warn", "records", "docker plugin rm deletes them")
	page(t, "A backup")
	if mode := Run(t, "stat", "-c", "%a", "/root/passthrough.backup"); mode != "600" {
		t.Errorf("the backup has mode %s", mode)
	}
	was := shown(t)
	Container(t, "b1", "--net", "lan")

	Docker(t, "plugin", "rm", "-f", Plugin)
	if err := Install(bundle); err != nil {
		t.Fatal(err)
	}
	Reaches(t, "a1", "10.30.0.1", 5*time.Second)
	if out := ctl(t, "status"); !strings.Contains(out, "the engine has the networks lan, of which the plugin has no records") {
		t.Errorf("status:\n%s", out)
	}
	const left = "pt1: another installation of the plugin has made what containers have on it (links: 2), and this one has no record of that"
	for _, command := range []string{"status", "doctor"} {
		if out, _ := Try("../../../bin/passthroughctl", command); !strings.Contains(strings.Join(strings.Fields(out), " "), left) {
			t.Errorf("%s:\n%s", command, out)
		}
	}
	Sh(t, "engine log | grep 'device without a record.*"+left[:40]+"'")
	Sh(t, "engine log | grep 'ledger is empty.*passthroughctl restore brings back those of a backup'")
	refusedIn(t, "no such pool", "run", "--rm", "--net", "lan", "lab", "true")
	restore := "../../../bin/" + docs.Commands(t, backupPage, "The way back")[0]
	if _, err := Try("sh", "-c", restore); err == nil || !strings.Contains(err.Error(), "not in the backup are the containers b1,") {
		t.Errorf("restored while b1 runs: %v", err)
	}
	Docker(t, "stop", "-t1", "b1") // its macvlan comes home to a plugin that has no record of it
	remedy := regexp.MustCompile(`ip link delete pt[0-9a-f]+`).FindString(ctl(t, "status"))
	if remedy == "" {
		t.Errorf("status does not name the macvlan of b1:\n%s", ctl(t, "status"))
	}
	Sh(t, remedy)
	Sh(t, restore)
	if now := shown(t); !slices.Equal(now, was) {
		t.Errorf("restored:\n%s\nand before\n%s", strings.Join(now, "\n"), strings.Join(was, "\n"))
	}
	if _, err := Try("sh", "-c", restore); err == nil || !strings.Contains(err.Error(), "records of networks, endpoints, devices, pools and leases") {
		t.Errorf("restored over records: %v", err)
	}
	Docker(t, "start", "b1")
	if a, b := Address(t, "a1", "lan"), Address(t, "b1", "lan"); a == b {
		t.Errorf("a1 and b1 both have %s", a)
	}
	Docker(t, "stop", "-t1", "a1")
	Docker(t, "start", "a1")
	Reaches(t, "a1", "10.30.0.1", 5*time.Second)
	Reaches(t, "b1", "10.30.0.1", 5*time.Second)
}
