//go:build lab

package lab

import (
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
	"github.com/mellanox/passthrough/test/harness/registry"
)

// TestNewcomer: on a machine that has nothing but Docker, the plugin of a registry is installed as docs/install.md shows, and the first
// example of README.md ends in two containers that reach each other, each on its VF. The log has each command and the seconds it took.
func TestNewcomer(t *testing.T) {
	asBefore(t)
	host, end, err := registry.Serve("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	Docker(t, "plugin", "rm", "-f", Plugin)
	t.Cleanup(func() {
		_, _ = Try("docker", "plugin", "rm", "-f", Plugin)
		if err := Install("plugin"); err != nil {
			t.Error(err)
		}
	})
	const repository = "/mellanox/passthrough:v0.1.0"
	Docker(t, "plugin", "create", host+repository, "plugin")
	Docker(t, "plugin", "push", host+repository)
	Docker(t, "plugin", "rm", host+repository)

	began := time.Now()
	typed := func(command string) string {
		at := time.Now()
		out := Sh(t, command)
		t.Logf("%6.1f s  %s", time.Since(at).Seconds(), command)
		return out
	}
	t.Cleanup(func() { Sh(t, "rm -rf /var/lib/passthrough-plugin") })
	for _, c := range docs.Commands(t, "install.md", "From a registry") {
		if !strings.HasPrefix(c, "docker login ") { // this registry has none
			typed(strings.ReplaceAll(c, "registry.example.com/", host+"/"))
		}
	}
	commands := firstExample(t)
	t.Cleanup(func() { _, _ = Try("docker", "network", "rm", "customer1", "customer2") })
	for _, c := range commands {
		if out := typed(c); strings.Contains(c, " run ") && !strings.Contains(out, "194.168.1.") {
			t.Errorf("%s: %s", c, out)
		}
	}
	t.Cleanup(func() { _, _ = Try("docker", "rm", "-f", "web", "db") })
	for _, name := range []string{"web", "db"} {
		typed("docker run -d --name " + name + " --net=customer1 busybox sleep 1000000")
	}
	typed("docker exec web ping -c1 -W5 db")
	t.Logf("%6.1f s  in all", time.Since(began).Seconds())
	if n := lent(t); n != "2" {
		t.Errorf("%s VFs are in containers, want 2", n)
	}
}

// firstExample is the first example of README.md: networks on VFs, and a container.
func firstExample(t *testing.T) []string {
	t.Helper()
	for _, group := range shownCommands(t, "README.md") {
		if len(group) > 0 && strings.Contains(group[0], "mode=sriov") {
			return group
		}
	}
	t.Fatal("README.md shows no network on VFs")
	return nil
}
