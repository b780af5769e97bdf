package journal

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mellanox/passthrough/store"
)

// FuzzJournal: a journal with any file can be opened, and has the entries of the intact lines. What is then added and removed is there and
// gone, also for the next process, and also if that finds an incomplete line at the end.
func FuzzJournal(f *testing.F) {
	f.Fuzz(func(t *testing.T, file []byte, key string, value []byte, half uint8) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		j := New(path)
		was, err := j.Entries()
		if err != nil {
			t.Fatalf("%q: %v", file, err)
		}
		for k, v := range was {
			if line := "+ " + checksum("+", fmt.Sprintf("%s %x", k, v)); !bytes.Contains(file, []byte(line)) {
				t.Errorf("%q: entry %q has value %q, and no line says so", file, k, v)
			}
		}
		added := j.Add(key, value)
		if (added == nil) != (store.CheckKey(key) == nil) {
			t.Errorf("add %q: %v", key, added)
		}
		for k := range was {
			if err := j.Remove(k); err != nil {
				t.Error(err)
			}
		}
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		begun := []byte("+ 00000000 x/y 0123456789abcdef")
		if err := os.WriteFile(path, append(whole, begun[:int(half)%len(begun)]...), 0o600); err != nil {
			t.Fatal(err)
		}
		_, removed := was[key]
		now, err := New(path).Entries()
		switch {
		case err != nil:
			t.Error(err)
		case added == nil && !removed && (len(now) != 1 || !bytes.Equal(now[key], value)):
			t.Errorf("%q: the next process has %q, want %q in %q", file, now, value, key)
		case (added != nil || removed) && len(now) != 0:
			t.Errorf("%q: the next process has %q, want nothing", file, now)
		}
	})
}
