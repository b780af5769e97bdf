package rtnl

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// TestIRQDirectory reads and writes a directory with the layout of /proc/irq; that of the machine must not be changed.
func TestIRQDirectory(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "34", "smp_affinity_list")
	if err := errors.Join(os.Mkdir(filepath.Dir(name), 0o755), os.WriteFile(name, []byte("0-3\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	k := &Kernel{irqDir: openIRQ(dir)}
	defer k.irqDir.close()
	if cpus, err := k.Affinity(34); cpus != "0-3" || err != nil {
		t.Errorf("it goes to %q, %v", cpus, err)
	}
	if err := k.SetAffinity(34, "2"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(name); err != nil || string(b)[0] != '2' {
		t.Errorf("written was %q, %v", b, err)
	}
	if _, err := k.Affinity(35); !errors.Is(err, hw.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
	if err := k.SetAffinity(35, "2"); !errors.Is(err, hw.ErrNotFound) {
		t.Errorf("one that is not there: %v", err)
	}
}

// TestNoIRQDirectory: without /proc/irq only the methods that need it fail.
func TestNoIRQDirectory(t *testing.T) {
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	for dir, want := range map[string]string{
		"":      "the plugin was not given /proc/irq (see docs/tuning.md)",
		nowhere: "the plugin was not given /proc/irq (see docs/tuning.md): open " + nowhere + ": no such file or directory",
	} {
		k := &Kernel{irqDir: openIRQ(dir)}
		_, err := k.Affinity(34)
		for _, err := range []error{err, k.SetAffinity(34, "0")} {
			if err == nil || err.Error() != want || errors.Is(err, hw.ErrNotFound) {
				t.Errorf("%q: %v, want %s", dir, err, want)
			}
		}
		k.irqDir.close()
	}
}
