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
