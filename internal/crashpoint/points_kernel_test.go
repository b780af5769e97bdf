//go:build kernel

package crashpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestLastPoint: the point at which a process dies is the last one in its journal, whatever its other goroutines do.
func TestLastPoint(t *testing.T) {
	if os.Getenv("CRASH_AT") != "" {
		passUntilDeath()
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		journal := filepath.Join(t.TempDir(), "journal")
		child := exec.Command(self, "-test.run", "^TestLastPoint$")
		child.Env = append(os.Environ(), "CRASH_AT=0/50", "CRASH_JOURNAL="+journal)
		if out, err := child.CombinedOutput(); child.ProcessState == nil || child.ProcessState.Exited() {
			t.Fatalf("want it killed by a signal: %v\n%s", err, out)
		}
		raw, err := os.ReadFile(journal)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(string(raw), "\n0/50\tpassed\n") {
			t.Fatalf("the process died at 0/50, the journal ends with %q", raw[max(0, len(raw)-60):])
		}
	}
}

// passUntilDeath passes points in eight goroutines at once.
func passUntilDeath() {
	journal, err := os.OpenFile(os.Getenv("CRASH_JOURNAL"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	p := New(os.Getenv("CRASH_AT"), journal, func(err error) { panic(err) })
	for g := range 8 {
		go func() {
			for i := 0; ; i++ {
				p.pass(strconv.Itoa(g)+"/"+strconv.Itoa(i), "passed")
			}
		}()
	}
	select {}
}
