//go:build lab

package lab

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// shownCommands are the docker commands that a page shows, in order, a group for each paragraph that begins in bold.
func shownCommands(t *testing.T, page string) (groups [][]string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, paragraph := range strings.Split(strings.ReplaceAll(string(text), "\\\n", " "), "\n**") {
		var commands []string
		for _, line := range strings.Split(paragraph, "\n") {
			if strings.HasPrefix(line, "    docker ") {
				commands = append(commands, strings.Join(strings.Fields(line), " "))
			}
		}
		groups = append(groups, commands)
	}
	return groups
}

// TestShownCommands runs every docker command that README.md and docs/modes.md show. What a paragraph has made goes before the next.
func TestShownCommands(t *testing.T) {
	asBefore(t)
	Sh(t, "ip link set "+another+" up; ip link add bond0 type bond; ip link add br0 type bridge")
	t.Cleanup(func() { // a device with children stays up
		Sh(t, "ip link set "+pf+" down; ip link set "+another+" down; ip link del bond0; ip link del br0")
	})
	for page, least := range map[string]int{"README.md": 9, "modes.md": 12} {
		t.Run(page, func(t *testing.T) {
			groups := shownCommands(t, page)
			if n := len(slices.Concat(groups...)); n < least {
				t.Fatalf("%s shows only %d commands: %q", page, n, groups)
			}
			for _, commands := range groups {
				runShown(t, commands)
			}
		})
	}
}

// runShown runs commands, and removes the networks that they have made. Those that start a container show its eth0.
func runShown(t *testing.T, commands []string) {
	t.Helper()
	var networks []string
	for _, c := range commands {
		fields := strings.Fields(c)
		if strings.Contains(c, "network create") {
			name := fields[len(fields)-1]
			Sh(t, c)
			t.Cleanup(func() { _, _ = Try("docker", "network", "rm", name) }) // should a later command fail
			networks = append(networks, name)
		} else if out := Sh(t, c); !strings.Contains(out, "eth0") {
			t.Errorf("%s: %s", c, out)
		}
	}
	for _, n := range networks {
		Docker(t, "network", "rm", n)
	}
}

// TestDemo runs the steps of make demo. They print what docs/demo.md shows, but for numbers.
func TestDemo(t *testing.T) {
	asBefore(t)
	out := Sh(t, "DEVICE="+another+" bash ./demo --here "+pf)
	number := regexp.MustCompile(`[0-9a-f:.]*[0-9][0-9a-f:.]*`)
	var printed []string
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 0 {
			printed = append(printed, number.ReplaceAllString(strings.Join(fields, " "), "N"))
		}
	}
	shown := docs.Commands(t, "demo.md", "make demo")
	for i, line := range shown {
		shown[i] = number.ReplaceAllString(line, "N")
	}
	if diff := cmp.Diff(shown, printed); diff != "" {
		t.Errorf("the demo prints other lines than docs/demo.md shows (-page +demo):\n%s", diff)
	}
}
