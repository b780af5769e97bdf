// Package record is the codec of typed records: JSON objects with a version in the field "v".
//
// A reader refuses a record of a newer version: what it does not understand it must not overwrite. A field that an older version does
// not have is read as its zero value. Entry points: [Get], [List] and [Put].
package record

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/mellanox/passthrough/store"
)

// Versions are the versions of records that a reader accepts. A record without a version has version 0.
type Versions struct{ Oldest, Newest int }

// Rev is a record as it was read, with the revision that a write can depend on, see [store.Unchanged].
type Rev[T any] struct {
	Rec T
	KV  store.KV
}

// Get returns the record of a key. The error matches [store.ErrNotFound] if there is none, and those of [Decode].
func Get[T any](ctx context.Context, s store.Store, v Versions, key string) (Rev[T], error) {
	kv, err := s.Get(ctx, key)
	if err != nil {
		return Rev[T]{}, err
	}
	rec, err := Decode[T](kv, v)
	return Rev[T]{rec, kv}, err
}

// List returns all records whose key starts with prefix, in the order of their keys. If one of them cannot be decoded it returns the
// records so far and the error.
func List[T any](ctx context.Context, s store.Store, v Versions, prefix string) ([]Rev[T], error) {
	var all []Rev[T]
	err := s.Range(ctx, prefix, func(kv store.KV) error {
		rec, err := Decode[T](kv, v)
		all = append(all, Rev[T]{rec, kv})
		return err
	})
	return all, err
}

// Decode decodes a record. The error matches [store.ErrNewer] if it has a newer version, and [store.ErrCorrupt] if it has an older one
// than v allows, or is no JSON object that fits T.
func Decode[T any](kv store.KV, v Versions) (T, error) {
	var rec, none T
	if err := decode(kv, v, &rec); err != nil {
		return none, err
	}
	return rec, nil
}

// decode is Decode into a pointer: one function in the binary in place of one for each type.
func decode(kv store.KV, v Versions, rec any) error {
	version, err := versionOf(kv.Value)
	switch {
	case err != nil:
		return corrupt(kv, err)
	case version > v.Newest:
		return fmt.Errorf("record %s: %w: it has version %d, this plugin knows %d", kv.Key, store.ErrNewer, version, v.Newest)
	case version < v.Oldest:
		return fmt.Errorf("record %s: %w: it has no version", kv.Key, store.ErrCorrupt)
	}
	if err := json.Unmarshal(kv.Value, rec); err != nil {
		return corrupt(kv, err)
	}
	return nil
}

// versionOf returns the version of a record. Records that this code writes begin with it, which saves a second pass of the JSON decoder.
func versionOf(raw []byte) (int, error) {
	if rest, ok := bytes.CutPrefix(raw, []byte(`{"v":`)); ok {
		digits, _, _ := bytes.Cut(rest, []byte(","))
		if version, err := strconv.ParseUint(string(digits), 10, 31); err == nil {
			return int(version), nil
		}
	}
	var version struct {
		V int `json:"v"`
	}
	err := json.Unmarshal(raw, &version)
	return version.V, err
}

// corrupt is the error of a record that cannot be decoded.
func corrupt(kv store.KV, why error) error {
	return fmt.Errorf("record %s: %w: %w", kv.Key, store.ErrCorrupt, why)
}

// Put returns the operation that writes a record, which must contain its version. It fails if rec cannot be encoded, such as a time
// after the year 9999.
func Put(key string, rec any) (store.Op, error) {
	raw, err := json.Marshal(rec)
	if err != nil {
		return store.Op{}, fmt.Errorf("record %s: %w", key, err)
	}
	return store.Put(key, raw), nil
}
