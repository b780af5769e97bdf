package option_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// optionsTable is the table of docs/options.md, made from the code's.
func optionsTable() string {
	var b strings.Builder
	b.WriteString("| option | for | allowed | default | what it does |\n|---|---|---|---|---|\n")
	for _, o := range option.Options() {
		help := o.Help
		if len(o.Modes) > 0 {
			help += " (mode=" + strings.Join(o.Modes, ", ") + " only)"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", o.Name, o.For, o.Values, o.Default, help)
	}
	return b.String()
}

// TestOptionsPage holds the table of docs/options.md to the code's. To bring it up to date:
// UPDATE=1 go test ./netdrv/option -run TestOptionsPage
func TestOptionsPage(t *testing.T) {
	const file, begin, end = "../../docs/options.md", "<!-- options: made from netdrv/option/table.go -->\n", "<!-- end of options -->"
	docs.Table(t, file, begin, end, optionsTable())
}
