package cluster

import (
	"bytes"
	"errors"
	"testing"

	"github.com/mellanox/passthrough/store"
)

// FuzzErrand: any record of the queue is the errand that was written down so, or damaged; and every errand can be read again.
func FuzzErrand(f *testing.F) {
	f.Fuzz(func(t *testing.T, place string, record []byte, token string, value, to []byte) {
		e, err := decodeErrand(store.KV{Key: place, Value: record})
		switch {
		case err != nil && !errors.Is(err, store.ErrCorrupt):
			t.Error(err)
		case err == nil && len(e.encode()) > 0:
			again, err := decodeErrand(store.KV{Key: place, Value: e.encode()})
			if err != nil || !same(e, again) {
				t.Errorf("%q at %q is %+v, and written down again %+v, %v", record, place, e, again, err)
			}
		}
		want := errand{at: prefixErrand + "ipam/lease/x/" + "PLACE", key: "ipam/lease/x", token: "T" + token, value: append([]byte{}, value...)}
		if len(to) > 0 {
			want.to = to
		}
		if bytes.ContainsAny([]byte(token), " \n") {
			return // a token is made of letters and digits
		}
		if got, err := decodeErrand(store.KV{Key: want.at, Value: want.encode()}); err != nil || !same(got, want) {
			t.Errorf("%+v is read as %+v, %v", want, got, err)
		}
	})
}

// same says whether two errands are to do the same.
func same(a, b errand) bool {
	return a.at == b.at && a.key == b.key && a.token == b.token && bytes.Equal(a.value, b.value) && bytes.Equal(a.to, b.to) &&
		(a.value == nil) == (b.value == nil) && (a.to == nil) == (b.to == nil)
}
