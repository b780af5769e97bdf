package ipamdrv_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// optionsTable is the options table of the manual, made from that of the code.
func optionsTable() string {
	var b strings.Builder
	b.WriteString("| option | allowed | default | what it does |\n|---|---|---|---|\n")
	for _, o := range ipamdrv.Options() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", o.Name, o.Values, o.Default, o.Help)
	}
	return b.String()
}

// TestManualOptions compares the options table of docs/ipam.md with that of the code. To update it: UPDATE=1 go test ./ipamdrv -run
// TestManualOptions
func TestManualOptions(t *testing.T) {
	const file, begin, end = "../docs/ipam.md", "<!-- options: made from ipamdrv/option/option.go -->\n", "<!-- end of options -->"
	docs.Table(t, file, begin, end, optionsTable())
}
