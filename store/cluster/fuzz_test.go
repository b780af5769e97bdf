package cluster

import (
	"strings"
	"testing"

	"github.com/mellanox/passthrough/store"
)

// FuzzMember: any record of a member is decoded or refused. A record that is refused does not make the member lost. A record that was encoded
// can be decoded.
func FuzzMember(f *testing.F) {
	f.Fuzz(func(t *testing.T, record []byte, name string, lost bool) {
		if n, err := node(store.KV{Key: prefixMember + "id", Value: record}); n.ID != "id" || err != nil && (n.Lost || n.Name != "") {
			t.Errorf("%q is %+v, %v", record, n, err)
		}
		state := map[bool]string{false: stateUp, true: stateLost}[lost]
		n, err := node(store.KV{Key: prefixMember + "id", Value: member(state, name)})
		if err != nil || n.Name != name || n.Lost != lost || !strings.HasPrefix(string(member(state, name)), "1 ") {
			t.Errorf("%q, %s: %+v, %v", name, state, n, err)
		}
	})
}
