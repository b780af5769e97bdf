package docs_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImages: the image of the laboratory is in no registry, so what a page tells its reader to run is another. The
// laboratory's has that name, too.
func TestImages(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	runs := 0
	for _, page := range append(pages, "../../../README.md") {
		if filepath.Base(page) == "lab.md" {
			continue
		}
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", "")) {
			words := strings.Fields(line)
			if strings.HasPrefix(line, "    ") && slices.Contains(words, "busybox") {
				runs++
			}
			if strings.HasPrefix(line, "    ") && slices.Contains(words, "lab") {
				t.Errorf("%s: the image lab exists only here: %s", page, line)
			}
		}
	}
	if runs < 7 {
		t.Errorf("%d commands with busybox were found: the test looks at the wrong thing", runs)
	}
}
