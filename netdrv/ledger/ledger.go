// Package ledger has the records of networks and endpoints, and how records are read and written. Packages alloc and vfpool have
// the records of allocations and of PFs.
package ledger

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/mellanox/passthrough/store"
)

// Version is the version of every record that this code writes. A reader refuses newer ones.
const Version = 1

// Rev is a record as it was read, with the revision that a write depends on.
type Rev[T any] struct {
	Rec T
	KV  store.KV
}

// decode parses a record. It refuses one of a newer version.
func decode[T any](kv store.KV) (Rev[T], error) {
	var v struct {
		Version int `json:"v"`
	}
	r := Rev[T]{KV: kv}
	if err := json.Unmarshal(kv.Value, &v); err != nil {
		return r, fmt.Errorf("ledger record %s: %w", kv.Key, err)
	}
	if v.Version < 1 {
		return r, fmt.Errorf("ledger record %s: has no version: %w", kv.Key, store.ErrCorrupt)
	}
	if v.Version > Version {
		return r, fmt.Errorf("ledger record %s: has version %d, this plugin knows %d: %w",
			kv.Key, v.Version, Version, store.ErrNewer)
	}
	if err := json.Unmarshal(kv.Value, &r.Rec); err != nil {
		return r, fmt.Errorf("ledger record %s: %w", kv.Key, err)
	}
	return r, nil
}

// Get returns the record of a key. The error matches store.ErrNotFound if there is none.
func Get[T any](ctx context.Context, s store.Store, key string) (Rev[T], error) {
	kv, err := s.Get(ctx, key)
	if err != nil {
		return Rev[T]{}, err
	}
	return decode[T](kv)
}

// List returns all records whose key starts with prefix, in the order of their keys.
func List[T any](ctx context.Context, s store.Store, prefix string) ([]Rev[T], error) {
	var all []Rev[T]
	err := s.Range(ctx, prefix, func(kv store.KV) error {
		r, err := decode[T](kv)
		all = append(all, r)
		return err
	})
	return all, err
}

// A Write is one record to be written, or removed if its Rec is nil.
type Write struct {
	Key string
	Rec any
}

// Put is the write of a record.
func Put(key string, rec any) Write { return Write{key, rec} }

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
		b, err := json.Marshal(w.Rec)
		if err != nil {
			return store.Result{}, fmt.Errorf("ledger record %s: %w", w.Key, err)
		}
		ops = append(ops, store.Put(w.Key, b))
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
	return fmt.Errorf("ledger record %s: was changed by another process", key)
}
