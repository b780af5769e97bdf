package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/cluster"
)

// A ledgerFolder is a state directory with an open ledger.
type ledgerFolder struct {
	*backups
	t         *testing.T
	restarted bool
}

// openFolder opens the ledger in a state directory as a process of the plugin does.
func openFolder(t *testing.T, dir string) *ledgerFolder {
	t.Helper()
	own, err := boltstore.Open(filepath.Join(dir, ledgerFile))
	if err != nil {
		t.Fatal(err)
	}
	f := &ledgerFolder{t: t, backups: &backups{dir: dir, own: own, machine: cluster.Machine{ID: "here"}}}
	f.restart = func() { f.restarted = true }
	t.Cleanup(func() { _ = own.Close() })
	return f
}

// put writes records.
func (f *ledgerFolder) put(keys ...string) {
	f.t.Helper()
	for _, key := range keys {
		if _, err := f.own.Txn(f.t.Context(), nil, []store.Op{store.Put(key, []byte("value of "+key))}); err != nil {
			f.t.Fatal(err)
		}
	}
}

// keys lists the records.
func (f *ledgerFolder) keys() string {
	f.t.Helper()
	var keys []string
	err := f.own.Range(f.t.Context(), "", func(kv store.KV) error {
		if string(kv.Value) != "value of "+kv.Key {
			f.t.Errorf("%s has %q", kv.Key, kv.Value)
		}
		keys = append(keys, kv.Key)
		return nil
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.Join(keys, " ")
}

// backup returns a backup.
func (f *ledgerFolder) backup() []byte {
	f.t.Helper()
	var out bytes.Buffer
	if err := f.write(f.t.Context(), &out); err != nil {
		f.t.Fatal(err)
	}
	return out.Bytes()
}

// restored restores a backup in small parts, and returns the error's text.
func (f *ledgerFolder) restored(backup []byte, force bool) string {
	f.t.Helper()
	offset := int64(0)
	for part := range slices.Chunk(backup, 100) {
		if _, err := f.Restore(f.t.Context(), &admin.RestoreRequest{Offset: offset, Part: part}); err != nil {
			f.t.Fatal(err)
		}
		offset += int64(len(part))
	}
	_, err := f.Restore(f.t.Context(), &admin.RestoreRequest{Commit: true, Force: force})
	if err != nil {
		return err.Error()
	}
	return ""
}

// again closes the ledger and opens it as the next process does.
func (f *ledgerFolder) again() (_ *ledgerFolder, why string) {
	f.t.Helper()
	if err := f.own.Close(); err != nil {
		f.t.Fatal(err)
	}
	if _, err := takeUpRestored(context.Background(), f.dir); err != nil {
		why = err.Error()
	}
	return openFolder(f.t, f.dir), why
}

// TestBackup: what a plugin has recorded is restored in another one, which has recorded nothing; all of it but for what it owes to others.
func TestBackup(t *testing.T) {
	f := openFolder(t, t.TempDir())
	f.put("net/a", "ep/a/1", "dev/pci", "ipam/lease/p/10.0.0.1", "cluster/identity", "node/owed/p/1", "node/reserve/p/10.0.0.2")
	backup := f.backup()
	fresh := openFolder(t, t.TempDir())
	put(t, fresh.dir, map[string]string{"releases": "of before", "devices": "a=b"})
	if why := fresh.restored(backup, false); why != "" || !fresh.restarted {
		t.Fatalf("restore: %s, restarted: %v", why, fresh.restarted)
	}
	fresh, why := fresh.again()
	const want = "cluster/identity dev/pci ep/a/1 ipam/lease/p/10.0.0.1 net/a"
	if got := fresh.keys(); got != want || why != "" {
		t.Errorf("restored %s, want %s; %s", got, want, why)
	}
	files := content(t, fresh.dir)
	if _, journal := files["releases"]; journal || files["devices"] != "a=b" || files[restoreParts]+files[restoreReady] != "" {
		t.Errorf("files %q", files)
	}
	if fresh, _ = fresh.again(); fresh.keys() != want {
		t.Errorf("after a restart %s", fresh.keys())
	}
}

// TestRestoreRefused: a ledger with records is not replaced, nor one that gets records before the plugin has started again, unless that is
// forced. Then it is kept.
func TestRestoreRefused(t *testing.T) {
	f := openFolder(t, t.TempDir())
	f.put("net/a")
	backup := f.backup()
	for _, key := range []string{"net/b", "ep/b/1", "dev/pci", "ipam/lease/p/10.0.0.1"} {
		used := openFolder(t, t.TempDir())
		used.put(key)
		if why := used.restored(backup, false); !strings.Contains(why, "the ledger has 1 records") || used.restarted {
			t.Errorf("%s: %s", key, why)
		}
	}
	late := openFolder(t, t.TempDir())
	if why := late.restored(backup, false); why != "" {
		t.Fatal(why)
	}
	late.put("net/late")
	late, why := late.again()
	if late.keys() != "net/late" || !strings.Contains(why, "the ledger has 1 records") {
		t.Errorf("%s; %s", late.keys(), why)
	}
	if late, why = late.again(); late.keys() != "net/late" || why != "" { // it is not tried again
		t.Errorf("%s; %s", late.keys(), why)
	}
	if why := late.restored(backup, true); why != "" {
		t.Fatal(why)
	}
	late, why = late.again()
	kept, err := filepath.Glob(filepath.Join(late.dir, replaced+"*"))
	if late.keys() != "net/a" || why != "" || err != nil || len(kept) != 1 {
		t.Errorf("forced: %s; %s; kept %q, %v", late.keys(), why, kept, err)
	}
}

// TestDamagedBackup: a backup of which anything is missing or was changed is refused, and one of another machine.
func TestDamagedBackup(t *testing.T) {
	f := openFolder(t, t.TempDir())
	f.put("net/a", "net/b")
	backup := f.backup()
	fresh := openFolder(t, t.TempDir())
	lines := bytes.SplitAfter(backup, []byte("\n"))
	for what, bad := range map[string][]byte{
		"cut":        backup[:len(backup)-20],
		"cut line":   bytes.Join(lines[:3], nil),
		"a line out": bytes.Join(slices.Concat(lines[:1], lines[2:]), nil),
		"changed":    bytes.Replace(backup, []byte("net/a"), []byte("net/c"), 1),
		"more":       append(slices.Clone(backup), lines[1]...),
		"export":     []byte(`{"format":"passthrough records","version":1}` + "\n" + `{"records":0}` + "\n"),
		"newer":      []byte(`{"format":"passthrough backup","version":2}` + "\n"),
		"empty":      nil,
	} {
		if len(bad) == 0 {
			bad = []byte("\n")
		}
		if why := fresh.restored(bad, true); why == "" || fresh.restarted {
			t.Errorf("%s: restored", what)
		}
	}
	fresh.machine.ID = "there"
	if why := fresh.restored(backup, false); !strings.Contains(why, "of another machine") {
		t.Error(why)
	}
	if _, err := os.Stat(filepath.Join(fresh.dir, restoreReady)); err == nil {
		t.Error("something would be taken up")
	}
}
