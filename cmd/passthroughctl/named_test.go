package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/internal/admin"
)

// named is a command of this program in a text: its words up to a quote, a mark of punctuation or the end of the line.
var named = regexp.MustCompile("passthroughctl ((?:[a-z-]+)(?: [^`\"';:,()|\\n\\\\]*)?)")

// TestNamedCommands: each command of this program that an error of the plugin, a remedy or a page names is one. The engine and lab tests show
// what the commands do.
func TestNamedCommands(t *testing.T) {
	texts := map[string]string{}
	for _, x := range admin.Troubles() {
		if x.See != "" {
			texts[x.Texts[0]] = "passthroughctl " + x.See
		}
		texts[x.Texts[0]] += "\n" + x.Remedy
	}
	for _, dir := range []string{"../../docs", "../../hw", "../../internal", "../../ipamdrv", "../../netdrv", "../driver", "."} {
		err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
			code := strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")
			if err != nil || e.IsDir() || !code && filepath.Ext(name) != ".md" {
				return err
			}
			text, err := os.ReadFile(name)
			texts[name] = shown(string(text), code)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	count := 0
	for where, text := range texts {
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			count++
			if _, _, err := newCommand().Find(strings.Fields(m[1])); err != nil {
				t.Errorf("%s names %q: %v", where, m[0], err)
			}
		}
	}
	if count < 40 {
		t.Errorf("%d commands are named: the test looks at the wrong thing", count)
	}
}

// shown returns what users see of a file: of code, its texts; of a page, what stands as code.
func shown(text string, code bool) string {
	if code {
		return strings.Join(regexp.MustCompile("\"(?:[^\"\\\\\\n]|\\\\.)*\"").FindAllString(text, -1), "\n")
	}
	return strings.Join(regexp.MustCompile("`[^`\\n]+`|(?m)^    .*$").FindAllString(text, -1), "\n")
}
