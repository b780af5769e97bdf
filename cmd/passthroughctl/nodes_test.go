package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/internal/admin"
)

// TestForgetAsks: a node is forgotten by its name or ID, and only after a question that says when it was last seen.
func TestForgetAsks(t *testing.T) {
	nodes := admin.Nodes{Nodes: []admin.Node{{ID: "a1", Name: "host1", Pools: 2, Seen: time.Now().Add(-3 * time.Hour)}, {ID: "a2", Name: "twin"},
		{ID: "a3", Name: "twin", Lost: true}}, Servers: []admin.Server{{Endpoint: "n1:2379", Version: "3.6.0", Size: 3 << 20}}}
	requests := make(chan string, 8)
	socket := serve(t, "p.sock", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/"+admin.NodesCall {
			_ = json.NewEncoder(w).Encode(nodes)
			return
		}
		var request admin.ForgetRequest
		_ = json.NewDecoder(r.Body).Decode(&request)
		requests <- request.Node
		_ = json.NewEncoder(w).Encode(admin.ForgetAnswer{Pools: 2})
	})
	run := func(answer string, args ...string) string {
		var out bytes.Buffer
		cmd := newCommand()
		cmd.SetArgs(append(args, "--socket", socket))
		cmd.SetIn(strings.NewReader(answer))
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		if err := cmd.ExecuteContext(t.Context()); err != nil {
			out.WriteString(err.Error())
		}
		return out.String()
	}
	const question = "node a1 (host1), member, last seen: 3h ago. Others will get the addresses of its 2 pools. Forget it? (yes/no) "
	for _, c := range []struct{ answer, node, want string }{
		{"", "host1", question + "not confirmed; nothing was changed"},
		{"y\n", "a1", question + "not confirmed; nothing was changed"},
		{"yes\n", "host1", question + "node a1 is forgotten, with 2 pools\n"},
		{"yes\n", "twin", `2 nodes are called "twin"; name one by its ID, as passthroughctl nodes has it`},
		{"yes\n", "host9", `no node "host9"; passthroughctl nodes lists them`},
	} {
		if diff := cmp.Diff(c.want, run(c.answer, "forget", c.node)); diff != "" {
			t.Errorf("forget %s, %q (-want +got):\n%s", c.node, c.answer, diff)
		}
	}
	if n := len(requests); n != 1 || <-requests != "a1" {
		t.Errorf("%d nodes were forgotten, want one, a1", n)
	}
	want := `NODE  NAME   POOLS  STATE   LAST SEEN
a1    host1  2      member  3h ago
a2    twin   -      member  unknown
a3    twin   -      lost    unknown

ETCD     VERSION  DATABASE  IN USE  QUOTA  STATE
n1:2379  3.6.0    3.0 MiB   -       -      ok
`
	if diff := cmp.Diff(want, run("", "nodes")); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}
