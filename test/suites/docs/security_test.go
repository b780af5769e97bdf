package docs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// claim is how a page names a test.
var claim = regexp.MustCompile("`([a-z/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")

// TestSecurityClaims: every claim in docs/security.md names at least one test, and the tests that it names exist.
func TestSecurityClaims(t *testing.T) {
	text, err := os.ReadFile("../../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	claims, known := 0, map[string]map[string]bool{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasPrefix(line, "| claim |") {
			continue
		}
		claims++
		named := claim.FindAllStringSubmatch(line, -1)
		if len(named) == 0 {
			t.Errorf("no test is named for: %s", line)
		}
		for _, n := range named {
			if known[n[1]] == nil {
				known[n[1]] = testsIn(t, n[1])
			}
			if !known[n[1]][n[2]] {
				t.Errorf("%s has no %s, which is named for: %s", n[1], n[2], line)
			}
		}
	}
	if claims < 20 {
		t.Errorf("%d claims were found: the test looks at the wrong thing", claims)
	}
}

// testsIn are the names of the tests and fuzz targets of a package, with whatever build tags.
func testsIn(t *testing.T, pkg string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../../..", pkg, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no tests: %v", pkg, err)
	}
	names := map[string]bool{}
	for _, file := range files {
		tree, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range tree.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}
