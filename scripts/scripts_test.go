// Package scripts holds no code: its tests tell the stories of install and uninstall, with a stand-in for docker.
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
			// A docker that remembers in the folder state what a real one would.
			stub, err := os.ReadFile("testdata/docker")
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(e.WorkDir, "docker"), stub, 0o755); err != nil {
				return err
			}
			e.Setenv("SCRIPTS", here)
			e.Setenv("DOCKER", filepath.Join(e.WorkDir, "docker"))
			e.Setenv("STATE", filepath.Join(e.WorkDir, "state"))
			return os.MkdirAll(filepath.Join(e.WorkDir, "state"), 0o755)
		},
	})
}
