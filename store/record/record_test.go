package record_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// colour is a record.
type colour struct {
	record.Extra
	Version int       `json:"v"`
	Name    string    `json:"name,omitempty"`
	Since   time.Time `json:"since,omitzero"`
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		text   string
		oldest int
		want   string // the name in the record, or the error
		kind   error
	}{
		{`{"v":1,"name":"red"}`, 1, "red", nil},
		{`{"v":1}`, 1, "", nil},
		{`{"v":0,"name":"red"}`, 0, "red", nil},
		{`{"name":"red","v":2}`, 1, "red", nil},
		{`{"v": 2, "name":"red", "shade":7}`, 1, "red", nil}, // by a process of the same version that knows more
		{`{"name":"red"}`, 0, "red", nil},
		{`{"name":"red"}`, 1, "record c/1: ledger is damaged: it has no version", store.ErrCorrupt},
		{`{"v":3,"name":7}`, 0, "record c/1: ledger was written by a newer version: it has version 3, this plugin knows 2; upgrade the plugin on this node", store.ErrNewer},
		{`{"name":7,"v":30}`, 0, "record c/1: ledger was written by a newer version: it has version 30, this plugin knows 2; upgrade the plugin on this node", store.ErrNewer},
		{`{"v":1,"name":7}`, 0, "record c/1: ledger is damaged: json: cannot unmarshal number into Go struct field colour.name of type string",
			store.ErrCorrupt},
		{`{"v":1,"name":"re`, 0, "record c/1: ledger is damaged: unexpected end of JSON input", store.ErrCorrupt},
		{`{"v":1x}`, 0, "record c/1: ledger is damaged: invalid character 'x' after object key:value pair", store.ErrCorrupt},
		{``, 0, "record c/1: ledger is damaged: unexpected end of JSON input", store.ErrCorrupt},
	} {
		rec, err := record.Decode[colour](store.KV{Key: "c/1", Value: []byte(c.text)}, record.Versions{Oldest: c.oldest, Newest: 2})
		got := rec.Name
		if err != nil {
			got = err.Error()
		}
		if got != c.want || !errors.Is(err, c.kind) {
			t.Errorf("%s, oldest %d:\n got %s\nwant %s", c.text, c.oldest, got, c.want)
		}
	}
}

func TestGetListPut(t *testing.T) {
	s, v := store.NewMemory(), record.Versions{Oldest: 1, Newest: 1}
	if _, err := record.Get[colour](t.Context(), s, v, "c/1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a key without a record: %v, want not found", err)
	}
	red, blue := colour{Version: 1, Name: "red"}, colour{Version: 1, Name: "blue"}
	for key, c := range map[string]colour{"c/1": red, "c/2": blue, "d/1": {Version: 1}} {
		op, err := record.Put(key, c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Txn(t.Context(), nil, []store.Op{op}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := record.Get[colour](t.Context(), s, v, "c/2")
	if err != nil || got.Rec != blue || got.KV.Key != "c/2" || got.KV.Rev == 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	all, err := record.List[colour](t.Context(), s, v, "c/")
	if err != nil {
		t.Fatal(err)
	}
	var recs []colour
	for _, r := range all {
		recs = append(recs, r.Rec)
	}
	if diff := cmp.Diff([]colour{red, blue}, recs); diff != "" {
		t.Error(diff)
	}
	if _, err := s.Txn(t.Context(), nil, []store.Op{store.Put("c/3", []byte("{}"))}); err != nil {
		t.Fatal(err)
	}
	if _, err := record.List[colour](t.Context(), s, v, "c/"); !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "c/3") {
		t.Errorf("a list with a damaged record: %v", err)
	}
	if _, err := record.Put("c/4", colour{Since: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)}); err == nil {
		t.Error("a time that JSON cannot express was encoded")
	}
}
