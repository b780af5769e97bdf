//go:build cluster

package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// envClock is the variable with the file that has the offset of a plugin's wall clock.
const envClock = "TEST_WALL_CLOCK"

// envMachine is the variable with the folder that a plugin reads as proc and sys, to know its machine.
const envMachine = "TEST_MACHINE"

// newMachine makes such a folder, for a machine of its own.
func newMachine(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, file := range []string{"proc/sys/kernel/random/boot_id", "sys/class/dmi/id/product_uuid"} {
		path := filepath.Join(dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(rand.Text()+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// clockSource is added to the plugin by buildWithClock.
const clockSource = `package main

import (
	"os"
	"strconv"
	"time"
)

func init() {
	go func() {
		for range time.Tick(20 * time.Millisecond) {
			raw, _ := os.ReadFile(os.Getenv("` + envClock + `"))
			if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
				time.WallOffset = n
			}
		}
	}()
}
`

// buildWithClock builds the plugin with a machine identity of its own, see newMachine, and with a wall clock that setClock can set, as date -s
// does on a machine: its monotonic clock goes on. The kernel has no wall clock for one process alone (time_namespaces(7)), and a static binary
// asks it without the C library. So the toolchain gets another time.Now (go build -overlay).
func buildWithClock(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src/time/time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		t.Fatal(err)
	}
	const before, after = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n", "\tsec, nsec, mono := runtimeNow()\n\tsec += WallOffset\n\tif mono == 0 {\n"
	if strings.Count(string(source), before) != 1 {
		t.Fatalf("%s: time.Now is not as in Go 1.26", original)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	process := filepath.Join(here, "../../store/cluster/process.go")
	machine, err := os.ReadFile(process)
	const first = "func ThisMachine(root string) Machine {\n"
	if err != nil || strings.Count(string(machine), first) != 1 {
		t.Fatalf("%s: ThisMachine is not as expected: %v", process, err)
	}
	changed := strings.Replace(string(source), before, after, 1) + "\n// WallOffset is added to the wall clock, in seconds.\nvar WallOffset int64\n"
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {
		original:                            write("time.go", changed),
		filepath.Join(here, "wallclock.go"): write("wallclock.go", clockSource),
		process:                             write("process.go", strings.Replace(string(machine), first, first+"\troot = os.Getenv(\""+envMachine+"\")\n", 1)),
	}})
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "driver")
	build := exec.Command("go", "build", "-trimpath", "-overlay", write("overlay.json", string(overlay)), "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	return binary
}

// setClock sets the wall clock of the node's plugin so many seconds ahead of the machine's.
func (n *node) setClock(seconds int) {
	next := n.clock + ".next"
	if err := os.WriteFile(next, []byte(strconv.Itoa(seconds)), 0o600); err != nil {
		n.Error(err)
	}
	if err := os.Rename(next, n.clock); err != nil {
		n.Error(err)
	}
}
