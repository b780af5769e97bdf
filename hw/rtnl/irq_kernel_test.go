//go:build kernel

package rtnl_test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKernelReadOnlyIRQ: a container has a /proc/irq of its own that it cannot write to.
func TestKernelReadOnlyIRQ(t *testing.T) {
	dir := t.TempDir()
	mount := func(flags uintptr) {
		t.Helper()
		if err := unix.Mount("tmpfs", dir, "tmpfs", flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	mount(0)
	defer func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := os.Mkdir(filepath.Join(dir, "34"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "34", "smp_affinity_list"), []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mount(unix.MS_REMOUNT | unix.MS_RDONLY)
	err := openKernel(t, sys, dir).SetAffinity(34, "0")
	const want = "the plugin was given /proc/irq, but not to write to (see docs/tuning.md): read-only file system"
	if err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
}
