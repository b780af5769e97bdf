package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestIRQDir: the mounted directory is used instead of the process's own /proc/irq; a directory where nothing is mounted is not.
func TestIRQDir(t *testing.T) {
	granted := t.TempDir()
	if got := irqDir(granted, "/proc/irq"); got != "/proc/irq" {
		t.Errorf("with nothing granted it is %s", got)
	}
	if err := os.WriteFile(filepath.Join(granted, "default_smp_affinity"), []byte("3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := irqDir(granted, "/proc/irq"); got != granted {
		t.Errorf("with %s granted it is %s", granted, got)
	}
}
