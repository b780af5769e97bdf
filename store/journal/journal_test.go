package journal_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store/journal"
)

// openJournal opens a journal.
func openJournal(t *testing.T, path string) *journal.Journal {
	t.Helper()
	j := journal.New(path)
	t.Cleanup(func() { _ = j.Close() })
	return j
}

// entries returns the entries of a journal.
func entries(t *testing.T, j *journal.Journal) map[string][]byte {
	t.Helper()
	all, err := j.Entries()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// wantEntries compares the entries of a journal.
func wantEntries(t *testing.T, j *journal.Journal, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for key, value := range entries(t, j) {
		got[key] = string(value)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

// TestJournal: an entry that was added and not removed is there in the next process, also if this one never closed the file.
func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openJournal(t, path)
	for _, err := range []error{j.Add("a", []byte("1 \n\x00")), j.Add("b", nil), j.Remove("a"), j.Add("c", []byte("3")),
		j.Add("c", []byte("4")), j.Remove("nothing")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"b": "", "c": "4"}
	wantEntries(t, j, want)
	next := openJournal(t, path)
	wantEntries(t, next, want)
	if err := next.Remove("b"); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, openJournal(t, path), map[string]string{"c": "4"})
	if err := j.Add("no key", nil); err == nil {
		t.Error("a key with a space was accepted")
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

// TestJournalTorn: if a line is incomplete or has a wrong byte, the other lines count.
func TestJournalTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openJournal(t, path)
	for i := range 3 {
		if err := j.Add(fmt.Sprintf("k%d", i), []byte("value")); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := len(whole) / 3
	for cut := range len(whole) {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for i := range cut / line {
			want[fmt.Sprintf("k%d", i)] = "value"
		}
		wantEntries(t, openJournal(t, path), want)
	}
	for at := line; at < 2*line-1; at++ {
		bad := append([]byte{}, whole...)
		bad[at] ^= 1
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if got := entries(t, openJournal(t, path)); string(got["k0"]) != "value" || got["k1"] != nil {
			t.Errorf("with a wrong byte at %d the entries are %q", at, got)
		}
	}
}

// full runs run with a limit on the size of files, so that a write ends in the middle, as on a full disk. run must not open a file: go test
// keeps a log of that.
func full(t *testing.T, bytes int64, run func()) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(bytes), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	run()
}

// TestJournalOnAFullDisk: a line that was cut off by a full disk does not spoil the next one. An entry that is removed after that does not come
// back.
func TestJournalOnAFullDisk(t *testing.T) {
	for more := range int64(12) {
		path := filepath.Join(t.TempDir(), "journal")
		j := openJournal(t, path)
		if err := errors.Join(j.Add("a", []byte("1")), j.Add("b", nil)); err != nil {
			t.Fatal(err)
		}
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		full(t, before.Size()+more, func() {
			if err := j.Add("c", nil); !errors.Is(err, syscall.EFBIG) {
				t.Errorf("Add with %d bytes left: %v", more, err)
			}
			if err := j.Remove("a"); !errors.Is(err, syscall.EFBIG) {
				t.Errorf("Remove with %d bytes left: %v", more, err)
			}
		})
		wantEntries(t, openJournal(t, path), map[string]string{"a": "1", "b": ""})
		j = openJournal(t, path) // the one before has rewritten the file
		wantEntries(t, j, map[string]string{"a": "1", "b": ""})
		full(t, before.Size()+more, func() { _ = j.Add("c", nil) })
		if err := errors.Join(j.Remove("a"), j.Add("d", nil)); err != nil {
			t.Fatal(err)
		}
		wantEntries(t, j, map[string]string{"b": "", "d": ""})
		wantEntries(t, openJournal(t, path), map[string]string{"b": "", "d": ""})
	}
}

// TestJournalStaysSmall: a journal without entries is truncated.
func TestJournalStaysSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j := openJournal(t, path)
	value := make([]byte, 1000)
	for i := range 1000 {
		key := fmt.Sprint(i)
		if err := j.Add(key, value); err != nil {
			t.Fatal(err)
		}
		if err := j.Remove(key); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(path); err != nil || fi.Size() > 100<<10 {
		t.Errorf("the file has %d bytes, %v", fi.Size(), err)
	}
	if err := j.Add("last", nil); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, openJournal(t, path), map[string]string{"last": ""})
}
