package dockertest

import (
	"strings"
	"testing"

	"github.com/mellanox/passthrough/test/harness/docs"
)

// Project returns the commands that a page shows below a heading, to be run in a folder, for a Compose project. The last command, which
// takes the project down, is not among them: it is run when the test ends.
func Project(t *testing.T, folder, page, heading string) (commands []string) {
	t.Helper()
	all := docs.Commands(t, page, heading)
	down := all[len(all)-1]
	if !strings.HasSuffix(down, " down") {
		t.Fatalf("%s: %q ends with %s, not with down", page, heading, down)
	}
	t.Cleanup(func() {
		if _, err := TryIn(folder, down); err != nil {
			t.Errorf("%s: %v", down, err)
		}
	})
	return all[:len(all)-1]
}

// TryIn runs a shell command line in a folder, as Try does.
func TryIn(folder, line string) (string, error) { return Try("sh", "-c", "cd "+folder+" && "+line) }

// InFolder runs a shell command line in a folder, which must succeed.
func InFolder(t testing.TB, folder, line string) string {
	t.Helper()
	out, err := TryIn(folder, line)
	if err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return out
}
