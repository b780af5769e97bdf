// Package journal keeps a small set of entries in a file that survives a kill of the process, but not a power cut: the file is written
// and not synced, which takes microseconds where a transaction of a ledger takes milliseconds. A process writes down in it what it
// intends to do, so that after a kill it can undo what it does not know the outcome of.
package journal

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/mellanox/passthrough/store"
)

// A Journal is a set of entries in a file.
//
// The file has a line for each change, which begins with a plus sign if an entry is added, and with a minus sign if one is removed. The
// value is in hexadecimal digits:
//
//	SIGN CHECKSUM KEY [VALUE]
//
// It is replaced by one with the entries alone when it has grown to four times what the entries took then, and more than 64 KiB. The file
// is not touched before the first use. All methods may be called concurrently.
type Journal struct {
	path string
	disk disk

	mu        sync.Mutex // guards the fields below
	file      *os.File   // nil before the first use
	size      int64
	compactAt int64 // the size above which the file is replaced
	entries   map[string][]byte
}

const (
	compactAbove  = 64 << 10 // bytes; a smaller file is not replaced
	compactGrowth = 4        // a file is replaced when it has grown by this factor

	fileMode  = 0o600
	suffixNew = ".new" // of the file that replaces the journal
)

// castagnoli is the polynomial with hardware support on the machines we run on.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// New returns the journal at path, which need not exist yet.
func New(path string) *Journal { return &Journal{path: path, disk: osDisk{}} }

// openLocked reads the file at the first use, and rewrites it with the entries alone. It skips an incomplete line: the process ended while
// it wrote the line, before it relied on the entry.
func (j *Journal) openLocked() error {
	if j.file != nil {
		return nil
	}
	raw, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	j.entries = parse(raw)
	if err := j.rewriteLocked(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// parse returns the entries that the lines of a file leave.
func parse(raw []byte) map[string][]byte {
	entries := map[string][]byte{}
	for line := range bytes.Lines(raw) {
		kind, key, value, ok := parseLine(string(line))
		switch {
		case !ok:
		case kind == "+":
			entries[key] = value
		default:
			delete(entries, key)
		}
	}
	return entries
}

// parseLine parses one line; ok is false if the line is incomplete or damaged.
func parseLine(line string) (kind, key string, value []byte, ok bool) {
	body, whole := strings.CutSuffix(line, "\n")
	kind, rest, _ := strings.Cut(body, " ")
	sum, rest, _ := strings.Cut(rest, " ")
	if !whole || kind != "+" && kind != "-" || sum != checksum(kind, rest) {
		return "", "", nil, false
	}
	key, digits, _ := strings.Cut(rest, " ")
	value, err := hex.DecodeString(digits)
	return kind, key, value, err == nil
}

// checksum returns the checksum of a line.
func checksum(kind, rest string) string {
	return fmt.Sprintf("%08x", crc32.Checksum([]byte(kind+rest), castagnoli))
}

// rewriteLocked replaces the file by one with the entries alone. If that fails, the file and j are as they were. The new file is on the disk
// before it has the name: entries that were there for long must not be lost by a power cut that comes now.
func (j *Journal) rewriteLocked() error {
	next, err := j.disk.Create(j.path + suffixNew)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	for key, value := range j.entries {
		text.WriteString(lineOf("+", key+" "+hex.EncodeToString(value)))
	}
	if _, err = next.Write(text.Bytes()); err == nil && text.Len() > 0 { // without entries there is nothing to lose
		err = j.disk.Sync(next)
	}
	if err == nil {
		err = j.disk.Rename(next.Name(), j.path)
	}
	if err != nil {
		return errors.Join(err, next.Close())
	}
	old := j.file
	j.file, j.size = next, int64(text.Len()) // also if the rest fails: the old file has no name any more
	j.compactAt = max(compactAbove, compactGrowth*j.size)
	if text.Len() > 0 {
		err = j.disk.SyncDir(filepath.Dir(j.path))
	}
	if old != nil {
		err = errors.Join(err, old.Close())
	}
	return err
}

// compactLocked makes a large file smaller, if it can. An error is of no consequence: the file is as good as it was, and the next attempt is
// made when it has doubled.
func (j *Journal) compactLocked() {
	if j.size <= j.compactAt {
		return
	}
	if len(j.entries) == 0 && j.file.Truncate(0) == nil {
		j.size, j.compactAt = 0, compactAbove
		return
	}
	if j.rewriteLocked() != nil {
		j.compactAt = max(j.compactAt, 2*j.size)
	}
}

// lineOf returns a line of the file.
func lineOf(kind, rest string) string { return kind + " " + checksum(kind, rest) + " " + rest + "\n" }

// appendLocked appends one line, or nothing: a part of a line, as a full disk leaves it, would make the next line unreadable. If the part
// cannot be removed, the next use rewrites the file.
func (j *Journal) appendLocked(kind, rest string) error {
	n, err := j.file.WriteString(lineOf(kind, rest))
	if err == nil {
		j.size += int64(n)
		return nil
	}
	if cut := j.file.Truncate(j.size); cut != nil {
		err = errors.Join(err, cut, j.file.Close())
		j.file = nil
	}
	return err
}

// Add adds an entry. Its key has the form of a record's, see [store.CheckKey].
func (j *Journal) Add(key string, value []byte) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.openLocked(); err != nil {
		return err
	}
	if err := j.appendLocked("+", key+" "+hex.EncodeToString(value)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.entries[key] = bytes.Clone(value)
	j.compactLocked()
	return nil
}

// Remove removes an entry, if there is one.
func (j *Journal) Remove(key string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.openLocked(); err != nil {
		return err
	}
	if err := j.appendLocked("-", key); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	delete(j.entries, key)
	j.compactLocked()
	return nil
}

// Entries returns all entries by key.
func (j *Journal) Entries() (map[string][]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.openLocked()
	return maps.Clone(j.entries), err
}

// Close closes the file.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	return j.file.Close()
}
