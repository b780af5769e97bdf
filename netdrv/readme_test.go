package netdrv_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/netdrv"
)

// optionsTable is the README's table, made from the code's.
func optionsTable() string {
	var b strings.Builder
	b.WriteString("| option | for | allowed | default | what it does |\n|---|---|---|---|---|\n")
	for _, o := range netdrv.Options() {
		help := o.Help
		if len(o.Modes) > 0 {
			help += " (mode=" + strings.Join(o.Modes, ", ") + " only)"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", o.Name, o.For, o.Values, o.Default, help)
	}
	return b.String()
}

// TestReadmeOptions holds the README's options table to the code's. To bring it up to date:
// UPDATE=1 go test ./netdrv -run TestReadmeOptions
func TestReadmeOptions(t *testing.T) {
	const file, begin, end = "../README.md", "<!-- options: made from netdrv/options.go -->\n", "<!-- end of options -->"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("README.md has no options table between %q and %q", begin, end)
	}
	want := optionsTable()
	if table == want {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("the options table in README.md is\n%s\nbut should be\n%s\nrun this test with UPDATE=1", table, want)
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
