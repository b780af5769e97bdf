//go:build lab

package swarm

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

func rollOut(t *testing.T) {
	out := follow(t, "The plugin on each node")
	if !strings.Contains(out[0], "node1: install ") || !strings.HasSuffix(out[0], "a dry run: nothing is changed") {
		t.Errorf("the dry run says\n%s", out[0])
	}
	for _, n := range []node{one, two} {
		settings := n.sh(t, "docker plugin inspect -f '{{.Enabled}} {{.Settings.Env}}' "+Plugin)
		if !strings.HasPrefix(settings, "true ") || !strings.Contains(settings, "STORE=etcd://10.0.3.1:2379") {
			t.Errorf("%s has %s", n, settings)
		}
		if vfs := n.vfs(t); vfs != "0" {
			t.Errorf("the check has left %s VFs on %s", vfs, n)
		}
	}
}

// count: the swarm knows how many VFs each node has once the engines were restarted. A service that reserves them runs, and of one that wants
// more than there are the last task stays pending.
func count(t *testing.T) {
	two.sh(t, "mkdir -p /srv/irq") // what the bundle of an earlier part needs; node2 has lost its disk since
	commands := docs.Commands(t, root+"docs/swarm.md", "VFs that the swarm counts")
	if out := one.sh(t, "cd passthrough && "+commands[0]); strings.Count(out, `"vf=7" is in /etc/docker/daemon.json`) != 2 {
		t.Errorf("the rollout says\n%s", out)
	}
	for _, n := range []node{two, one} {
		n.sh(t, "engine restart")
	}
	Within(t, 2*time.Minute, func() string {
		out, err := one.try("docker node inspect -f '{{.Status.State}} {{json .Description.Resources.GenericResources}}' node1 node2")
		if err != nil || strings.Count(out, "ready ") != 2 || strings.Count(out, `"Kind":"vf","Value":7`) != 2 {
			return fmt.Sprintf("the nodes are %s, %v", out, err)
		}
		return ""
	})
	one.sh(t, commands[1])
	states := func(service, want string, count int) {
		Within(t, 2*time.Minute, func() string {
			out := one.sh(t, "docker service ps --no-trunc --filter desired-state=running --format '{{.CurrentState}} {{.Error}}' "+service)
			if strings.Count(out, want) != count {
				return out
			}
			return ""
		})
	}
	states("counted", "Running ", 3)
	one.sh(t, "docker service update --detach --generic-resource-add vf=4 counted")
	states("counted", "Running ", 2)
	states("counted", "insufficient resources on 2 nodes", 1)
}

// newVersion makes another version of the bundle, in the same place; edit changes its config.json.
func newVersion(t *testing.T, version, edit string) {
	t.Helper()
	one.sh(t, `cd passthrough/bin && cp -r plugin next && echo `+version+` >next/rootfs/etc/version &&
		sed -i 's/(\([^()]*\))",$/(`+version+`)",/; `+edit+`' next/config.json && rm -rf plugin.old && mv plugin plugin.old && mv next plugin`)
}

func upgrade(t *testing.T) {
	before := running(t)
	newVersion(t, "second", "")
	follow(t, "An upgrade")
	for _, n := range []node{one, two} {
		if v := n.version(t); v != "(second)" {
			t.Errorf("%s has version %s", n, v)
		}
	}
	if after := running(t); !slices.Equal(before, after) {
		t.Errorf("the tasks were\n%v, and are\n%v", before, after)
	}
	talk(t, before)
}

// failedUpgrade: this version needs something that only node1 has. The nodes are drained, which ends the tasks that began
// under the version before.
func failedUpgrade(t *testing.T) {
	one.sh(t, "mkdir -p /srv/irq")
	newVersion(t, "third", `s,"/proc/irq","/srv/irq",`)
	const rollOut = "cd passthrough && scripts/swarm-rollout --drain --check '-o netdevice=enp1s0' "
	if plan := one.sh(t, rollOut+"--dry-run bin/plugin node1 node2"); !strings.Contains(plan, "node2: upgrade to third, from second") {
		t.Errorf("the dry run says\n%s", plan)
	}
	if v := one.version(t); v != "(second)" {
		t.Errorf("after a dry run node1 has %s", v)
	}
	out, err := one.try(rollOut + "bin/plugin node1 node2")
	if err == nil {
		t.Fatalf("it succeeded:\n%s", out)
	}
	for _, want := range []string{"/srv/irq", "done: node1\nfailed: node2, put back\nuntouched: none"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it says\n%v\nwithout %q", err, want)
		}
	}
	for n, want := range map[node]string{one: "(third)", two: "(second)"} {
		if v := n.version(t); v != want {
			t.Errorf("%s has version %s, want %s", n, v, want)
		}
	}
	if out := one.sh(t, "docker node ls --format '{{.Hostname}} {{.Availability}}'"); out != "node1 Active\nnode2 Active" {
		t.Errorf("the nodes are\n%s", out)
	}
	spread(t)
	talk(t, running(t))
}
