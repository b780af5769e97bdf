// Package docs holds what a page says to the code that it is about.
package docs

import (
	"os"
	"strings"
	"testing"
)

// Table holds a table on a page to want, which a test has made from the code. It stands between the lines begin and end.
// With UPDATE set in the environment the page is brought up to date instead.
func Table(t *testing.T, file, begin, end, want string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between %q and %q", file, begin, end)
	}
	if table == want {
		return
	}
	if os.Getenv("UPDATE") == "" {
		t.Fatalf("the table in %s is\n%s\nbut should be\n%s\nrun this test with UPDATE=1", file, table, want)
	}
	if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Commands are the commands that a page shows below a heading, until the next one: its indented lines, of which each that
// ends in a backslash goes on in the next.
func Commands(t testing.TB, file, heading string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", file, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.SplitSeq(strings.ReplaceAll(section, "\\\n", ""), "\n") {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			commands = append(commands, strings.Join(strings.Fields(command), " "))
		}
	}
	if len(commands) == 0 {
		t.Fatalf("%s shows no command below %q", file, heading)
	}
	return commands
}
