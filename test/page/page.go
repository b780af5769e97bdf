// Package page holds what a page says to the code that it is about.
package page

import (
	"os"
	"strings"
	"testing"
)

// Table holds a table on a page to want, which a test has made from the code. It stands between the lines begin and end.
// With UPDATE set in the environment the page is brought up to date instead.
func Table(t *testing.T, file, begin, end, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between %q and %q", file, begin, end)
	}
	if table == want {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("the table in %s is\n%s\nbut should be\n%s\nrun this test with UPDATE=1", file, table, want)
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
