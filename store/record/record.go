// Package record is the codec of typed records: JSON objects with a version in the field "v".
//
// A reader refuses a record of a newer version: what it does not understand it must not overwrite. A field that an older version does
// not have is read as its zero value, and one that this version does not know survives a rewrite, see [Extra]. Entry points: [Get], [List]
// and [Put].
package record

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"reflect"
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
func Get[T any, P Pointer[T]](ctx context.Context, s store.Store, v Versions, key string) (Rev[T], error) {
	kv, err := s.Get(ctx, key)
	if err != nil {
		return Rev[T]{}, err
	}
	rec, err := Decode[T, P](kv, v)
	return Rev[T]{rec, kv}, err
}

// List returns all records whose key starts with prefix, in the order of their keys. If one of them cannot be decoded it returns the
// records so far and the error.
func List[T any, P Pointer[T]](ctx context.Context, s store.Store, v Versions, prefix string) ([]Rev[T], error) {
	var all []Rev[T]
	err := s.Range(ctx, prefix, func(kv store.KV) error {
		rec, err := Decode[T, P](kv, v)
		all = append(all, Rev[T]{rec, kv})
		return err
	})
	return all, err
}

// Decode decodes a record. The error matches [store.ErrNewer] if it has a newer version, and [store.ErrCorrupt] if it has an older one
// than v allows, or is no JSON object that fits T.
func Decode[T any, P Pointer[T]](kv store.KV, v Versions) (T, error) {
	var rec, none T
	unknown, err := decode(kv, v, &rec)
	if err != nil {
		return none, err
	}
	P(&rec).keep(unknown)
	return rec, nil
}

// decode is Decode into a pointer, and returns the unknown members: one function in the binary in place of one for each type.
func decode(kv store.KV, v Versions, rec any) (unknown string, err error) {
	version, err := versionOf(kv.Value)
	switch {
	case err != nil:
		return "", corrupt(kv, err)
	case version > v.Newest:
		return "", fmt.Errorf("record %s: %w: it has version %d, this plugin knows %d; upgrade the plugin on this node", kv.Key, store.ErrNewer,
			version, v.Newest)
	case version < v.Oldest:
		return "", fmt.Errorf("record %s: %w: it has no version", kv.Key, store.ErrCorrupt)
	}
	if l, ok := rec.(Lister); ok {
		if decodeFields(kv.Value, l) {
			return "", nil
		}
		reflect.ValueOf(rec).Elem().SetZero() // it may be half decoded
	}
	if knownOnly(kv.Value, rec) {
		return "", nil
	}
	reflect.ValueOf(rec).Elem().SetZero()
	if err := json.Unmarshal(kv.Value, rec); err != nil {
		return "", corrupt(kv, err)
	}
	return string(unknownOf(kv.Value, reflect.TypeOf(rec).Elem())), nil
}

// knownOnly decodes a record that has no unknown members. Most have none, and package json finds that out faster than unknownOf.
func knownOnly(raw []byte, rec any) bool {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	return dec.Decode(rec) == nil && len(bytes.TrimSpace(raw[dec.InputOffset():])) == 0
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

// Put returns the operation that writes a record, which must contain its version, with its unknown fields. It fails if rec cannot be encoded,
// such as a time after the year 9999.
func Put(key string, rec Kept) (store.Op, error) {
	raw, err := encode(rec)
	if err != nil {
		return store.Op{}, fmt.Errorf("record %s: %w", key, err)
	}
	if unknown := rec.unknown(); unknown != "" {
		raw = withUnknown(raw, []byte(unknown), structOf(reflect.TypeOf(rec)))
	}
	return store.Put(key, raw), nil
}

// encode encodes what is known of a record.
func encode(rec Kept) ([]byte, error) {
	if l, ok := rec.(Lister); ok {
		if raw, ok := encodeFields(l); ok {
			return raw, nil
		}
	}
	return json.Marshal(rec)
}
