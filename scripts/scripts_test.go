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
			// Each remembers in a folder what the real one would.
			for _, name := range []string{"docker", "docker-node", "ssh"} {
				stub, err := os.ReadFile(filepath.Join("testdata", name))
				if err != nil {
					return err
				}
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), stub, 0o755); err != nil {
					return err
				}
			}
			e.Setenv("SCRIPTS", here)
			e.Setenv("DOCKER", filepath.Join(e.WorkDir, "docker"))
			e.Setenv("NODE_DOCKER", filepath.Join(e.WorkDir, "docker-node"))
			e.Setenv("SSH", filepath.Join(e.WorkDir, "ssh"))
			e.Setenv("NODES", filepath.Join(e.WorkDir, "nodes"))
			e.Setenv("STATE", filepath.Join(e.WorkDir, "state"))
			return os.MkdirAll(filepath.Join(e.WorkDir, "state"), 0o755)
		},
	})
}
