package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// literal is a text in Go source; remedy is what such a text tells a user to run or to say. Commands of passthroughctl have a test of their own
// (cmd/passthroughctl, TestNamedCommands).
var (
	literal = regexp.MustCompile(`"(?:[^"\\\n]|\\.)*"`)
	remedy  = regexp.MustCompile(`ip link (?:set|delete) [%a-z0-9 ]*|modprobe %s|devlink dev [^;",)]+|echo [%s0]+ >[^;",) ]+|docker (?:stop|network rm|plugin (?:disable -f|ls|rm))|` +
		`driver forget|systemctl status docker|say [a-z]+=[%a-z]+|--aux-address %s=ADDRESS|--subnet=%s|--ipam-opt gateway=none`)
)

// executed says for each remedy which test does what it says, as it is there; or, with no file, why no test does.
var executed = map[string][2]string{
	"ip link set %s up":                             {"test/suites/lab/ctl_test.go", `remedy := "ip link set " + pf + " up"`},
	"ip link set %s mtu %d":                         {"netdrv/trial_test.go", "hw.LinkMTU, hw.Link{MTU: 9000}"},
	"ip link set ":                                  {"test/suites/lab/ctl_test.go", `Sh(t, remedy)`},
	"ip link set %s alias ":                         {"netdrv/unrecorded_test.go", "hw.LinkAlias, hw.Link{}"},
	"ip link delete %s":                             {"netdrv/unrecorded_test.go", "m.kernel.RemoveLink("},
	"echo 0 >/sys/bus/pci/devices/":                 {"netdrv/unrecorded_test.go", `sriov_numvfs", "0")`},
	"modprobe %s":                                   {"test/suites/lab/leftovers_test.go", "modprobe -a macvlan ipvlan 8021q"},
	"echo %s >/sys/bus/pci/drivers_probe":           {"hw/hwtest/kernel_test.go", `"bus/pci/drivers_probe"`},
	"devlink dev eswitch set pci/%s mode legacy":    {"", "no NIC of the lab has another mode; only recording a card asks for it"},
	"devlink dev eswitch set pci/%s mode switchdev": {"", "no NIC of the lab has that mode"},
	"ip link set %s type bridge vlan":               {"netdrv/switchdev_test.go", `"/bridge/vlan_filtering", "1"`},
	"docker stop":                                   {"test/suites/engine/engine_test.go", `{"stop", "-t1", "c1"}`},
	"docker network rm":                             {"test/suites/campaign/campaign_test.go", `docker("network", "rm", n.name)`},
	"docker plugin disable -f":                      {"test/suites/engine/engine_test.go", `Docker(t, "plugin", "disable", "-f", Plugin)`},
	"docker plugin rm":                              {"test/suites/lab/quickstart_test.go", `"plugin", "rm"`},
	"docker plugin ls":                              {"", "it changes nothing; the user looks whether the plugin is enabled"},
	"systemctl status docker":                       {"", "it changes nothing, and neither the engine of the tests nor the lab's is a unit of systemd in every guest"},
	"driver forget":                                 {"cmd/driver/operator_cluster_test.go", `"forget", "--force"`},
	"say force=yes":                                 {"test/suites/lab/reports_test.go", `"-o", "force=yes"`},
	"say netdevice=%s":                              {"test/suites/lab/bond_test.go", `"netdevice=bond7"`},
	"say numvfs=%d":                                 {"netdrv/numvfs_test.go", "numvfs=2"},
	"say rdma=yes":                                  {"netdrv/rdma_test.go", `"rdma=yes"`},
	"say replace=%s":                                {"netdrv/replace_test.go", "replace="},
	"--aux-address %s=ADDRESS":                      {"test/suites/lab/thin_test.go", `"--aux-address", "host=10.6.0.250"`},
	"--subnet=%s":                                   {"test/suites/engine/dhcp_test.go", "--subnet=10.8.0.0/24"},
	"--ipam-opt gateway=none":                       {"test/suites/lab/reports_test.go", `"--ipam-opt", "gateway=none"`},
}

// TestRemedies: what the errors of plugin and tool tell a user to run or to say, a test does, or there is a reason why none does.
func TestRemedies(t *testing.T) {
	found := map[string]string{}
	for _, dir := range []string{"cmd/driver", "cmd/passthroughctl", "hw", "ipamdrv", "netdrv", "store"} {
		err := filepath.WalkDir(filepath.Join("../../..", dir), func(name string, e fs.DirEntry, err error) error {
			if err != nil || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
				return err
			}
			text, err := os.ReadFile(name)
			for _, l := range literal.FindAllString(string(text), -1) {
				for _, r := range remedy.FindAllString(l, -1) {
					found[r] = name
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for r, where := range found {
		if _, ok := executed[r]; !ok {
			t.Errorf("%s tells a user %q; no test is known that does it", where, r)
		}
	}
	for r, by := range executed {
		if found[r] == "" {
			t.Errorf("no error says %q any more", r)
		}
		if by[0] == "" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("../../..", by[0]))
		if err != nil || !strings.Contains(string(text), by[1]) {
			t.Errorf("%q: %s does not have %q: %v", r, by[0], by[1], err)
		}
	}
}
