// Package scripts holds no code: its tests tell the stories of install, uninstall and swarm-rollout, with stand-ins for
// docker and ssh.
package scripts

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestScripts(t *testing.T) {
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			// They are run where they are: a program that was written a moment ago cannot be ("text file busy") while a
			// process that another test has just forked still holds it open. Each remembers in a folder what the real
			// one would.
			e.Setenv("SCRIPTS", here)
			e.Setenv("DOCKER", filepath.Join(here, "testdata", "docker"))
			e.Setenv("NODE_DOCKER", filepath.Join(here, "testdata", "docker-node"))
			e.Setenv("SSH", filepath.Join(here, "testdata", "ssh"))
			e.Setenv("NODES", filepath.Join(e.WorkDir, "nodes"))
			e.Setenv("STATE", filepath.Join(e.WorkDir, "state"))
			e.Setenv("STATE_FOLDERS", e.WorkDir)
			return os.MkdirAll(filepath.Join(e.WorkDir, "state"), 0o755)
		},
	})
}

// TestRulesComeFirst: systemd-networkd takes the first file by name that matches a device, in whatever folder it is, and
// netplan's are 10-netplan-*.network: Ubuntu has them on every server.
func TestRulesComeFirst(t *testing.T) {
	rules, err := filepath.Glob("host-rules/*.network")
	if err != nil || len(rules) != 1 {
		t.Fatalf("files for systemd-networkd: %q, %v", rules, err)
	}
	if name := filepath.Base(rules[0]); name >= "10-netplan-" {
		t.Errorf("%s comes after netplan's files, which then decide about VFs", name)
	}
}
