package docs_test

import (
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
				known[n[1]] = functionsIn(t, n[1], "*_test.go")
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

// function is how a function or method begins; the type of a method's receiver comes first.
var function = regexp.MustCompile(`^func (?:\(\w* ?\*?(\w+)(?:\[[^\]]*\])?\) )?(\w+)[(\[]`)

// functionsIn returns the functions of a package, and its methods as Type.Method, in the files that match a pattern, with whatever build tags.
func functionsIn(t *testing.T, dir, pattern string) map[string]bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../../..", dir, pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no %s: %v", dir, pattern, err)
	}
	names := map[string]bool{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(source)) {
			if !strings.HasPrefix(line, "func ") {
				continue
			}
			if m := function.FindStringSubmatch(line); m != nil {
				names[strings.TrimPrefix(m[1]+"."+m[2], ".")] = true
			}
		}
	}
	return names
}
