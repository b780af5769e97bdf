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
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/etcdstore"
)

// Pools and addresses are copied from one store to another through a file:
//
//	{"format":"passthrough records","version":1}
//	{"key":"ipam/...","value":"..."}              one line for each record, the value in base64
//	{"records":2}
//
// The last line shows that none is missing.
const (
	exportFormat  = "passthrough records"
	exportVersion = 1
	exportPrefix  = "ipam/" // of the records that STORE is for; all others are this node's own
	importBatch   = 50      // records in one transaction
	exportLineMax = 1 << 20 // bytes
)

// exportLine is any line of the file.
type exportLine struct {
	Format  string `json:"format,omitempty"`
	Version int    `json:"version,omitempty"`
	Key     string `json:"key,omitempty"`
	Value   []byte `json:"value,omitempty"`
	Records *int   `json:"records,omitempty"`
}

// exportCommand copies the pools and addresses of the store that STORE names to a new file.
func exportCommand(ctx context.Context, cfg config, args []string) error {
	return copyRecords(ctx, cfg, "export", args[0], exportFile)
}

// importCommand copies the pools and addresses of a file to the store that STORE names.
func importCommand(ctx context.Context, cfg config, args []string) error {
	return copyRecords(ctx, cfg, "import", args[0], importFile)
}

// copyRecords opens the store, runs one of the two commands on it, and prints how many records it has copied.
func copyRecords(ctx context.Context, cfg config, command, path string,
	run func(context.Context, store.Store, string) (int, error),
) (err error) {
	s, err := openPoolStore(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	n, err := run(ctx, s, path)
	if err != nil {
		return fmt.Errorf("%s %s: %w", command, path, err)
	}
	_, err = fmt.Fprintf(os.Stdout, "%s: %d records\n", command, n)
	return err
}

// openPoolStore opens the store of pools and addresses. Only one process can open the ledger in the state directory: the plugin must be
// stopped.
func openPoolStore(cfg config) (store.Store, error) {
	etcd, err := parseStore(cfg.store, cfg.stateDir)
	switch {
	case err != nil:
		return nil, err
	case etcd != nil:
		return etcdstore.Open(*etcd)
	}
	return openOwn(cfg)
}

// openOwn opens this node's own ledger for an operator's command. It fails if there is none: a state directory without a ledger is not
// the plugin's, and a new ledger would be empty.
func openOwn(cfg config) (store.Store, error) {
	path := filepath.Join(cfg.stateDir, ledgerFile)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("ledger %s: %w; set STATE_DIR to the plugin's state directory", path, fs.ErrNotExist)
	}
	return boltstore.Open(path)
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
	if err := lines.Encode(exportLine{Format: exportFormat, Version: exportVersion}); err != nil {
		return 0, err
	}
	err = s.Range(ctx, exportPrefix, func(kv store.KV) error {
		n++
		return lines.Encode(exportLine{Key: kv.Key, Value: kv.Value})
	})
	if err != nil {
		return 0, err
	}
	return n, errors.Join(lines.Encode(exportLine{Records: &n}), out.Flush())
}

// importFile reads the whole file before it writes the first record.
func importFile(ctx context.Context, s store.Store, path string) (int, error) {
	file, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	records, err := readExport(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, err
	}
	return len(records), importTo(ctx, s, records)
}

// readExport reads the records that exportTo has written.
func readExport(r io.Reader) ([]store.KV, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, exportLineMax)
	var records []store.KV
	for n := 0; lines.Scan(); n++ {
		var l exportLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		switch {
		case n == 0 && l.Format != exportFormat:
			return nil, errors.New("not written by export")
		case n == 0 && l.Version > exportVersion:
			return nil, fmt.Errorf("a newer version wrote it: version %d, this one knows %d", l.Version, exportVersion)
		case n == 0:
		case l.Records != nil && *l.Records == len(records) && !lines.Scan():
			return records, lines.Err()
		case len(l.Key) <= len(exportPrefix) || l.Key[:len(exportPrefix)] != exportPrefix:
			return nil, fmt.Errorf("line %d: no record of a pool or an address", n+1)
		default:
			records = append(records, store.KV{Key: l.Key, Value: l.Value})
		}
	}
	return nil, errors.Join(errors.New("the end of the file is missing"), lines.Err())
}

// importTo writes the records that the store does not have. It overwrites nothing: a record with another value is an error. It can be
// repeated.
func importTo(ctx context.Context, s store.Store, records []store.KV) error {
	for len(records) > 0 {
		some := records[:min(importBatch, len(records))]
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
				return fmt.Errorf("record %s exists with another value; import into a store that is not in use yet", kv.Key)
			}
		}
		if len(ops) == 0 {
			continue
		}
		r, err := s.Txn(ctx, conds, ops)
		if err == nil && !r.OK {
			err = fmt.Errorf("record %s was just made by another process; stop all plugins that use this store", r.Failed.Key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
