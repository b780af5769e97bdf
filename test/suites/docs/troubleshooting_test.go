package docs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestTroubleshooting checks that the errors which docs/troubleshooting.md lists are errors of the product: they are in its source, or in an
// answer to an engine that was recorded.
func TestTroubleshooting(t *testing.T) {
	page, err := os.ReadFile("../../../docs/troubleshooting.md")
	if err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, dir := range []string{"cmd", "hw", "internal/keylock", "internal/opttable", "ipamdrv", "netdrv", "store"} {
		err := filepath.WalkDir(filepath.Join("../../..", dir), func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(name, ".go") && !strings.Contains(name, "/recorded/") ||
				strings.HasSuffix(name, "_test.go") {
				return err
			}
			text, err := os.ReadFile(name)
			source.Write(text)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	rows := 0
	for line := range strings.Lines(string(page)) {
		first, ok := strings.CutPrefix(line, "| `")
		if !ok {
			continue
		}
		rows++
		first, _, _ = strings.Cut("`"+first, " | ")
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(first, -1) {
			if !strings.Contains(source.String(), m[1]) {
				t.Errorf("docs/troubleshooting.md lists %q, which is in no error of the product", m[1])
			}
		}
	}
	if rows < 10 {
		t.Errorf("docs/troubleshooting.md has %d rows: the test looks at the wrong thing", rows)
	}
}
