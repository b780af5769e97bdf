package boltstore_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/bbolt"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/storetest"
)

// stamp matches the parts of an error that vary from run to run: the directory, and the time when a file was set aside.
var stamp = regexp.MustCompile(`/\S*/(ledger\.db)|(damaged-)[0-9]{8}T[0-9]{6}Z`)

// wantError compares an error word for word, without directory and time.
func wantError(t *testing.T, err, kind error, want string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v does not match %v", err, kind)
	}
	if got := stamp.ReplaceAllString(fmt.Sprint(err), "$1$2"); got != want {
		t.Errorf("error\n got: %s\nwant: %s", got, want)
	}
}

// names lists the files in path's directory, with the time a file was set aside removed.
func names(t *testing.T, path string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, stamp.ReplaceAllString(e.Name(), "$2"))
	}
	return got
}

// ledger makes a ledger with n records, several pages when n is large, and returns its path.
func ledger(t *testing.T, n int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ledger.db")
	s := mustOpen(t, path)
	for i := range 3 {
		var ops []store.Op
		for j := i; j < n; j += 3 {
			ops = append(ops, store.Put(fmt.Sprintf("ipam/lease/%05d", j), fmt.Appendf(nil, "value %d", j)))
		}
		if _, err := s.Txn(t.Context(), nil, ops); err != nil {
			t.Fatal(err)
		}
	}
	storetest.Put(t, s, "zz/last", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// contents is every record of s in one string.
func contents(t *testing.T, s store.Store) string {
	t.Helper()
	var b strings.Builder
	err := s.Range(t.Context(), "", func(kv store.KV) error {
		fmt.Fprintf(&b, "%s=%s@%d\n", kv.Key, kv.Value, kv.Rev)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestOpenMakesDirectoryAndFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "deep", "ledger.db")
	s := mustOpen(t, path)
	defer s.Close()
	for name, want := range map[string]os.FileMode{
		path:                             0o600,
		filepath.Dir(path):               0o700 | os.ModeDir,
		filepath.Dir(filepath.Dir(path)): 0o700 | os.ModeDir,
	} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, want)
		}
	}
	if got := names(t, path); !slices.Equal(got, []string{"ledger.db"}) {
		t.Errorf("files %q, want the ledger alone", got)
	}
}

// TestOpenClosesAnEmptyDirectory: an engine makes the state directory of a plugin readable for all users. Open changes the mode of an empty
// directory only.
func TestOpenClosesAnEmptyDirectory(t *testing.T) {
	for name, want := range map[string]os.FileMode{"": 0o700, "devices": 0o755} {
		dir := t.TempDir()
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if name != "" {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := mustOpen(t, filepath.Join(dir, "ledger.db")).Close(); err != nil {
			t.Fatal(err)
		}
		if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != want {
			t.Errorf("with %q in it: %v, %v; want %v", name, fi.Mode(), err, want)
		}
	}
}

func TestOpenRemovesHalfBuiltLedgers(t *testing.T) {
	path := ledger(t, 1)
	if err := os.WriteFile(path+".new-123", []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, path)
	defer s.Close()
	if got := names(t, path); !slices.Equal(got, []string{"ledger.db"}) {
		t.Errorf("files %q, want the ledger alone", got)
	}
}

func TestSecondInstanceIsRefused(t *testing.T) {
	path := ledger(t, 1)
	s := mustOpen(t, path)
	before := time.Now()
	_, err := boltstore.Open(path, boltstore.LockTimeout(50*time.Millisecond))
	wantError(t, err, store.ErrUnavailable, "ledger ledger.db: lock: still locked after 50ms; another instance of the "+
		"plugin has it open; stop that one first")
	if took := time.Since(before); took > 5*time.Second {
		t.Errorf("the refusal took %v", took)
	}
	storetest.Put(t, s, "still", "works")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := mustOpen(t, path).Close(); err != nil {
		t.Error(err)
	}
}

func TestSecondInstanceWaitsForTheFirst(t *testing.T) {
	path := ledger(t, 1)
	s := mustOpen(t, path)
	opened := make(chan error)
	go func() {
		second, err := boltstore.Open(path, boltstore.LockTimeout(time.Minute))
		if err == nil {
			err = second.Close()
		}
		opened <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

func TestDamagedFiles(t *testing.T) {
	sound, err := os.ReadFile(ledger(t, 2000))
	if err != nil {
		t.Fatal(err)
	}
	pageSize := os.Getpagesize()
	tests := []struct {
		name string
		file []byte
		why  string
	}{
		{"empty", nil, "0 bytes are too few"},
		{"short", []byte("hello"), "5 bytes are too few"},
		{"text", bytes.Repeat([]byte("not a ledger\n"), 10000), "not a ledger file, it has no valid head"},
		{"zeros", make([]byte, 1<<16), "not a ledger file, it has no valid head"},
		{"one page", sound[:pageSize], ""},
		{"half", sound[:len(sound)/2], ""},
		{"heads only", sound[:2*pageSize], ""},
		{"heads overwritten", append(make([]byte, 2*pageSize), sound[2*pageSize:]...),
			"not a ledger file, it has no valid head"},
		{"data overwritten", append(slices.Clone(sound[:2*pageSize]), make([]byte, len(sound)-2*pageSize)...), ""},
		{"a bolt file of another program", foreignBolt(t), "not a ledger of this plugin, it has no schema version"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ledger.db")
			if err := os.WriteFile(path, test.file, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := boltstore.Open(path)
			const remedy = "the file was kept as ledger.db.damaged-; put a good copy at ledger.db, or move the kept file to " +
				"another directory to start empty, once no container uses a device or an address of this plugin"
			if test.why != "" {
				wantError(t, err, store.ErrCorrupt, "ledger ledger.db: open: ledger is damaged: "+test.why+"; "+remedy)
			} else if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(fmt.Sprint(err), "the file was kept as") {
				t.Errorf("open: %v, want ErrCorrupt and where the file is", err)
			}
			if got := names(t, path); !slices.Equal(got, []string{"ledger.db.damaged-"}) {
				t.Fatalf("files %q, want the damaged one set aside", got)
			}

			for range 2 { // the error stays: an empty ledger would allocate devices that are in use
				_, err = boltstore.Open(path)
				wantError(t, err, store.ErrCorrupt, "ledger ledger.db: open: an earlier ledger is damaged; "+remedy)
			}
			kept := setAside(t, path)
			if got, err := os.ReadFile(kept); err != nil || !bytes.Equal(got, test.file) {
				t.Errorf("the kept file was changed (%v)", err)
			}

			if err := os.WriteFile(path, sound, 0o600); err != nil { // remedy one: a good copy
				t.Fatal(err)
			}
			if err := mustOpen(t, path).Close(); err != nil {
				t.Error(err)
			}
			if err := errors.Join(os.Remove(path), os.Rename(kept, filepath.Join(t.TempDir(), "kept"))); err != nil {
				t.Fatal(err)
			}
			if err := mustOpen(t, path).Close(); err != nil { // remedy two: start empty
				t.Error(err)
			}
		})
	}
}

// setAside finds the one file that was set aside.
func setAside(t *testing.T, path string) string {
	t.Helper()
	found, err := filepath.Glob(path + ".damaged-*")
	if err != nil || len(found) != 1 {
		t.Fatalf("files set aside: %q, %v", found, err)
	}
	return found[0]
}

// foreignBolt is a sound bbolt file that is not a ledger.
func foreignBolt(t *testing.T) []byte {
	t.Helper()
	return boltFile(t, map[string]map[string]string{"users": {"root": "toor"}})
}

// boltFile is a bbolt file with these buckets.
func boltFile(t *testing.T, buckets map[string]map[string]string) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bolt")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for name, records := range buckets {
			b, err := tx.CreateBucket([]byte(name))
			if err != nil {
				return err
			}
			for k, v := range records {
				if err := b.Put([]byte(k), []byte(v)); err != nil {
					return err
				}
			}
		}
		return nil
	})
	raw, readErr := os.ReadFile(path)
	if err := errors.Join(err, db.Close(), readErr); err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestTwoDamagedFilesAreBothKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	for n := 1; n <= 3; n++ {
		if err := os.WriteFile(path, fmt.Appendf(nil, "damage %d", n), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := boltstore.Open(path); !errors.Is(err, store.ErrCorrupt) {
			t.Errorf("open: %v, want ErrCorrupt", err)
		}
		if found, err := filepath.Glob(path + ".damaged-*"); err != nil || len(found) != n {
			t.Errorf("files set aside: %q, %v, want %d", found, err, n)
		}
	}
}

// TestFlippedBytes: a file with wrong bytes shows the records that were written, or those of one transaction earlier if the newest head is
// torn, as after a crash; otherwise Open returns ErrCorrupt. The process never crashes.
func TestFlippedBytes(t *testing.T) {
	path := ledger(t, 600)
	sound, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, path)
	latest := contents(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	previous := strings.Join(slices.DeleteFunc(strings.SplitAfter(latest, "\n"), func(line string) bool {
		return strings.HasPrefix(line, "zz/last=")
	}), "")

	pageSize := os.Getpagesize()
	opened, refused := 0, 0
	for seed := range uint64(150) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		file := slices.Clone(sound)
		page := rnd.IntN(len(file)/pageSize) * pageSize
		switch seed % 3 {
		case 0: // one bit of a page's head or first entries
			file[page+rnd.IntN(256)] ^= 1 << rnd.IntN(8)
		case 1: // one bit anywhere
			file[rnd.IntN(len(file))] ^= 1 << rnd.IntN(8)
		case 2: // a page takes the place of another
			from := rnd.IntN(len(file)/pageSize) * pageSize
			copy(file[page:page+pageSize], sound[from:])
		}
		damagedPath := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(damagedPath, file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := boltstore.Open(damagedPath)
		if errors.Is(err, store.ErrCorrupt) || errors.Is(err, store.ErrNewer) {
			refused++
			continue
		}
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		opened++
		if got := contents(t, s); got != latest && got != previous {
			t.Errorf("seed %d: the ledger shows records that were never written:\n%s", seed, cmp.Diff(latest, got))
		}
		storetest.Put(t, s, "more", "works")
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	t.Logf("%d opened, %d refused", opened, refused)
	if opened == 0 || refused == 0 {
		t.Errorf("%d opened, %d refused: the test shows nothing", opened, refused)
	}
}

// TestLostPage: a page that is neither used nor free takes room, and is no reason to set a ledger aside whose records are all there.
func TestLostPage(t *testing.T) {
	path := ledger(t, 500)
	s := mustOpen(t, path)
	want := contents(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const size, freelist, txid, header = 4096, 48, 64, 16 // bbolt's layout: two meta pages, and the list of free pages
	meta := raw[:size]
	if other := raw[size : 2*size]; binary.LittleEndian.Uint64(other[txid:]) > binary.LittleEndian.Uint64(meta[txid:]) {
		meta = other
	}
	list := raw[binary.LittleEndian.Uint64(meta[freelist:])*size:]
	free := binary.LittleEndian.Uint16(list[header-6:])
	if free == 0 {
		t.Fatal("no page is free")
	}
	binary.LittleEndian.PutUint16(list[header-6:], free-1) // the last one is lost
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path)
	if got := contents(t, s); got != want {
		t.Error("the records have changed")
	}
	storetest.Put(t, s, "ipam/more", "value")
}

func TestNewerSchemaIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	raw := boltFile(t, map[string]map[string]string{"meta": {"schema": "2"}, "records": {"a": "?"}, "extra": {}})
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, err := boltstore.Open(path)
		wantError(t, err, store.ErrNewer, "ledger ledger.db: open: ledger was written by a newer version: it has schema 2, "+
			"this version knows 1; upgrade the plugin, or go back to the version that wrote it")
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("the file was changed (%v)", err)
	}
	if got := names(t, path); !slices.Equal(got, []string{"ledger.db"}) {
		t.Errorf("files %q, want the ledger alone", got)
	}
}

func TestDirectoryInTheWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.db")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := boltstore.Open(path)
	if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrCorrupt) {
		t.Errorf("open: %v, want ErrUnavailable", err)
	}
}

// TestNoRoom: a ledger that cannot grow refuses the write and keeps its records. A write that fits still works.
func TestNoRoom(t *testing.T) {
	path := ledger(t, 10)
	s := mustOpen(t, path, boltstore.MaxSize(1<<16))
	before := contents(t, s)
	huge := []store.Op{store.Put("huge", make([]byte, 1<<20)), store.Del("zz/last")}
	for range 2 {
		_, err := s.Txn(t.Context(), nil, huge)
		wantError(t, err, store.ErrUnavailable, "ledger ledger.db: write: database reached maximum size")
		if errors.Is(err, store.ErrAmbiguous) {
			t.Errorf("%v matches ErrAmbiguous, but nothing was written", err)
		}
	}
	if diff := cmp.Diff(before, contents(t, s)); diff != "" {
		t.Errorf("a refused write changed the ledger:\n%s", diff)
	}
	storetest.Put(t, s, "small", "fits")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := mustOpen(t, path).Close(); err != nil {
		t.Error(err)
	}
}

// TestConformance runs the conformance suite.
func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Opener {
		path := filepath.Join(t.TempDir(), "ledger.db")
		return func(t *testing.T) store.Store { return mustOpen(t, path) }
	})
}

// mustOpen opens the ledger at path.
func mustOpen(t *testing.T, path string, opts ...boltstore.Option) store.Store {
	t.Helper()
	s, err := boltstore.Open(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
