package storetest

import (
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// A Listed is a type of record that lists its fields.
type Listed[T any] interface {
	record.Pointer[T]
	record.Lister
}

// ReadsAsJSON checks that any text is read as a record of a type that lists its fields exactly as package json does it, and is written again as
// package json does it. Plain is the type without its methods, as in type plain Record.
func ReadsAsJSON[T, Plain any, P Listed[T], Q record.Pointer[Plain]](t *testing.T, v record.Versions, raw []byte) {
	t.Helper()
	kv := store.KV{Key: "k", Value: raw}
	rec, err := record.Decode[T, P](kv, v)
	plain, want := record.Decode[Plain, Q](kv, v)
	if (err == nil) != (want == nil) {
		t.Fatalf("%q: error %v, want %v", raw, err, want)
	}
	if same := reflect.ValueOf(plain).Convert(reflect.TypeFor[T]()).Interface(); !reflect.DeepEqual(rec, same) {
		t.Fatalf("%q: read as %+v, want %+v", raw, rec, same)
	}
	if err == nil {
		writesAsJSON[T, Plain, P, Q](t, rec)
	}
}

// WritesAsJSON checks that a record of a type that lists its fields is written exactly as package json does it and read back: one of each field
// alone, with an ordinary value and with one that JSON has to escape, and one of all fields. A field that is not listed would be lost.
func WritesAsJSON[T, Plain any, P Listed[T], Q record.Pointer[Plain]](t *testing.T) {
	t.Helper()
	for _, text := range []string{"value", "é", "\"<&>\\\n\u2028\x7f\xff"} {
		var all T
		for i := range reflect.TypeFor[T]().NumField() {
			var one T
			if field := reflect.TypeFor[T]().Field(i); !field.Anonymous {
				setField(t, reflect.ValueOf(&one).Elem().Field(i), text)
				setField(t, reflect.ValueOf(&all).Elem().Field(i), text)
			}
			writesAsJSON[T, Plain, P, Q](t, one)
		}
		writesAsJSON[T, Plain, P, Q](t, all)
	}
}

func writesAsJSON[T, Plain any, P Listed[T], Q record.Pointer[Plain]](t *testing.T, rec T) {
	t.Helper()
	plain := reflect.ValueOf(rec).Convert(reflect.TypeFor[Plain]()).Interface().(Plain)
	put, err := record.Put("k", P(&rec))
	want, wantErr := record.Put("k", Q(&plain))
	if (err == nil) != (wantErr == nil) || string(put.Value) != string(want.Value) {
		t.Fatalf("%+v is written as\n%s, %v, want\n%s, %v", rec, put.Value, err, want.Value, wantErr)
	}
	if err != nil {
		return // a time that JSON cannot express
	}
	kv, v := store.KV{Key: "k", Value: put.Value}, record.Versions{Newest: 1 << 30}
	read, err := record.Decode[T, P](kv, v)
	same, wantErr := record.Decode[Plain, Q](kv, v)
	if want := reflect.ValueOf(same).Convert(reflect.TypeFor[T]()).Interface(); !reflect.DeepEqual(read, want) || (err == nil) != (wantErr == nil) {
		t.Fatalf("%s is read as\n%+v, %v, want\n%+v, %v", put.Value, read, err, want, wantErr)
	}
}

// setField gives a field a value that is not its zero value.
func setField(t *testing.T, f reflect.Value, text string) {
	t.Helper()
	switch value := f.Addr().Interface().(type) {
	case *time.Time:
		*value = time.Date(2026, 2, 28, 23, 59, 59, len(text)*1_000_000, time.UTC)
	case *netip.Addr:
		*value = netip.MustParseAddr("fe80::1%eth0")
	case *netip.Prefix:
		*value = netip.MustParsePrefix("10.0.0.0/20")
	case *map[string]string:
		*value = map[string]string{"b": text, "a": "1"}
	case *[]string:
		*value = []string{text}
	default:
		switch f.Kind() {
		case reflect.Pointer:
			f.Set(reflect.New(f.Type().Elem()))
		case reflect.String:
			f.SetString(text)
		case reflect.Int:
			f.SetInt(1)
		case reflect.Bool:
			f.SetBool(true)
		default:
			t.Fatalf("no value for a field of type %s", f.Type())
		}
	}
}
