package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/cluster"
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
	importBatch   = 3000    // records of a pool in one transaction
	importBytes   = 1 << 20 // ... and their bytes: etcd takes 1.5 MiB
	importConds   = 90      // records in one transaction that another process may make meanwhile: etcd takes 128 conditions
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

// importTo writes the records that the store does not have, and nothing at all if it has one with another value. A pool's record is written
// after all that belongs to the pool, which no other process writes without that record. So an import that was interrupted can be repeated.
func importTo(ctx context.Context, s store.Store, records []store.KV) error {
	missing, err := missingRecords(ctx, s, records)
	if err != nil {
		return err
	}
	parts := map[string][]store.KV{} // what belongs to a pool that the store does not have, by the key of the pool's record
	for _, kv := range missing {
		if strings.HasPrefix(kv.Key, pool.Prefix) {
			parts[kv.Key] = nil
		}
	}
	var rest []store.KV
	for _, kv := range missing {
		if some, ok := parts[poolOf(kv.Key)]; ok {
			parts[poolOf(kv.Key)] = append(some, kv)
		} else {
			rest = append(rest, kv)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(parts)) {
		for some := range batches(parts[key]) {
			if err := writeNew(ctx, s, some, store.Absent(key)); err != nil {
				return err
			}
		}
	}
	for some := range slices.Chunk(rest, importConds) {
		var conds []store.Cond
		for _, kv := range some {
			conds = append(conds, store.Absent(kv.Key))
		}
		if err := writeNew(ctx, s, some, conds...); err != nil {
			return err
		}
	}
	return nil
}

// poolOf returns the key of the record of the pool that a lease or a share belongs to; "" for another record.
func poolOf(key string) string {
	for _, prefix := range []string{pool.LeasePrefix, pool.SharePrefix} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			id, _, _ := strings.Cut(rest, "/")
			return pool.Key(id)
		}
	}
	return ""
}

// batches splits records so that each part fits into one transaction of etcd.
func batches(records []store.KV) iter.Seq[[]store.KV] {
	return func(yield func([]store.KV) bool) {
		for len(records) > 0 {
			n, bytes := 0, 0
			for n < min(importBatch, len(records)) && (n == 0 || bytes+len(records[n].Key)+len(records[n].Value) <= importBytes) {
				bytes += len(records[n].Key) + len(records[n].Value)
				n++
			}
			if !yield(records[:n]) {
				return
			}
			records = records[n:]
		}
	}
}

// writeNew writes records in one transaction under conditions that another process has not made them, or their pool.
func writeNew(ctx context.Context, s store.Store, records []store.KV, conds ...store.Cond) error {
	var ops []store.Op
	for _, kv := range records {
		ops = append(ops, store.Put(kv.Key, kv.Value))
	}
	r, err := s.Txn(ctx, conds, ops)
	if err == nil && !r.OK {
		err = fmt.Errorf("record %s was just made by another process; stop all plugins that use this store", r.Failed.Key)
	}
	return err
}

// missingRecords returns those of the records that the store does not have, and an error if it has one with another value. What a pool lacks
// that the store has was released since it was imported. The store is read folder by folder.
func missingRecords(ctx context.Context, s store.Store, records []store.KV) (missing []store.KV, err error) {
	have, imported := map[string][]byte{}, map[string][]byte{}
	read := map[string]bool{}
	for _, kv := range records {
		if err := store.CheckKey(kv.Key); err != nil {
			return nil, err
		}
		if value, ok := imported[kv.Key]; ok && !bytes.Equal(value, kv.Value) {
			return nil, fmt.Errorf("record %s is in it twice", kv.Key)
		}
		imported[kv.Key] = kv.Value
		folder := kv.Key[:strings.LastIndexByte(kv.Key, '/')+1]
		if read[folder] {
			continue
		}
		read[folder] = true
		err := s.Range(ctx, folder, func(kv store.KV) error {
			have[kv.Key] = kv.Value
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	var taken []string // records of names that other pools in the store have
	for _, key := range slices.Sorted(maps.Keys(imported)) {
		switch value, ok := have[key]; {
		case !ok && have[poolOf(key)] == nil:
			missing = append(missing, store.KV{Key: key, Value: imported[key]})
		case !ok || bytes.Equal(value, imported[key]):
		case nameOf(key) != "":
			taken = append(taken, key)
		default:
			return nil, fmt.Errorf("nothing is imported: record %s exists with another value; import into a store that is not in use yet", key)
		}
	}
	if len(taken) > 0 {
		return nil, refusePools(ctx, s, taken, imported, have)
	}
	return missing, nil
}

// nameOf returns the name of the shared pool that a record names; "" for another record.
func nameOf(key string) string {
	for _, prefix := range []string{pool.NameKey("", false), pool.NameKey("", true)} {
		if name, ok := strings.CutPrefix(key, prefix); ok {
			return name
		}
	}
	return ""
}

// refusePools returns the error about names that other pools in the store have; keys are the names' records. Two nodes may each have had a pool of
// one name. They cannot become one: an engine knows the pools of its networks by ID. The error names all, so that they can be removed at once.
func refusePools(ctx context.Context, s store.Store, keys []string, imported, have map[string][]byte) error {
	subnet := func(records map[string][]byte, key string) string {
		poolKey := pool.Key(string(records[key]))
		rec, err := pool.DecodeRecord(store.KV{Key: poolKey, Value: records[poolKey]})
		if err != nil {
			return "unknown"
		}
		return rec.Subnet.String()
	}
	all, err := cluster.Nodes(ctx, s)
	if err != nil {
		return err
	}
	var pools []string
	joined, renamed := false, false
	for _, key := range keys {
		other, own := subnet(have, key), subnet(imported, key)
		joined, renamed = joined || other == own, renamed || other != own
		nodes, err := nodesOf(ctx, s, all, string(have[key]))
		if err != nil {
			return err
		}
		pools = append(pools, fmt.Sprintf("another pool with the name %q, of subnet %s%s, here it is %s", nameOf(key), other, nodes, own))
	}
	then := "create them again: they join that pool if all their options are the same"
	switch {
	case joined && renamed:
		then += "; those with another subnet with another name, because the networks of one pool have one subnet"
	case renamed:
		then = "create them again with another name: the networks of one pool have one subnet"
	}
	what := "this pool"
	if len(pools) > 1 {
		what = "these pools"
	}
	return fmt.Errorf("nothing is imported: the store has %s; remove the networks with %s on the node of the export, export again, import, and %s",
		strings.Join(pools, ", and "), what, then)
}

// nodesOf says which of all nodes have networks with a shared pool; "" if that is not known.
func nodesOf(ctx context.Context, s store.Store, all []cluster.Node, id string) (text string, err error) {
	names := map[string]bool{}
	err = s.Range(ctx, pool.SharePrefix+id+"/", func(kv store.KV) error {
		share, _ := pool.DecodeShare(kv) // one that cannot be read has no node
		if i := slices.IndexFunc(all, func(n cluster.Node) bool { return n.ID == share.Node }); i >= 0 {
			names[cmp.Or(all[i].Name, all[i].ID)] = true
		}
		return nil
	})
	if len(names) == 0 || err != nil {
		return "", err
	}
	return " on " + strings.Join(slices.Sorted(maps.Keys(names)), ", "), nil
}
