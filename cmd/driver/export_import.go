package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mellanox/passthrough/store"
)

// Pools and addresses are moved from one store to another by way of a file:
//
//	{"format":"passthrough records","version":1}
//	{"key":"ipam/...","value":"..."}              one line for each record, the value in base64
//	{"records":2}
//
// The last line tells that none is missing.
const (
	moveFormat  = "passthrough records"
	moveVersion = 1
	movePrefix  = "ipam/" // what STORE is about; the rest is this node's own
	moveAtOnce  = 50      // records in one transaction
	moveLineMax = 1 << 20
)

// moveLine is any line of the file.
type moveLine struct {
	Format  string `json:"format,omitempty"`
	Version int    `json:"version,omitempty"`
	Key     string `json:"key,omitempty"`
	Value   []byte `json:"value,omitempty"`
	Records *int   `json:"records,omitempty"`
}

// move carries out "export FILE" or "import FILE" on the store that the environment names.
func move(ctx context.Context, cfg config, verb, path string) (err error) {
	s, err := openForMove(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	n := 0
	switch verb {
	case "export":
		n, err = exportFile(ctx, s, path)
	case "import":
		n, err = importFile(ctx, s, path)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, path, err)
	}
	_, err = fmt.Fprintf(os.Stdout, "%s: %d records\n", verb, n)
	return err
}

// openForMove opens the store where pools and addresses are. The ledger in the state directory is open once at most: the
// plugin has to be stopped.
func openForMove(cfg config) (store.Store, error) {
	etcd, err := parseStore(cfg.pools, cfg.stateDir)
	switch {
	case err != nil:
		return nil, err
	case etcd != nil:
		return store.OpenEtcd(*etcd)
	}
	return openOwn(cfg)
}

// openOwn opens this node's own ledger for an operator. It has to be there: a state directory without one is not the plugin's,
// and a ledger that was made now would be empty.
func openOwn(cfg config) (store.Store, error) {
	path := filepath.Join(cfg.stateDir, ledgerFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ledger %s: %w; set STATE_DIR to the plugin's state directory", path, fs.ErrNotExist)
	}
	return store.OpenBolt(path)
}

// exportFile writes the records to a new file.
func exportFile(ctx context.Context, s store.Store, path string) (n int, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if n, err = exportTo(ctx, s, file); err != nil {
		return 0, errors.Join(err, os.Remove(path))
	}
	return n, file.Sync()
}

// exportTo writes the records as lines.
func exportTo(ctx context.Context, s store.Store, w io.Writer) (n int, err error) {
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(out)
	if err := lines.Encode(moveLine{Format: moveFormat, Version: moveVersion}); err != nil {
		return 0, err
	}
	err = s.Range(ctx, movePrefix, func(kv store.KV) error {
		n++
		return lines.Encode(moveLine{Key: kv.Key, Value: kv.Value})
	})
	if err != nil {
		return 0, err
	}
	return n, errors.Join(lines.Encode(moveLine{Records: &n}), out.Flush())
}

// importFile reads a whole file, and only then writes.
func importFile(ctx context.Context, s store.Store, path string) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	records, err := readMoved(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, err
	}
	return len(records), importTo(ctx, s, records)
}

// readMoved reads what exportTo wrote.
func readMoved(r io.Reader) ([]store.KV, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, moveLineMax)
	var records []store.KV
	for n := 0; lines.Scan(); n++ {
		var l moveLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		switch {
		case n == 0 && l.Format != moveFormat:
			return nil, errors.New("this is no file that export wrote")
		case n == 0 && l.Version > moveVersion:
			return nil, fmt.Errorf("a newer version wrote it: version %d, this one knows %d", l.Version, moveVersion)
		case n == 0:
		case l.Records != nil && *l.Records == len(records) && !lines.Scan():
			return records, lines.Err()
		case len(l.Key) <= len(movePrefix) || l.Key[:len(movePrefix)] != movePrefix:
			return nil, fmt.Errorf("line %d: no record of a pool or an address", n+1)
		default:
			records = append(records, store.KV{Key: l.Key, Value: l.Value})
		}
	}
	return nil, errors.Join(errors.New("the end of the file is missing"), lines.Err())
}

// importTo makes the records that are not there. One that is there with another value stops it: nothing is overwritten.
// It can be repeated.
func importTo(ctx context.Context, s store.Store, records []store.KV) error {
	for len(records) > 0 {
		some := records[:min(moveAtOnce, len(records))]
		records = records[len(some):]
		var conds []store.Cond
		var ops []store.Op
		for _, kv := range some {
			there, err := s.Get(ctx, kv.Key)
			switch {
			case errors.Is(err, store.ErrNotFound):
				conds, ops = append(conds, store.Absent(kv.Key)), append(ops, store.Put(kv.Key, kv.Value))
			case err != nil:
				return err
			case !bytes.Equal(there.Value, kv.Value):
				return fmt.Errorf("record %s is there with another value; import into a store that is not in use yet", kv.Key)
			}
		}
		if len(ops) == 0 {
			continue
		}
		r, err := s.Txn(ctx, conds, ops)
		if err == nil && !r.OK {
			err = fmt.Errorf("record %s has just been made by somebody else; stop all plugins that use this store", r.Failed.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
