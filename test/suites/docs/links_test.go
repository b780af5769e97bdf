package docs_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// link is a link of Markdown to a file of the repository, with or without a heading.
var link = regexp.MustCompile(`\]\(([^)\s:]*)\)`)

// notInAnchor is what GitHub leaves out when it makes the anchor of a heading; blanks become hyphens.
var notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}\s_-]`)

// anchors returns the anchors of a page's headings.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for line := range strings.Lines(page) {
		if heading, ok := strings.CutPrefix(line, "#"); ok {
			heading = strings.TrimSpace(strings.TrimLeft(heading, "#"))
			all[strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")] = true
		}
	}
	return all
}

// TestLinks: the files and headings that the pages link to are there.
func TestLinks(t *testing.T) {
	const root = "../../.."
	pages, err := filepath.Glob(root + "/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	designs, err := filepath.Glob(root + "/docs/*/*.md")
	if err != nil || len(designs) == 0 {
		t.Fatalf("%d pages on designs: %v", len(designs), err)
	}
	pages = append(pages, designs...)
	n := 0
	for _, page := range append(pages, root+"/README.md", root+"/SECURITY.md", root+"/CONTRIBUTING.md", root+"/CHANGELOG.md", root+"/test/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			n++
			file, anchor, _ := strings.Cut(m[1], "#")
			target := page
			if file != "" {
				target = filepath.Join(filepath.Dir(page), file)
			}
			to, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); statErr == nil && info.IsDir() {
				err = nil
			}
			if err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			} else if anchor != "" && !anchors(string(to))[anchor] {
				t.Errorf("%s links to %s, which has no such heading", page, m[1])
			}
		}
	}
	if n < 80 {
		t.Errorf("the pages have %d links: the test looks at the wrong thing", n)
	}
}
