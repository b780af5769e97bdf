package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// failingDisk fails at one step of each replacement of the file.
type failingDisk struct {
	osDisk
	fail string
}

// errInjected is the error of a step that fails.
var errInjected = errors.New("injected")

func (d *failingDisk) Create(path string) (*os.File, error) {
	switch d.fail {
	case "create":
		return nil, errInjected
	case "write": // a file that cannot be written to
		return os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDONLY, fileMode)
	}
	return d.osDisk.Create(path)
}

func (d *failingDisk) Sync(f *os.File) error {
	if d.fail == "sync" {
		return errInjected
	}
	return d.osDisk.Sync(f)
}

func (d *failingDisk) Rename(from, to string) error {
	if d.fail == "rename" {
		return errInjected
	}
	return d.osDisk.Rename(from, to)
}

func (d *failingDisk) SyncDir(path string) error {
	if d.fail == "sync dir" {
		return errInjected
	}
	return d.osDisk.SyncDir(path)
}

// sizeOf returns the size of a file.
func sizeOf(t *testing.T, path string) int64 {
	t.Helper()
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return fi.Size()
}

// TestJournalStaysSmallBesideAStuckEntry: entries that stay for ever do not keep the file from being made smaller.
func TestJournalStaysSmallBesideAStuckEntry(t *testing.T) {
	for _, stuck := range []int{1, 100, 1000} {
		path := filepath.Join(t.TempDir(), "journal")
		j := New(path)
		want := map[string][]byte{}
		for i := range stuck {
			key := fmt.Sprintf("stuck/%d", i)
			want[key] = make([]byte, 100)
			if err := j.Add(key, want[key]); err != nil {
				t.Fatal(err)
			}
		}
		live := sizeOf(t, path)
		for i := range 5_000 {
			key := fmt.Sprint("k/", i)
			if err := errors.Join(j.Add(key, make([]byte, 100)), j.Remove(key)); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				if size := sizeOf(t, path); size > max(compactAbove, compactGrowth*live)+1000 {
					t.Fatalf("%d entries of %d bytes, and the file has %d", stuck, live, size)
				}
			}
		}
		got, err := New(path).Entries()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestJournalReplacedWithFaults: whatever step of the replacement fails, and at whatever step the process ends, no entry is lost, none comes
// back, and the next replacement succeeds.
func TestJournalReplacedWithFaults(t *testing.T) {
	for _, step := range []string{"create", "write", "sync", "rename", "sync dir"} {
		path := filepath.Join(t.TempDir(), "journal")
		d := &failingDisk{}
		j := &Journal{path: path, disk: d}
		want := map[string][]byte{"stuck/1": []byte("value"), "stuck/2": {}}
		for key, value := range want {
			if err := j.Add(key, value); err != nil {
				t.Fatal(err)
			}
		}
		d.fail = step
		churn := func() {
			for i := range 1000 {
				key := fmt.Sprint("k/", i)
				if err := errors.Join(j.Add(key, make([]byte, 100)), j.Remove(key)); err != nil {
					t.Fatalf("%s fails: %v", step, err)
				}
				if i%100 != 0 {
					continue
				}
				// What a process that starts now would read.
				raw, err := os.ReadFile(path)
				if diff := cmp.Diff(want, parse(raw)); err != nil || diff != "" {
					t.Fatalf("%s fails: %v\n%s", step, err, diff)
				}
			}
		}
		churn()
		d.fail = ""
		churn()
		if size := sizeOf(t, path); size > 2*compactAbove {
			churn()
			if size = sizeOf(t, path); size > 2*compactAbove {
				t.Errorf("%s has failed before: the file still has %d bytes", step, size)
			}
		}
		if err := j.Close(); err != nil {
			t.Error(err)
		}
	}
}
