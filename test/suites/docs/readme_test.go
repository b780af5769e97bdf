package docs_test

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestEveryFolderIsInTheReadme: test/README.md has a row for each folder of test/suites and test/harness, and no other row.
func TestEveryFolderIsInTheReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	var listed, folders []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(test/[a-z]+/[a-z]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		listed = append(listed, row[1])
	}
	for _, parent := range []string{"test/suites", "test/harness"} {
		entries, err := os.ReadDir(path.Join("../../..", parent))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			folders = append(folders, path.Join(parent, e.Name()))
		}
	}
	slices.Sort(listed)
	slices.Sort(folders)
	if !slices.Equal(listed, folders) {
		t.Errorf("test/README.md has rows for %q\nthe folders are            %q", listed, folders)
	}
}

// TestReadmeNamesTests: the tests that test/README.md tells to run exist.
func TestReadmeNamesTests(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	err = filepath.WalkDir("../../..", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && strings.HasPrefix(e.Name(), ".") && strings.Trim(name, "./") != "":
			return fs.SkipDir // .git and .cache
		case !strings.HasSuffix(name, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(name)
		for line := range strings.Lines(string(source)) {
			if name, is := strings.CutPrefix(line, "func "); is {
				name, _, _ = strings.Cut(name, "(")
				known[name] = true
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?:-run |-fuzz |RUN=)((?:Test|Fuzz)\w+)`).FindAllStringSubmatch(string(text), -1)
	for _, m := range named {
		if !known[m[1]] {
			t.Errorf("test/README.md names %s, which does not exist", m[1])
		}
	}
	if len(named) < 10 {
		t.Errorf("test/README.md names %d tests: the test looks at the wrong thing", len(named))
	}
}
