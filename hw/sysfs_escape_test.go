package hw_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
)

// An escapeTree looks like /sys, and has links that lead out of it to a file beside it.
type escapeTree struct {
	t      testing.TB
	read   []hw.Sysfs // the same tree, by the kernel's own check of paths and by that of the standard library
	kernel *rtnl.Kernel
	out    string // the directory beside it
}

// secret is the content of the file beside the tree.
const secret = "secret"

// newEscapeTree creates a tree; when the test ends, nothing beside it may have changed.
func newEscapeTree(t testing.TB) *escapeTree {
	t.Helper()
	dir := t.TempDir()
	h := &escapeTree{t: t, out: filepath.Join(dir, "out")}
	device := filepath.Join(dir, "sys/bus/pci/devices/0000:01:00.0")
	for _, err := range []error{
		os.MkdirAll(filepath.Join(h.out, "net"), 0o755),
		os.WriteFile(filepath.Join(h.out, "net/file"), []byte(secret), 0o644),
		os.MkdirAll(device, 0o755),
		os.MkdirAll(filepath.Join(dir, "sys/class/net"), 0o755),
		os.WriteFile(filepath.Join(device, "inside"), []byte("inside\n"), 0o644),
		os.Symlink(filepath.Join(h.out, "net/file"), filepath.Join(device, "absolute")),
		os.Symlink("../../../../../out/net/file", filepath.Join(device, "relative")),
		os.Symlink("relative", filepath.Join(device, "twice")),
		os.Symlink("../../../../../out/net", filepath.Join(device, "net")),
		os.Symlink("/proc/self/root", filepath.Join(device, "root")),
		os.Symlink("../../bus/pci/devices/0000:01:00.0", filepath.Join(dir, "sys/class/net/good0")),
		os.Symlink("../../../out", filepath.Join(dir, "sys/class/net/bad0")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(filepath.Join(dir, "sys"))
	if err != nil {
		t.Fatal(err)
	}
	if h.kernel, err = rtnl.Open(root.Name(), ""); err != nil {
		t.Fatal(err)
	}
	h.read = []hw.Sysfs{hw.NewSysfs(h.kernel.Sysfs()), hw.NewSysfs(root.FS())}
	t.Cleanup(func() {
		h.kernel.Close()
		if err := root.Close(); err != nil {
			t.Error(err)
		}
		h.check()
	})
	return h
}

// check checks that nothing beside the tree has changed.
func (h *escapeTree) check() {
	h.t.Helper()
	text, err := os.ReadFile(filepath.Join(h.out, "net/file"))
	if err != nil || string(text) != secret {
		h.t.Errorf("the file beside the tree is %q, %v", text, err)
	}
	entries, err := os.ReadDir(filepath.Join(h.out, "net"))
	if err != nil || len(entries) != 1 {
		h.t.Errorf("beside the tree there are %v, %v", entries, err)
	}
}

// TestSysfsStaysInside: neither names nor links lead out of /sys for reading or writing, while links within it, which
// sysfs is full of, are followed.
func TestSysfsStaysInside(t *testing.T) {
	const device = "bus/pci/devices/0000:01:00.0/"
	for i := range newEscapeTree(t).read {
		h := newEscapeTree(t)
		sys := h.read[i]
		for _, name := range []string{
			device + "absolute", device + "relative", device + "twice", device + "net/file", device + "root/etc/hostname",
			"class/net/bad0/net/file", "class/net/good0/net/file", "../out/net/file", device + "../../../../../out/net/file",
			"/etc/hostname", filepath.Join(h.out, "net/file"), "class/net/good0/../../../../../../out/net/file",
			device + "inside\x00", "class/net/\x00", device + "..\x00/inside",
		} {
			if text, ok, err := sys.Text(name); ok || err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%q reads %q, %v, %v", name, text, ok, err)
			}
			if n, ok, err := sys.Number(name); ok || err == nil {
				t.Errorf("%q reads %d, %v, %v", name, n, ok, err)
			}
			if err := h.kernel.WriteAttr(name, "overwritten"); err == nil {
				t.Errorf("%q is written", name)
			}
		}
		for _, name := range []string{device + "net", "class/net/bad0", "..", "/", "class/net/bad0/net", device + "root"} {
			if names, err := sys.List(name); err == nil {
				t.Errorf("%q lists %q", name, names)
			}
		}
		for _, name := range []string{device + "inside", "class/net/good0/inside"} {
			if text, ok, err := sys.Text(name); text != "inside" || !ok || err != nil {
				t.Errorf("%q reads %q, %v, %v", name, text, ok, err)
			}
		}
		if err := h.kernel.WriteAttr("class/net/good0/inside", "INSIDE"); err != nil {
			t.Error(err)
		}
		if text, _, err := sys.Text(device + "inside"); text != "INSIDE" {
			t.Errorf("what was written is %q, %v", text, err)
		}
		if err := h.kernel.WriteAttr(device+"absent", "x"); err == nil || sys.Exists(device+"absent") {
			t.Errorf("a file was made: %v", err)
		}
	}
}

// TestSysfsReads: both readers of a tree read the same, and give the same errors.
func TestSysfsReads(t *testing.T) {
	h := newEscapeTree(t)
	const dir = "bus/pci/devices/0000:01:00.0"
	var said []string
	for _, sys := range h.read {
		var text []string
		add := func(of any, err error) {
			text = append(text, fmt.Sprint(of, errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENOTDIR), err == nil))
		}
		for _, name := range []string{dir + "/inside", dir, dir + "/absent", dir + "/inside/below", dir + "/relative", "class/net/good0", "class/net/good0/inside"} {
			target, err := fs.ReadLink(sys.FS, name)
			add(target, err)
			b, err := fs.ReadFile(sys.FS, name)
			add(string(b), err)
			entries, err := fs.ReadDir(sys.FS, name)
			add(entries, err)
			fi, err := fs.Lstat(sys.FS, name)
			if err == nil {
				add(fi.Mode(), nil)
			} else {
				add(nil, err)
			}
		}
		said = append(said, strings.Join(text, "\n"))
	}
	if said[0] != said[1] {
		t.Errorf("the kernel's check of paths reads\n%s\nand the standard library's\n%s", said[0], said[1])
	}
}

// TestSysfsFS: the reader of a tree is a file system as the standard library wants them.
func TestSysfsFS(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.MkdirAll(filepath.Join(dir, "sub/empty"), 0o755), os.WriteFile(filepath.Join(dir, "sub/file"), []byte("text\n"), 0o644),
		os.Symlink("sub", filepath.Join(dir, "link"))); err != nil {
		t.Fatal(err)
	}
	k, err := rtnl.Open(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := fstest.TestFS(k.Sysfs(), "sub/file", "link", "sub/empty"); err != nil {
		t.Error(err)
	}
}

// FuzzSysfsPath: no name leads out of the tree.
func FuzzSysfsPath(f *testing.F) {
	h := newEscapeTree(f)
	f.Fuzz(func(t *testing.T, name, value string) {
		h.t = t
		for _, name := range []string{name, "bus/pci/devices/" + name, "class/net/" + name, "class/net/good0/" + name} {
			for _, sys := range h.read {
				if text, _, _ := sys.Text(name); strings.Contains(text, secret) {
					t.Errorf("%q reads %q", name, text)
				}
				if names, err := sys.List(name); err == nil && len(names) == 1 && names[0] == "file" {
					t.Errorf("%q lists %q", name, names)
				}
			}
			if strings.HasSuffix(name, "inside") {
				continue // a file that may be written
			}
			if err := h.kernel.WriteAttr(name, value); err == nil {
				if text, ok, _ := h.read[0].Text(name); !ok {
					t.Errorf("%q was written and reads %q", name, text)
				}
			}
		}
		h.check()
	})
}
