package ipamdrv_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/ipamdrv"
)

// optionsTable is the manual's table, made from the code's.
func optionsTable() string {
	var b strings.Builder
	b.WriteString("| option | allowed | default | what it does |\n|---|---|---|---|\n")
	for _, o := range ipamdrv.Options() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", o.Name, o.Values, o.Default, o.Help)
	}
	return b.String()
}

// TestManualOptions holds the options table of docs/ipam.md to the code's. To bring it up to date:
// UPDATE=1 go test ./ipamdrv -run TestManualOptions
func TestManualOptions(t *testing.T) {
	const file, begin, end = "../docs/ipam.md", "<!-- options: made from ipamdrv/options.go -->\n", "<!-- end of options -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no options table between %q and %q", file, begin, end)
	}
	want := optionsTable()
	if table == want {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("the options table in %s is\n%s\nbut should be\n%s\nrun this test with UPDATE=1", file, table, want)
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
