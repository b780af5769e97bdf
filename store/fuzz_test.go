package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// FuzzFrame: any bytes are the very record that was framed so, or damaged; and a record under another key is damaged.
func FuzzFrame(f *testing.F) {
	f.Fuzz(func(t *testing.T, key string, raw []byte, value []byte, rev int64) {
		if kv, err := unframe(key, raw); err == nil {
			if again := frame(key, kv.Value, kv.Rev); kv.Key != key || !bytes.Equal(again, raw) {
				t.Errorf("%x is %+v, which is %x", raw, kv, again)
			}
		} else if !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		framed := frame(key, value, rev)
		if kv, err := unframe(key, framed); err != nil || kv.Rev != rev || !bytes.Equal(kv.Value, value) {
			t.Errorf("%q at %d: %+v, %v", value, rev, kv, err)
		}
		if kv, err := unframe(key+"x", framed); err == nil {
			t.Errorf("the record of %q is taken for that of another: %+v", key, kv)
		}
		for i := range min(len(framed), 64) {
			framed[i] ^= 0x10
			if kv, err := unframe(key, framed); err == nil {
				t.Errorf("byte %d of %x was flipped: %+v", i, framed, kv)
			}
			framed[i] ^= 0x10
		}
	})
}

// FuzzHead: any bytes are the very head that was encoded so, or damaged.
func FuzzHead(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte, rev int64, count uint64, sums uint32) {
		if h, err := decodeHead(raw); err == nil && raw != nil && !bytes.Equal(h.encode(), raw) {
			t.Errorf("%x is %+v, which is %x", raw, h, h.encode())
		} else if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
		want := head{rev: rev, count: count, sums: sums}
		if h, err := decodeHead(want.encode()); err != nil || h != want {
			t.Errorf("%+v: %+v, %v", want, h, err)
		}
	})
}

// FuzzLedgerFile: a ledger file in which some bytes are others is opened and has all its records, or is kept and refused;
// and no file, whatever it is, takes the process along.
func FuzzLedgerFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "ledger.db")
	records := map[string]string{}
	s, err := OpenBolt(path)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 40 {
		key, value := fmt.Sprintf("net/%02d", i), fmt.Sprintf(`{"v":1,"id":"%02d"}`, i)
		records[key] = value
		if _, err := s.Txn(f.Context(), nil, []Op{Put(key, []byte(value))}); err != nil {
			f.Fatal(err)
		}
	}
	const last = "net/39"
	if err := s.Close(); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, at uint16, other []byte, size uint32) {
		file := bytes.Clone(good)
		copy(file[int(at)%len(good):], other)
		file = file[:min(len(file), int(size))] // never longer: what follows the last page is not looked at
		path := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenBolt(path)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrNewer) {
				t.Errorf("%x at %d, %d bytes: %v", other, at, size, err)
			}
			return
		}
		defer func() { _ = s.Close() }()
		found := map[string]string{}
		if err := s.Range(t.Context(), "", func(kv KV) error { found[kv.Key] = string(kv.Value); return nil }); err != nil {
			t.Errorf("%x at %d, %d bytes: opened, and then: %v", other, at, size, err)
		}
		for key, value := range records {
			if key == last && found[key] == "" && int(at)%len(good) < 2*os.Getpagesize() {
				continue // the newer of the two heads is damaged, which to bbolt is a crash during the last write
			}
			if found[key] != value {
				t.Errorf("%x at %d, %d bytes: %s is %q, was %q", other, at, size, key, found[key], value)
			}
		}
	})
}

// FuzzJournal: whatever a journal's file says, it is opened, and has those entries that are whole. What is added and removed
// then is there and gone, also for the next process, and also when that finds half a line behind it.
func FuzzJournal(f *testing.F) {
	f.Fuzz(func(t *testing.T, file []byte, key string, value []byte, half uint8) {
		path := filepath.Join(t.TempDir(), "journal")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		j := NewJournal(path)
		was, err := j.Entries()
		if err != nil {
			t.Fatalf("%q: %v", file, err)
		}
		for k, v := range was {
			if line := "+ " + journalSum("+", fmt.Sprintf("%s %x", k, v)); !bytes.Contains(file, []byte(line)) {
				t.Errorf("%q: %q is %q out of nothing", file, k, v)
			}
		}
		added := j.Add(key, value)
		if (added == nil) != (checkKey(key) == nil) {
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
		now, err := NewJournal(path).Entries()
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
