//go:build kernel

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/test/harness/crash"
)

// veth is a device that can be lent whole: one end of a pair, in use by the host.
const veth = `ip link add tap0 address 02:00:00:00:00:01 type veth peer name tap1 address 02:00:00:00:00:02
ip link set tap1 up
ip link set tap0 up mtu 1400
ip addr add 192.0.2.7/24 dev tap0
ip route add 198.51.100.0/24 via 192.0.2.1 dev tap0
`

// TestCrash kills the process at every crash point, with devices that every kernel has: at a sample of them if owners that are no engine have the
// devices, which go the same way.
func TestCrash(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []struct {
		every    int
		scenario crash.Scenario
	}{
		{1, crash.Scenario{Name: "whole device", Setup: veth, Subnet: "10.5.0.0/24", Options: map[string]string{"netdevice": "tap0", "mode": "passthrough"}}},
		{1, crash.Scenario{Name: "macvlan", Setup: veth, Subnet: "10.6.0.0/24", Options: map[string]string{"netdevice": "tap0", "mode": "macvlan"},
			IPAM: map[string]string{"pool": "lan"}}},
		{4, crash.Scenario{Name: "macvlan with a spec", Setup: veth, Subnet: "10.9.0.0/24", Options: map[string]string{"netdevice": "tap0", "mode": "macvlan", "cdi": "lan"}}},
		{1, crash.Scenario{Name: "macvlan with access to the host", Setup: veth, Subnet: "10.7.0.0/24", Aux: map[string]string{"host": "10.7.0.250/24"},
			Options: map[string]string{"netdevice": "tap0", "mode": "macvlan", "host_access": "yes"}}},
		{30, crash.Scenario{Name: "whole device of an owner", Setup: veth, Owners: 1, Options: map[string]string{"netdevice": "tap0", "mode": "passthrough"}}},
		{12, crash.Scenario{Name: "macvlans of owners", Setup: veth, Owners: 2, Subnet: "10.8.0.0/24",
			Options: map[string]string{"netdevice": "tap0", "mode": "macvlan"}, IPAM: map[string]string{"pool": "lan"}}},
	} {
		t.Run(l.scenario.Name, func(t *testing.T) {
			env := crash.Environment{Program: []string{self, "driver"}, Private: true}.Sampled(t, l.every)
			crash.AtEveryPoint(t, env, l.scenario)
		})
	}
}

// TestCrashMove kills the process at every crash point of the move of records into a folder of the host, and of their being taken up there by the
// next installation. Whenever it is killed the records are in one of the folders, whole, and the next process finishes what it has begun.
func TestCrashMove(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{ledgerFile: "records", "releases": "", "tls/ca.pem": "ca"}
	for name, c := range map[string]struct{ own, host map[string]string }{
		"moved": {own: files}, "taken up": {host: files},
	} {
		t.Run(name, func(t *testing.T) {
			settle := func(f stateFolders, at string) (points []string, err error) {
				journal := filepath.Join(t.TempDir(), "journal")
				cmd := exec.Command(self, f.own, f.host)
				cmd.Args[0] = "settle"
				cmd.Env = append(os.Environ(), "CRASH_JOURNAL="+journal, "CRASH_AT="+at)
				out, err := cmd.CombinedOutput()
				raw, _ := os.ReadFile(journal) // none before the first point
				for line := range strings.Lines(string(raw)) {
					point, _, _ := strings.Cut(line, "\t")
					points = append(points, point)
				}
				if len(out) > 0 {
					t.Errorf("killed at %q: %s", at, out)
				}
				return points, err
			}
			fresh := func() stateFolders {
				f := newFolders(t, t.TempDir())
				put(t, f.own, c.own)
				put(t, f.host, c.host)
				if err := os.Chmod(f.host, 0o700); err != nil {
					t.Fatal(err)
				}
				return f
			}
			points, err := settle(fresh(), "")
			if err != nil || len(points) < 8 {
				t.Fatalf("it passes %v, %v", points, err)
			}
			for _, at := range points {
				f := fresh()
				if passed, err := settle(f, at); err == nil || len(passed) == 0 || passed[len(passed)-1] != at {
					t.Fatalf("it was to be killed at %s, and passed %v, %v", at, passed, err)
				}
				if content(t, f.own)[ledgerFile] != "records" && content(t, f.host)[ledgerFile] != "records" {
					t.Errorf("killed at %s: no folder has the records", at)
				}
				if _, err := settle(f, ""); err != nil {
					t.Errorf("after it was killed at %s: %v", at, err)
				}
				want(t, f.host, files)
				if _, own := content(t, f.own)[ledgerFile]; own {
					t.Errorf("killed at %s: the plugin's own folder still has a ledger", at)
				}
				if why := without(f); !strings.Contains(why, "as after an upgrade; set it to that folder again") {
					t.Errorf("killed at %s, without its folder: %s", at, why)
				}
			}
			t.Logf("killed at %d points", len(points))
		})
	}
}

// without returns what a plugin says that has lost its folder of the host.
func without(f stateFolders) string {
	_, why := (&stateFolders{own: f.own}).settled()
	return why
}
