package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// newFolders returns the folders of a plugin that was just installed on a host.
func newFolders(t *testing.T, host string) stateFolders {
	t.Helper()
	return stateFolders{own: t.TempDir(), host: host, points: newCrashPoints()}
}

// settleFolders is the program "settle OWN HOST", which the crash tests kill.
func settleFolders() {
	if _, err := (stateFolders{own: os.Args[1], host: os.Args[2], points: newCrashPoints()}).settle(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// settled settles and returns whether records were found, and the error's text.
func (f stateFolders) settled() (found bool, why string) {
	found, err := f.settle()
	if err != nil {
		why = err.Error()
	}
	return found, why
}

// put writes files of a folder, by their names.
func put(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// content returns the files of a folder but for identities.
func content(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := fs.WalkDir(os.DirFS(dir), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || path == folderID || path == recordsMoved {
			return err
		}
		raw, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// want checks the files of a folder.
func want(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	if diff := cmp.Diff(files, content(t, dir)); diff != "" {
		t.Errorf("%s (-want +got):\n%s", dir, diff)
	}
}

// TestRecordsOutliveThePlugin: records in a folder of the host are found by the next installation, once, and by no other than the one that has
// the folder.
func TestRecordsOutliveThePlugin(t *testing.T) {
	host := t.TempDir()
	if err := os.Chmod(host, 0o755); err != nil { // as mkdir makes it
		t.Fatal(err)
	}
	first := newFolders(t, host)
	if found, why := first.settled(); found || why != "" {
		t.Fatalf("an empty folder: %v, %s", found, why)
	}
	if info, err := os.Stat(host); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %v, %v", info.Mode(), err)
	}
	put(t, host, map[string]string{ledgerFile: "one"})
	if found, why := first.settled(); found || why != "" {
		t.Errorf("after a restart: %v, %s", found, why)
	}
	second := newFolders(t, host)
	if found, why := second.settled(); !found || why != "" {
		t.Errorf("the next installation: %v, %s", found, why)
	}
	if found, why := second.settled(); found || why != "" {
		t.Errorf("its restart: %v, %s", found, why)
	}
	upgraded := stateFolders{own: second.own}
	if _, why := upgraded.settled(); !strings.Contains(why, "as after an upgrade; set it to that folder again") {
		t.Errorf("without its folder: %s", why)
	}
	other := stateFolders{own: second.own, host: t.TempDir()}
	if _, why := other.settled(); !strings.Contains(why, "the records are in another folder of the host") {
		t.Errorf("with another folder: %s", why)
	}
	want(t, host, map[string]string{ledgerFile: "one"})
}

// TestRecordsMove: records of a plugin that gets a folder of the host move there with all other files, at whatever step it is killed.
func TestRecordsMove(t *testing.T) {
	files := map[string]string{ledgerFile: "records", "releases": "", "devices": "a=b", "tls/ca.pem": "ca"}
	moved := func(t *testing.T, f stateFolders) {
		t.Helper()
		if found, why := f.settled(); found || why != "" {
			t.Fatalf("%v, %s", found, why)
		}
		want(t, f.host, files)
		if _, err := os.Stat(filepath.Join(f.own, ledgerFile)); err == nil {
			t.Error("the plugin's own folder still has a ledger")
		}
	}
	t.Run("whole", func(t *testing.T) {
		f := newFolders(t, t.TempDir())
		put(t, f.own, files)
		moved(t, f)
	})
	t.Run("killed before the ledger", func(t *testing.T) {
		f := newFolders(t, t.TempDir())
		put(t, f.own, files)
		put(t, f.host, map[string]string{"devices": "a=b", ledgerFile + ".new": "rec"})
		moved(t, f)
	})
	t.Run("killed after the ledger", func(t *testing.T) {
		f := newFolders(t, t.TempDir())
		put(t, f.own, files)
		put(t, f.host, files)
		moved(t, f)
	})
}

// TestRecordsOfTwo: a plugin with records is not given those of a folder, nor do its own replace them.
func TestRecordsOfTwo(t *testing.T) {
	f := newFolders(t, t.TempDir())
	put(t, f.own, map[string]string{ledgerFile: "one"})
	put(t, f.host, map[string]string{ledgerFile: "two"})
	if _, why := f.settled(); !strings.Contains(why, "both the plugin and the folder have records") {
		t.Error(why)
	}
	want(t, f.own, map[string]string{ledgerFile: "one"})
	want(t, f.host, map[string]string{ledgerFile: "two"})
}

// TestOpenFolder: a folder that others can write to is refused.
func TestOpenFolder(t *testing.T) {
	f := newFolders(t, t.TempDir())
	put(t, f.host, map[string]string{"something": ""})
	if err := os.Chmod(f.host, 0o1777); err != nil {
		t.Fatal(err)
	}
	if _, why := f.settled(); !strings.Contains(why, "writable for root alone") {
		t.Error(why)
	}
}

// TestNoFolder: a plugin without a folder of the host has its records in its own, and a service nothing but its state directory.
func TestNoFolder(t *testing.T) {
	f := stateFolders{own: t.TempDir()}
	put(t, f.own, map[string]string{ledgerFile: "one"})
	if found, why := f.settled(); found || why != "" {
		t.Errorf("%v, %s", found, why)
	}
	want(t, f.own, map[string]string{ledgerFile: "one"})
	if f := foldersOf("/var/lib/passthrough"); f != (stateFolders{}) {
		t.Errorf("a service has %+v", f)
	}
	if mounted("/proc") || mounted(filepath.Join(t.TempDir(), "none")) || !mounted(t.TempDir()) {
		t.Error("what stands for no folder is taken for one, or a folder is not")
	}
}
