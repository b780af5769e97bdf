package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestManualPages: each command has a manual page with an example that is a line of this program.
func TestManualPages(t *testing.T) {
	t.Setenv("SOURCE_DATE_EPOCH", "1700000000")
	dir := filepath.Join(t.TempDir(), "man")
	root := newCommand()
	root.SetArgs([]string{"man", dir})
	if err := root.Execute(); err != nil {
		t.Fatal(err)
	}
	pages := 0
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" { // cobra's own
			return
		}
		pages++
		name := strings.ReplaceAll(c.CommandPath(), " ", "-") + ".1"
		page, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Error(err)
		}
		for _, part := range []string{".SH SYNOPSIS", ".SH EXAMPLE", "Nov 2023"} {
			if !strings.Contains(string(page), part) {
				t.Errorf("%s has no %s", name, part)
			}
		}
		for line := range strings.Lines(c.Example) {
			if !strings.HasPrefix(line, "  passthroughctl ") || len(line) > 80 {
				t.Errorf("%s: an example is %q", c.CommandPath(), line)
			}
		}
		for line := range strings.Lines(c.Short + "\n" + c.Long) {
			if len(strings.TrimSpace(line)) > 130 {
				t.Errorf("%s: a line of its help has %d characters: %s", c.CommandPath(), len(line), line)
			}
		}
		for _, child := range c.Commands() {
			check(child)
		}
	}
	check(root)
	if pages < 15 {
		t.Errorf("%d pages", pages)
	}
}
