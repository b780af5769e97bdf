package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestSite: scripts/site makes a web page of README.md and of each page in docs/. It fails at a link that leads nowhere.
func TestSite(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("../../scripts/site", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("docs/ has no pages: %v", err)
	}
	for _, page := range append(pages, "") {
		name := filepath.Join(dir, strings.TrimSuffix(filepath.Base("/"+page), ".md"), "index.html")
		text, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(string(text), "For operators") {
			t.Errorf("%s has no list of the pages", name)
		}
	}
}
