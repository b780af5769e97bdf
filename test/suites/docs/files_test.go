package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named is how a page names a file of the repository that its reader is to use.
var named = regexp.MustCompile(`\bscripts/[a-z0-9][a-z0-9/._-]*[a-z0-9]`)

// TestFiles: the scripts, units and rules that the pages name are there.
func TestFiles(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, page := range append(pages, "../../../README.md", "../../../CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range named.FindAllString(strings.ReplaceAll(string(text), "\\\n", ""), -1) {
			n++
			if _, err := os.Stat(filepath.Join("../../..", file)); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
	if n < 20 {
		t.Errorf("%d files are named: the test looks at the wrong thing", n)
	}
}
