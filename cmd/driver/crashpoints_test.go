package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestNoCrashPoints: the program that `make build` makes has no crash points, whatever its environment says. The one with the
// build tag crashpoints has some, which shows that the test looks for the right thing.
func TestNoCrashPoints(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	tags := regexp.MustCompile(`(?m)^GO_BUILD := .*go build -tags (\S+) `).FindSubmatch(makefile)
	if tags == nil {
		t.Fatal("the Makefile does not say with which tags it builds")
	}
	for _, c := range []struct {
		tags string
		want bool
	}{{string(tags[1]), false}, {string(tags[1]) + ",crashpoints", true}} {
		binary := filepath.Join(t.TempDir(), "driver")
		build := exec.Command("go", "build", "-tags", c.tags, "-o", binary, ".")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		code, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		if has := bytes.Contains(code, []byte("CRASH_AT")); has != c.want {
			t.Errorf("with the tags %s there are crash points: %v, want %v", c.tags, has, c.want)
		}
	}
}
