package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// walkDirs are the folders of the packages that the walk in CONTRIBUTING.md names.
var walkDirs = map[string]string{
	"driver": "cmd/driver", "netdrv": "netdrv", "mode": "netdrv/mode", "vfpool": "netdrv/vfpool", "alloc": "netdrv/alloc",
	"ipamdrv": "ipamdrv", "hw": "hw", "rtnl": "hw/rtnl",
}

// TestContributingWalk checks that the methods in the walk of CONTRIBUTING.md exist.
func TestContributingWalk(t *testing.T) {
	text, err := os.ReadFile("../../../CONTRIBUTING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, walk, _ := strings.Cut(string(text), "\n## A `docker run`, function by function\n")
	walk, _, _ = strings.Cut(walk, "\n## ")
	steps := regexp.MustCompile("`([a-z]+)\\.([A-Za-z]+\\.[A-Za-z]+)`").FindAllStringSubmatch(walk, -1)
	known := map[string]map[string]bool{}
	for _, s := range steps {
		if known[s[1]] == nil {
			known[s[1]] = functionsIn(t, walkDirs[s[1]], "*.go")
		}
		if !known[s[1]][s[2]] {
			t.Errorf("CONTRIBUTING.md names %s.%s, which does not exist", s[1], s[2])
		}
	}
	if len(steps) < 10 {
		t.Errorf("CONTRIBUTING.md names %d methods: the test looks at the wrong thing", len(steps))
	}
}

// TestPathsExist checks that the Go files and folders that the pages name exist.
func TestPathsExist(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	path := regexp.MustCompile("`((?:cmd|netdrv|ipamdrv|hw|store|internal|test)/[a-z0-9_/.-]*)`")
	n := 0
	for _, page := range append(pages, "../../../README.md", "../../../CONTRIBUTING.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range path.FindAllStringSubmatch(string(text), -1) {
			n++
			if _, err := os.Stat(filepath.Join("../../..", m[1])); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
	if n < 20 {
		t.Errorf("the pages name %d paths: the test looks at the wrong thing", n)
	}
}
