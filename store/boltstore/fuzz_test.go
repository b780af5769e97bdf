package boltstore

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/mellanox/passthrough/store"
)

// FuzzFrame: bytes decode to the record that encodes to them, or are damaged. A record under another key is damaged.
func FuzzFrame(f *testing.F) {
	f.Fuzz(func(t *testing.T, key string, raw []byte, value []byte, rev int64) {
		if kv, err := unframe(key, raw); err == nil {
			if again := frame(key, kv.Value, kv.Rev); kv.Key != key || !bytes.Equal(again, raw) {
				t.Errorf("%x decodes to %+v, which encodes to %x", raw, kv, again)
			}
		} else if !errors.Is(err, store.ErrCorrupt) {
			t.Error(err)
		}
		framed := frame(key, value, rev)
		if kv, err := unframe(key, framed); err != nil || kv.Rev != rev || !bytes.Equal(kv.Value, value) {
			t.Errorf("%q at %d: %+v, %v", value, rev, kv, err)
		}
		if kv, err := unframe(key+"x", framed); err == nil {
			t.Errorf("the record of %q was decoded under another key: %+v", key, kv)
		}
		for i := range min(len(framed), 64) {
			framed[i] ^= 0x10
			if kv, err := unframe(key, framed); err == nil {
				t.Errorf("%x has a wrong byte %d, and was decoded: %+v", framed, i, kv)
			}
			framed[i] ^= 0x10
		}
	})
}

// FuzzHead: bytes decode to the head that encodes to them, or are damaged.
func FuzzHead(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte, rev int64, count uint64, sums uint32) {
		if h, err := decodeHead(raw); err == nil && raw != nil && !bytes.Equal(h.encode(), raw) {
			t.Errorf("%x decodes to %+v, which encodes to %x", raw, h, h.encode())
		} else if err != nil && !errors.Is(err, store.ErrCorrupt) {
			t.Error(err)
		}
		want := head{rev: rev, count: count, sums: sums}
		if h, err := decodeHead(want.encode()); err != nil || h != want {
			t.Errorf("%+v: %+v, %v", want, h, err)
		}
	})
}

// FuzzLedgerFile: a ledger file with some wrong bytes is opened and has all its records, or it is kept and refused. No file makes the
// process crash.
func FuzzLedgerFile(f *testing.F) {
	path := filepath.Join(f.TempDir(), "ledger.db")
	records := map[string]string{}
	s, err := Open(path)
	if err != nil {
		f.Fatal(err)
	}
	for i := range 40 {
		key, value := fmt.Sprintf("net/%02d", i), fmt.Sprintf(`{"v":1,"id":"%02d"}`, i)
		records[key] = value
		if _, err := s.Txn(f.Context(), nil, []store.Op{store.Put(key, []byte(value))}); err != nil {
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
		file = file[:min(len(file), int(size))] // never longer: bytes after the last page are not read
		path := filepath.Join(t.TempDir(), "ledger.db")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(path)
		if err != nil {
			if !errors.Is(err, store.ErrCorrupt) && !errors.Is(err, store.ErrNewer) {
				t.Errorf("%x at %d, %d bytes: %v", other, at, size, err)
			}
			return
		}
		defer func() { _ = s.Close() }()
		found := map[string]string{}
		if err := s.Range(t.Context(), "", func(kv store.KV) error { found[kv.Key] = string(kv.Value); return nil }); err != nil {
			t.Errorf("%x at %d, %d bytes: opened, but Range returns %v", other, at, size, err)
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
