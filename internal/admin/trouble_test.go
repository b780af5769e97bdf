package admin_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestTroubleshootingPage compares the table of docs/troubleshooting.md with that of the code. To update it: UPDATE=1 go test ./internal/admin
// -run TestTroubleshootingPage
func TestTroubleshootingPage(t *testing.T) {
	var b strings.Builder
	b.WriteString("| the error contains | what it means | what to do | what tells more |\n|---|---|---|---|\n")
	for _, x := range admin.Troubles() {
		texts, see := "`"+strings.Join(x.Texts, "`, `")+"`", ""
		if x.InLog {
			texts += " (in the log)"
		}
		if x.See != "" {
			see = "`passthroughctl " + x.See + "`"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", texts, x.Cause, x.Remedy, see)
	}
	docs.Table(t, "../../docs/troubleshooting.md", "<!-- errors: made from internal/admin/trouble.go -->\n", "<!-- end of errors -->", b.String())
}

// TestTellsMore: an error gets the command of the first trouble that it is, and none if it names one.
func TestTellsMore(t *testing.T) {
	for text, want := range map[string]string{
		"ens1f0 (0000:01:00.0): all 1 vfs are in use: vf 0 is held by endpoint e of network n":                                            "vfs",
		"ens1f0 (0000:01:00.0): all 9 vfs are in use: vf 0 is held by endpoint e; and 1 more, see passthroughctl vfs":                     "",
		"option vlan: 100 is used on ens1f0 (0000:01:00.0) by network n; choose another":                                                  "status",
		"pool 10.1.0.0/24: request address 10.1.0.2: in use since 2026-11-28 20:26:35 UTC by container \"c1\"":                            "leases",
		"pool 10.1.0.0/31: request address: all 2 addresses are in use; remove a container, or create the network with a larger --subnet": "pools",
		`option "vlna": unknown; did you mean vlan?`:                                                                                      "",
	} {
		if got := admin.TellsMore(text); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
