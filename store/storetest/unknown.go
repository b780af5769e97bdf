package storetest

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// KeepsUnknown checks for a type of record that what a newer version has added, in the record and in the structs in it, survives whatever field
// is changed.
func KeepsUnknown[T any, P record.Pointer[T]](t *testing.T, v record.Versions) {
	t.Helper()
	var rec T
	fill(reflect.ValueOf(&rec).Elem())
	raw := marshal(t, with(object(t, marshal(t, rec)), reflect.TypeFor[T]()))
	read, err := record.Decode[T, P](store.KV{Key: "newer", Value: raw}, v)
	if err != nil {
		t.Fatalf("%T: %s: %v", rec, raw, err)
	}
	for i := range reflect.TypeFor[T]().NumField() {
		changed := read
		name := reflect.TypeFor[T]().Field(i).Name
		if !change(reflect.ValueOf(&changed).Elem().Field(i)) {
			continue
		}
		put, err := record.Put("newer", P(&changed))
		if err != nil {
			t.Fatal(err)
		}
		want := with(object(t, marshal(t, changed)), reflect.TypeFor[T]())
		if diff := cmp.Diff(want, object(t, put.Value)); diff != "" {
			t.Errorf("%T with another %s (-want +got):\n%s", rec, name, diff)
		}
		again, err := record.Decode[T, P](store.KV{Key: "newer", Value: put.Value}, record.Versions{Newest: 2})
		if err != nil {
			t.Fatal(err)
		}
		if same, err := record.Put("newer", P(&again)); err != nil || !bytes.Equal(same.Value, put.Value) {
			t.Errorf("%T is written as %s, and after that as %s, %v", rec, put.Value, same.Value, err)
		}
	}
}

// fill sets the version of a record, and makes the structs that it points to.
func fill(v reflect.Value) {
	for i := range v.NumField() {
		f := v.Field(i)
		switch tag := v.Type().Field(i).Tag.Get("json"); {
		case tag == "v":
			f.SetInt(1)
		case f.Kind() == reflect.Pointer && f.Type().Elem().Kind() == reflect.Struct:
			f.Set(reflect.New(f.Type().Elem()))
			fill(f.Elem())
		}
	}
}

// change changes the value of a field. It returns false for one that this test does not change.
func change(f reflect.Value) bool {
	switch f.Kind() {
	case reflect.String:
		f.SetString("changed")
	case reflect.Int:
		f.SetInt(2)
	case reflect.Bool:
		f.SetBool(!f.Bool())
	case reflect.Pointer:
		f.SetZero()
	default:
		return false
	}
	return true
}

// with adds a member that no version knows to an object, and to the objects of the structs in a value of type t.
func with(object map[string]any, t reflect.Type) map[string]any {
	object["newer"] = map[string]any{"list": []any{"a", json.Number("1")}}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := bytes.Cut([]byte(f.Tag.Get("json")), []byte(","))
		if len(name) == 0 {
			name = []byte(f.Name)
		}
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if nested, ok := object[string(name)].(map[string]any); ok && inner.Kind() == reflect.Struct {
			with(nested, inner)
		}
	}
	return object
}

// object decodes a JSON object.
func object(t *testing.T, raw []byte) (decoded map[string]any) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&decoded); err != nil {
		t.Fatal(err)
	}
	return decoded
}

// marshal encodes the known fields of a record.
func marshal(t *testing.T, rec any) []byte {
	t.Helper()
	raw, err := json.Marshal(rec)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
