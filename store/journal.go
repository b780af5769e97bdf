package store

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"maps"
	"os"
	"strings"
	"sync"
)

// Journal is a small set of entries in a file that survives the end of the process, but need not survive that of the machine:
// it is written and not synced, which takes microseconds where a transaction of a ledger takes milliseconds. It is for what
// a process that is killed has to put right.
//
// The file has a line for each change:
//
//   - CHECKSUM KEY VALUE      with the value in hexadecimal digits
//   - CHECKSUM KEY
//
// The file is not touched before it is needed. Its methods may be called concurrently.
type Journal struct {
	path string

	mu      sync.Mutex // guards the fields below
	file    *os.File   // nil before the first use
	size    int64
	entries map[string][]byte
}

// journalMax is the size in bytes from which on the file is emptied when there are no entries.
const journalMax = 64 << 10

// NewJournal is the journal at path, which need not be there yet.
func NewJournal(path string) *Journal { return &Journal{path: path} }

// open reads the file, the first time, and makes it anew with the entries alone. A line that is not whole was being written
// when the process ended, so that nobody relies on it. The caller has j.mu.
func (j *Journal) open() error {
	if j.file != nil {
		return nil
	}
	raw, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("journal: %w", err)
	}
	j.entries = readJournal(raw)
	if err := j.rewrite(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// readJournal makes entries of lines.
func readJournal(raw []byte) map[string][]byte {
	entries := map[string][]byte{}
	for line := range bytes.Lines(raw) {
		kind, key, value, ok := journalLine(string(line))
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

// journalLine reads one line; ok is false when it is none.
func journalLine(line string) (kind, key string, value []byte, ok bool) {
	body, whole := strings.CutSuffix(line, "\n")
	kind, rest, _ := strings.Cut(body, " ")
	sum, rest, _ := strings.Cut(rest, " ")
	if !whole || kind != "+" && kind != "-" || sum != journalSum(kind, rest) {
		return "", "", nil, false
	}
	key, digits, _ := strings.Cut(rest, " ")
	value, err := hex.DecodeString(digits)
	return kind, key, value, err == nil
}

// journalSum is the checksum of a line.
func journalSum(kind, rest string) string {
	return fmt.Sprintf("%08x", crc32.Checksum([]byte(kind+rest), castagnoli))
}

// rewrite puts a file with the entries alone in the place of the old one.
func (j *Journal) rewrite() error {
	next, err := os.OpenFile(j.path+suffixNew[:len(suffixNew)-1], os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, fileMode)
	if err != nil {
		return err
	}
	j.file, j.size = next, 0
	for key, value := range j.entries {
		if err == nil {
			err = j.line("+", key+" "+hex.EncodeToString(value))
		}
	}
	if err == nil {
		err = os.Rename(next.Name(), j.path)
	}
	if err != nil {
		j.file = nil
		return errors.Join(err, next.Close())
	}
	return nil
}

// line writes one line, or nothing: what a full disk took of it would swallow the next one, such as the word that an entry is
// removed. Should that not be possible the file is made anew before it is used again. The caller has j.mu, or is the only one.
func (j *Journal) line(kind, rest string) error {
	n, err := j.file.WriteString(kind + " " + journalSum(kind, rest) + " " + rest + "\n")
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

// Add adds an entry, which has a key as a record has.
func (j *Journal) Add(key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.open(); err != nil {
		return err
	}
	if err := j.line("+", key+" "+hex.EncodeToString(value)); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.entries[key] = bytes.Clone(value)
	return nil
}

// Remove removes an entry, if there is one.
func (j *Journal) Remove(key string) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.open(); err != nil {
		return err
	}
	if err := j.line("-", key); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	delete(j.entries, key)
	if len(j.entries) > 0 || j.size < journalMax {
		return nil
	}
	if err := j.file.Truncate(0); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.size = 0
	return nil
}

// Entries are all entries by their keys.
func (j *Journal) Entries() (map[string][]byte, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	err := j.open()
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
