package record_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// painting is a record with structs in it.
type painting struct {
	record.Extra
	Version int     `json:"v"`
	Title   string  `json:"title,omitempty"`
	Frame   frame   `json:"frame,omitzero"`
	Back    *colour `json:"back,omitempty"`
	size
}

type frame struct {
	Colour colour `json:"colour,omitzero"`
	Wood   string
}

type size struct{ Width, Height int }

// FuzzUnknown: whatever a record has that this version does not know, it has after a change, and a second rewrite changes no byte.
func FuzzUnknown(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte, title string) {
		v := record.Versions{Newest: 2}
		rec, err := record.Decode[painting](store.KV{Key: "p", Value: raw}, v)
		if err != nil || !utf8.ValidString(title) {
			return
		}
		rec.Title = title
		put, err := record.Put("p", rec)
		if err != nil {
			return // a time that JSON cannot express
		}
		again, err := record.Decode[painting](store.KV{Key: "p", Value: put.Value}, v)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", raw, put.Value, err)
		}
		if again.Title != title {
			t.Errorf("%q is written as %q: title %q", raw, put.Value, again.Title)
		}
		if same, err := record.Put("p", &again); err != nil || !bytes.Equal(same.Value, put.Value) {
			t.Errorf("%q is written as %q, and after that as %q, %v", raw, put.Value, same.Value, err)
		}
		keptAll(t, raw, put.Value, "v", "title", "frame", "back", "width", "height")
	})
}

// keptAll checks that all members but some are in the rewritten record.
func keptAll(t *testing.T, raw, rewritten []byte, but ...string) {
	t.Helper()
	var before, after map[string]any
	if json.Unmarshal(raw, &before) != nil || json.Unmarshal(rewritten, &after) != nil {
		return // a number that is too large for any
	}
	for name, value := range before {
		known := false
		for _, b := range but {
			known = known || strings.EqualFold(b, name)
		}
		if !known && !cmp.Equal(value, after[name]) {
			t.Errorf("%q is written as %q, without %q", raw, rewritten, name)
		}
	}
}

func TestUnknown(t *testing.T) {
	for _, c := range []struct{ raw, want string }{
		{`{"v":1,"title":"Sky"}`, `{"v":1,"title":"new","Width":0,"Height":0}`},
		{`{"v":1,"fence":"7","title":"Sky","x": [1, {"a":"}"}] }`, `{"v":1,"title":"new","Width":0,"Height":0,"fence":"7","x": [1, {"a":"}"}]}`},
		{`{"TITLE":"Sky","WIDTH":3,"v":1,"né\"w":null}`, `{"v":1,"title":"new","Width":3,"Height":0,"né\"w":null}`},
		{`{"v":1,"frame":{"gold":true,"colour":{"v":0,"name":"red","shade":7}}}`,
			`{"v":1,"title":"new","frame":{"colour":{"v":0,"name":"red","shade":7},"Wood":"","gold":true},"Width":0,"Height":0}`},
		{`{"v":1,"frame":{"gold":true}}`, `{"v":1,"title":"new","Width":0,"Height":0,"frame":{"gold":true}}`}, // nothing else is known of it
		{`{"v":1,"back":{"shade":7}}`, `{"v":1,"title":"new","back":{"v":0,"shade":7},"Width":0,"Height":0}`},
		{`{"v":1,"back":null,"extra":{"a":1},"unknown":"u"}`, `{"v":1,"title":"new","Width":0,"Height":0,"extra":{"a":1},"unknown":"u"}`},
	} {
		rec, err := record.Decode[painting](store.KV{Key: "p", Value: []byte(c.raw)}, record.Versions{Newest: 1})
		if err != nil {
			t.Fatal(err)
		}
		rec.Title = "new"
		put, err := record.Put("p", rec)
		if err != nil || string(put.Value) != c.want {
			t.Errorf("%s is written as\n %s, %v, want\n %s", c.raw, put.Value, err, c.want)
		}
	}
	rec, err := record.Decode[painting](store.KV{Key: "p", Value: []byte(`{"v":1,"back":{"v":1,"shade":7}}`)}, record.Versions{Newest: 1})
	if err != nil || rec.Of("back").Unknown != `{"shade":7}` || rec.Of("frame").Unknown != "" {
		t.Errorf("unknown members of a struct: %+v, %v", rec.Of("back"), err)
	}
}
