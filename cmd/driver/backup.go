package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
	"github.com/mellanox/passthrough/store/cluster"
)

// A backup has all records of this node's own ledger: networks with their options, endpoints and devices, pools and leases, names of
// containers. It has no settings and no files that an administrator has put into the state directory, and so no secrets.
//
//	{"format":"passthrough backup","version":1,"made":"...","machine":"..."}
//	{"key":"net/...","value":"..."}                one line for each record, the value in base64
//	{"records":2,"sha256":"..."}                   the sum is that of all lines before
const (
	backupFormat  = "passthrough backup"
	backupVersion = 1
)

// backupLine is any line of a backup.
type backupLine struct {
	Format  string    `json:"format,omitempty"`
	Version int       `json:"version,omitempty"`
	Made    time.Time `json:"made,omitzero"`
	Machine string    `json:"machine,omitempty"` // see cluster.Machine
	Key     string    `json:"key,omitempty"`
	Value   []byte    `json:"value,omitempty"`
	Records *int      `json:"records,omitempty"`
	SHA256  string    `json:"sha256,omitempty"`
}

// backups makes and restores backups of the ledger in a state directory.
type backups struct {
	dir     string
	own     store.Store
	machine cluster.Machine
	restart func() // ends the process; the engine or systemd starts it again
}

// write writes a backup: all records of one moment.
func (b *backups) write(ctx context.Context, w io.Writer) error {
	sum := sha256.New()
	out := bufio.NewWriter(w)
	lines := json.NewEncoder(io.MultiWriter(out, sum))
	err := lines.Encode(backupLine{Format: backupFormat, Version: backupVersion, Made: time.Now().UTC(), Machine: b.machine.ID})
	if err != nil {
		return err
	}
	n := 0
	err = b.own.Range(ctx, "", func(kv store.KV) error {
		n++
		return lines.Encode(backupLine{Key: kv.Key, Value: kv.Value})
	})
	if err != nil {
		return err
	}
	return errors.Join(lines.Encode(backupLine{Records: &n, SHA256: hex.EncodeToString(sum.Sum(nil))}), out.Flush())
}

// readBackup reads a backup. It is an error if anything of it is missing or was changed.
func readBackup(r io.Reader) (head backupLine, records []store.KV, err error) {
	sum := sha256.New()
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, exportLineMax)
	for n := 1; lines.Scan(); n++ {
		var l backupLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return head, nil, fmt.Errorf("line %d: %w", n, err)
		}
		switch {
		case n == 1 && l.Format != backupFormat:
			return head, nil, errors.New("not a backup of the plugin's records")
		case n == 1 && l.Version > backupVersion:
			return head, nil, fmt.Errorf("a newer version wrote it: version %d, this one knows %d", l.Version, backupVersion)
		case n == 1:
			head = l
		case l.Records != nil && *l.Records == len(records) && l.SHA256 == hex.EncodeToString(sum.Sum(nil)) && !lines.Scan():
			return head, records, lines.Err()
		case l.Records != nil:
			return head, nil, errors.New("the backup is damaged")
		default:
			if err := store.CheckKey(l.Key); err != nil {
				return head, nil, fmt.Errorf("line %d: %w", n, err)
			}
			records = append(records, store.KV{Key: l.Key, Value: l.Value})
		}
		sum.Write(append(lines.Bytes(), '\n'))
	}
	return head, nil, errors.Join(errors.New("the end of the backup is missing"), lines.Err())
}

// Files of a restore in the state directory.
const (
	restoreParts  = "restore-parts"   // the parts that were received
	restoreReady  = "restore-ready"   // the ledger that is to be used from the next start on, if the present one is empty
	restoreForced = "restore-forced"  // the same, in any case
	replaced      = "before-restore-" // a ledger that was replaced; the time follows
)

// ownRecords are the prefixes of the records that keep a ledger from being replaced.
var ownRecords = []string{ledger.NetworkPrefix, ledger.EndpointPrefix, alloc.Prefix, exportPrefix}

// notRestored are the prefixes of what a node keeps for the store that nodes share, and what an older state of would be wrong there: the releases
// that it owes, and the addresses that it has leased ahead, may be other nodes' by now.
var notRestored = []string{"node/owed/", "node/reserve/"}

// refuseUsed returns an error if a ledger has records that would be lost.
func refuseUsed(ctx context.Context, own store.Store) error {
	n := 0
	for _, prefix := range ownRecords {
		if err := own.Range(ctx, prefix, func(store.KV) error { n++; return nil }); err != nil {
			return fmt.Errorf("restore: whether the ledger is in use cannot be told: %w; --force replaces it", err)
		}
	}
	if n > 0 {
		return refuse(http.StatusConflict, "restore: the ledger has %d records of networks, endpoints, devices, pools and leases, which would be "+
			"lost; remove the networks first, or use --force", n)
	}
	return nil
}

// Restore takes the parts of a backup, and then replaces the ledger by it: it builds and checks the new one, and ends the process. The next
// one finds it.
func (b *backups) Restore(ctx context.Context, r *admin.RestoreRequest) (*admin.RestoreAnswer, error) {
	parts := filepath.Join(b.dir, restoreParts)
	if !r.Commit {
		return &admin.RestoreAnswer{}, appendPart(parts, r.Offset, r.Part)
	}
	raw, err := os.ReadFile(parts)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	head, records, err := readBackup(bytes.NewReader(raw))
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "restore: %w", err)
	}
	name := restoreForced
	if !r.Force {
		name = restoreReady
		if head.Machine != "" && b.machine.ID != "" && head.Machine != b.machine.ID {
			return nil, refuse(http.StatusConflict, "restore: the backup is of another machine; --force restores it all the same")
		}
		if err := refuseUsed(ctx, b.own); err != nil {
			return nil, err
		}
	}
	var kept []store.KV
	for _, kv := range records {
		if !hasAnyPrefix(kv.Key, notRestored) {
			kept = append(kept, kv)
		}
	}
	if err := boltstore.Build(filepath.Join(b.dir, name), kept); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	if err := os.Remove(parts); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}
	b.restart()
	return &admin.RestoreAnswer{Records: len(kept)}, nil
}

// hasAnyPrefix returns true if text begins with one of prefixes.
func hasAnyPrefix(text string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(text, p) {
			return true
		}
	}
	return false
}

// appendPart writes a part of a backup at an offset, which is the end of the parts before.
func appendPart(path string, offset int64, part []byte) error {
	flags := os.O_CREATE | os.O_WRONLY
	if offset == 0 {
		flags |= os.O_TRUNC
	}
	file, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	_, err = file.WriteAt(part, offset)
	return errors.Join(err, file.Close())
}

// takeUpRestored puts a ledger that was restored in the place of the present one, which it keeps. It is called before the ledger is opened. A
// ledger that got records after the restore was asked for is not replaced, unless that was forced.
func takeUpRestored(ctx context.Context, dir string) (taken bool, err error) {
	current := filepath.Join(dir, ledgerFile)
	for _, name := range []string{restoreForced, restoreReady} {
		ready := filepath.Join(dir, name)
		if _, err := os.Stat(ready); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return false, err
		}
		if name == restoreReady {
			if err := refuseUsedFile(ctx, current); err != nil {
				return false, errors.Join(err, os.Remove(ready))
			}
		}
		// Releases of before are not releases of what is in the restored ledger.
		for _, journal := range []string{"journal", "releases"} {
			if err := os.Remove(filepath.Join(dir, journal)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return false, err
			}
		}
		kept := filepath.Join(dir, replaced+time.Now().UTC().Format("20060102T150405Z"))
		if err := os.Link(current, kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		return true, renameFile(ready, current)
	}
	return false, nil
}

// refuseUsedFile is refuseUsed for a ledger that is not open; none is not in use.
func refuseUsedFile(ctx context.Context, path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	own, err := boltstore.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(refuseUsed(ctx, own), own.Close())
}
