// Package ledger has the records of networks and endpoints, and how records are read and written. Packages alloc and vfpool have
// the records of allocations and of PFs.
package ledger

import (
	"context"
	"fmt"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// Version is the version of every record that this code writes. A reader refuses newer ones, and records without a version.
const Version = 1

// Rev is a record as it was read, with the revision that a write depends on.
type Rev[T any] = record.Rev[T]

// versions returns the versions of records that can be read.
func versions() record.Versions { return record.Versions{Oldest: Version, Newest: Version} }

// Get returns the record of a key. The error matches store.ErrNotFound if there is none.
func Get[T any, P record.Pointer[T]](ctx context.Context, s store.Store, key string) (Rev[T], error) {
	return record.Get[T, P](ctx, s, versions(), key)
}

// List returns all records whose key starts with prefix, in the order of their keys.
func List[T any, P record.Pointer[T]](ctx context.Context, s store.Store, prefix string) ([]Rev[T], error) {
	return record.List[T, P](ctx, s, versions(), prefix)
}

// A Write is one record to be written, or removed if its Rec is nil.
type Write struct {
	Key string
	Rec record.Kept
}

// Put is the write of a record.
func Put(key string, rec record.Kept) Write { return Write{key, rec} }

// Del is the removal of a record; the key may be absent.
func Del(key string) Write { return Write{Key: key} }

// Transact writes records if all conditions hold; the result says whether they did.
func Transact(ctx context.Context, s store.Store, conds []store.Cond, writes ...Write) (store.Result, error) {
	ops := make([]store.Op, 0, len(writes))
	for _, w := range writes {
		if w.Rec == nil {
			ops = append(ops, store.Del(w.Key))
			continue
		}
		op, err := record.Put(w.Key, w.Rec)
		if err != nil {
			return store.Result{}, err
		}
		ops = append(ops, op)
	}
	return s.Txn(ctx, conds, ops)
}

// Commit writes records under a condition that the caller's locks guarantee. It is an error if the condition does not hold.
func Commit(ctx context.Context, s store.Store, cond store.Cond, writes ...Write) (store.Result, error) {
	res, err := Transact(ctx, s, []store.Cond{cond}, writes...)
	if err == nil && !res.OK {
		err = ErrChanged(res.Failed.Key)
	}
	return res, err
}

// ErrChanged is the error of a write to a record that another process has changed since it was read.
func ErrChanged(key string) error {
	return fmt.Errorf("record %s: was changed by another process", key)
}
