package record

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
)

// Extra is embedded in every type of record. It has what a newer version of the same record version has written into the record and this
// version does not know, so that a rewrite keeps it. A new record begins without; one that takes the place of another record of its key, such
// as a cooldown that of a lease, is new.
type Extra struct {
	// Unknown is a JSON object with the unknown members as they were written, "" for none. Those of a struct in the record are in an object
	// under its name. Those of the elements of a list or map are not kept.
	Unknown string `json:"-"`
}

// A Kept is a record whose unknown fields survive a rewrite: a struct that embeds [Extra], or a pointer to one.
type Kept interface{ unknown() string }

// A Pointer is a pointer to a record of type T.
type Pointer[T any] interface {
	*T
	Kept
	keep(unknown string)
}

// Of returns the unknown members of a struct in the record, by its name in JSON, for a record that is to be made of it.
func (e Extra) Of(name string) Extra {
	var inner Extra
	members([]byte(e.Unknown), func(member string, _, value []byte) {
		if strings.EqualFold(member, name) {
			inner.Unknown = string(value)
		}
	})
	return inner
}

func (e Extra) unknown() string      { return e.Unknown }
func (e *Extra) keep(unknown string) { e.Unknown = unknown }

// members calls fn with each member of a JSON object, which must be valid: its name, and the member and its value as they are written.
func members(object []byte, fn func(name string, member, value []byte)) {
	rest := object[bytes.IndexByte(object, '{')+1:]
	for {
		start := bytes.IndexByte(rest, '"')
		if start < 0 {
			return
		}
		rest = rest[start:]
		quoted := rest[:stringLen(rest)]
		name := string(quoted[1 : len(quoted)-1])
		if strings.ContainsRune(name, '\\') {
			_ = json.Unmarshal(quoted, &name) // it is valid
		}
		colon := len(quoted) + bytes.IndexByte(rest[len(quoted):], ':')
		end := colon + 1 + valueLen(rest[colon+1:])
		fn(name, bytes.TrimRight(rest[:end], " \t\r\n"), bytes.TrimSpace(rest[colon+1:end]))
		rest = rest[end:]
	}
}

// stringLen returns the length of the JSON string that text begins with.
func stringLen(text []byte) int {
	for i := 1; ; i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
}

// valueLen returns the length of the JSON value that text begins with, up to the comma or bracket that ends it.
func valueLen(text []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch text[i] {
		case '"':
			i += stringLen(text[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
}

// unknownOf returns the members of a JSON object that are not decoded into a struct of type t, in the form of [Extra].
func unknownOf(object []byte, t reflect.Type) []byte {
	found := []byte{'{'}
	add := func(member []byte) {
		if len(found) > 1 {
			found = append(found, ',')
		}
		found = append(found, member...)
	}
	members(object, func(name string, member, value []byte) {
		f, known := findField(t, name)
		switch {
		case !known:
			add(member)
		case f.inner != nil && value[0] == '{':
			if inner := unknownOf(value, f.inner); len(inner) > 0 {
				add(slices.Concat(member[:len(member)-len(value)], inner))
			}
		}
	})
	if len(found) == 1 {
		return nil
	}
	return append(found, '}')
}

// withUnknown returns the JSON object of a struct of type t with the unknown members added. Those of a struct that the record points to are
// dropped with it.
func withUnknown(object, unknown []byte, t reflect.Type) []byte {
	nested, merged := map[string][]byte{}, []byte{'{'}
	add := func(member []byte) {
		if len(merged) > 1 {
			merged = append(merged, ',')
		}
		merged = append(merged, member...)
	}
	members(unknown, func(name string, _, value []byte) {
		if f, known := findField(t, name); known {
			nested[f.name] = value
		}
	})
	members(object, func(name string, member, value []byte) {
		f, _ := findField(t, name)
		if more, ok := nested[f.name]; ok && value[0] == '{' {
			member = slices.Concat(member[:len(member)-len(value)], withUnknown(value, more, f.inner))
		}
		delete(nested, f.name)
		add(member)
	})
	members(unknown, func(name string, member, _ []byte) {
		f, known := findField(t, name)
		if _, omitted := nested[f.name]; !known || omitted && !f.pointer { // omitted because it has nothing that is known
			add(member)
		}
	})
	return append(merged, '}')
}

// field is a field of a struct: its name in JSON and, if it is a struct with fields of its own, or a pointer to one, that type.
type field struct {
	name    string
	inner   reflect.Type
	pointer bool
}

// findField finds the field of a struct of type t that package json decodes a member into. It does not regard case, as package json.
func findField(t reflect.Type, member string) (_ field, ok bool) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, _, _ := strings.Cut(tag, ",")
		switch {
		case tag == "-":
		case f.Anonymous && name == "" && structOf(f.Type) != nil:
			if found, ok := findField(structOf(f.Type), member); ok {
				return found, true
			}
		case !f.IsExported():
		case strings.EqualFold(member, cmp.Or(name, f.Name)):
			return field{cmp.Or(name, f.Name), structOf(f.Type), f.Type.Kind() == reflect.Pointer}, true
		}
	}
	return field{}, false
}

// structOf returns t, or what t points to, if it is a struct that package json decodes field by field.
func structOf(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	p := reflect.PointerTo(t)
	if t.Kind() != reflect.Struct || p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return nil
	}
	return t
}
