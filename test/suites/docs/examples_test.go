package docs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestExamples: docs/compose.md lists each example for Compose, and has a command that starts it.
func TestExamples(t *testing.T) {
	page, err := os.ReadFile("../../../docs/compose.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("../../../examples/*/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range examples {
		name := strings.TrimPrefix(file, "../../../")
		if !strings.Contains(string(page), "](../"+name+") |") {
			t.Errorf("docs/compose.md does not list %s", name)
		}
		if !strings.Contains(string(page), "docker compose -f "+name+" up -d\n") && !strings.Contains(string(page), "docker stack deploy -c "+name+" ") {
			t.Errorf("docs/compose.md has no command that starts %s", name)
		}
	}
	if len(examples) < 5 {
		t.Errorf("there are %d examples: the test looks at the wrong thing", len(examples))
	}
}
