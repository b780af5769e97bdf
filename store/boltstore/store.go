// Package boltstore is a [store.Store] in one bbolt file.
//
// bbolt neither checks data nor survives a damaged file: it dies on one. So each record has a checksum (encoding.go), and a file is
// checked in whole before bbolt opens it (fsck.go). Most of the time of a transaction is the sync of the file, so that those that wait
// for one are committed together (commit.go). Entry point: [Open].
package boltstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/mellanox/passthrough/store"
)

// Layout of the file: bucket "meta" holds the schema version and the [head], bucket "records" the records, each framed
// as [frame] says. Changing either is a new schema version.
const (
	schemaVersion = 1

	bucketMeta    = "meta"
	bucketRecords = "records"
	metaSchema    = "schema" // decimal text
	metaHead      = "head"   // see head
)

// bolt is the ledger in one bbolt file.
type bolt struct {
	path  string
	db    *bbolt.DB
	queue queue
	// broken is set once a write was neither confirmed nor ruled out. From then on every call fails: memory may show what the disk does
	// not hold.
	broken atomic.Pointer[fileError]
}

// fileError says what was attempted on which ledger file and why it failed. It matches kind and cause.
type fileError struct {
	path, attempt string
	kind, cause   error
	remedy        string
}

// Error is "ledger FILE: attempt: why; remedy".
func (e *fileError) Error() string {
	why := e.cause
	if why == nil {
		why = e.kind
	}
	text := fmt.Sprintf("ledger %s: %s: %v", e.path, e.attempt, why)
	if e.remedy != "" {
		text += "; " + e.remedy
	}
	return text
}

// Unwrap returns the sentinel and the cause.
func (e *fileError) Unwrap() []error {
	var errs []error
	for _, err := range []error{e.kind, e.cause} {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// unavailable returns the error of an attempt that wrote nothing.
func (b *bolt) unavailable(attempt string, cause error) error {
	if errors.Is(cause, berrors.ErrDatabaseNotOpen) {
		cause = store.ErrClosed
	}
	return &fileError{path: b.path, attempt: attempt, kind: store.ErrUnavailable, cause: cause}
}

// apply checks conds and, if they hold, makes the writes of then in tx. Without writes the revision stays.
func apply(tx *bbolt.Tx, conds []store.Cond, then []store.Op) (store.Result, error) {
	records, meta := tx.Bucket([]byte(bucketRecords)), tx.Bucket([]byte(bucketMeta))
	for _, c := range conds {
		if ok, err := holds(records, c); err != nil || !ok {
			return store.Result{Failed: c}, err
		}
	}
	h, err := decodeHead(meta.Get([]byte(metaHead)))
	if err != nil || len(then) == 0 {
		return store.Result{OK: err == nil, Rev: h.rev}, err
	}
	h.rev++
	for _, op := range then {
		if err := write(records, op, &h); err != nil {
			return store.Result{}, fmt.Errorf("%s: %w", op.Key, err)
		}
	}
	if err := meta.Put([]byte(metaHead), h.encode()); err != nil {
		return store.Result{}, fmt.Errorf("%s: %w", metaHead, err)
	}
	return store.Result{OK: true, Rev: h.rev}, nil
}

// holds checks a condition.
func holds(records *bbolt.Bucket, c store.Cond) (bool, error) {
	if !c.NotNewer {
		raw := records.Get([]byte(c.Key))
		if raw == nil {
			return c.Holds(0), nil
		}
		kv, err := unframe(c.Key, raw)
		return c.Holds(kv.Rev), err
	}
	cursor := records.Cursor()
	for k, raw := cursor.Seek([]byte(c.Key)); k != nil && bytes.HasPrefix(k, []byte(c.Key)); k, raw = cursor.Next() {
		if kv, err := unframe(string(k), raw); err != nil || !c.Holds(kv.Rev) {
			return false, err
		}
	}
	return true, nil
}

// write makes one write of a transaction, and updates its head.
func write(records *bbolt.Bucket, op store.Op, h *head) error {
	if old := records.Get([]byte(op.Key)); old != nil {
		h.remove(old)
	}
	if op.Value == nil {
		return records.Delete([]byte(op.Key))
	}
	framed := frame(op.Key, op.Value, h.rev)
	h.add(framed)
	return records.Put([]byte(op.Key), framed)
}

// usable returns an error if the ledger cannot be used now.
func (b *bolt) usable(ctx context.Context, attempt string) error {
	if broken := b.broken.Load(); broken != nil {
		return broken
	}
	if err := ctx.Err(); err != nil {
		return b.unavailable(attempt, err)
	}
	return nil
}

// Get implements [store.Store].
func (b *bolt) Get(ctx context.Context, key string) (store.KV, error) {
	if err := store.CheckKey(key); err != nil {
		return store.KV{}, err
	}
	var kv store.KV
	err := b.view(ctx, func(records *bbolt.Bucket) error {
		raw := records.Get([]byte(key))
		if raw == nil {
			return fmt.Errorf("record %s: %w", key, store.ErrNotFound)
		}
		var err error
		kv, err = unframe(key, raw)
		return err
	})
	return kv, err
}

// Range implements [store.Store].
func (b *bolt) Range(ctx context.Context, prefix string, fn func(store.KV) error) error {
	return b.view(ctx, func(records *bbolt.Bucket) error {
		read := 0
		defer func() {
			if read > muchRead {
				b.giveBack(records.Tx())
			}
		}()
		c := records.Cursor()
		for k, raw := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, raw = c.Next() {
			if err := ctx.Err(); err != nil {
				return b.unavailable("read", err)
			}
			read += len(k) + len(raw)
			kv, err := unframe(string(k), raw)
			if err != nil {
				return err
			}
			if err := fn(kv); err != nil {
				return err
			}
		}
		return nil
	})
}

// muchRead is how much a Range may read whose pages stay in the process's memory, in bytes.
const muchRead = 1 << 20

// giveBack gives the mapped pages of the file back to the kernel, which still has them in its page cache: a start reads all leases once. A transaction
// keeps bbolt from mapping the file anew meanwhile (bbolt 1.4, DB.mmaplock).
func (b *bolt) giveBack(tx *bbolt.Tx) {
	_, _, _ = syscall.Syscall(syscall.SYS_MADVISE, b.db.Info().Data, uintptr(tx.Size()), syscall.MADV_DONTNEED) // without it they stay mapped
}

// view runs fn on a consistent view of the records.
func (b *bolt) view(ctx context.Context, fn func(records *bbolt.Bucket) error) error {
	if err := b.usable(ctx, "read"); err != nil {
		return err
	}
	var inner error
	err := b.db.View(func(tx *bbolt.Tx) error {
		inner = fn(tx.Bucket([]byte(bucketRecords)))
		return nil
	})
	if err != nil {
		return b.unavailable("read", err)
	}
	return inner
}

// Close implements [store.Store]. It waits for running calls.
func (b *bolt) Close() error {
	if err := b.db.Close(); err != nil {
		return &fileError{path: b.path, attempt: "close", cause: err}
	}
	return nil
}
