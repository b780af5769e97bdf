package boltstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// TestPagesGivenBack: after all records of a large ledger were read, its pages do not count as memory of the process.
func TestPagesGivenBack(t *testing.T) {
	const n = 20_000
	all := make([]store.KV, n)
	for i := range all {
		all[i] = store.KV{Key: fmt.Sprintf("ipam/lease/p/%08d", i), Value: []byte(strings.Repeat("x", 200))}
	}
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := boltstore.Build(path, all); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, path)
	read := 0
	while := 0 // KiB that are mapped at the end of the reading
	for range 2 {
		read = 0
		err := s.Range(t.Context(), "", func(store.KV) error {
			if read++; read == n {
				while = resident(t, path)
			}
			return nil
		})
		if err != nil || read != n {
			t.Fatalf("read %d records, %v", read, err)
		}
		if now := resident(t, path); while < 4000 || now > while/10 {
			t.Errorf("%d KiB of the file are in memory after it was read, %d KiB before the end", now, while)
		}
	}
}

// resident returns how much of a file is mapped and in memory, in KiB (proc_pid_smaps(5)).
func resident(t *testing.T, path string) int {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	_, of, found := strings.Cut(string(maps), path+"\n")
	_, of, known := strings.Cut(of, "Rss:")
	var kib int
	if _, err := fmt.Sscan(of, &kib); !found || !known || err != nil {
		t.Fatalf("%s is not mapped (%v)", path, err)
	}
	return kib
}
