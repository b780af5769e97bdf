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
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// TestSwarm is the story of docs/swarm.md, whose commands it executes. Each part needs those before.
func TestSwarm(t *testing.T) {
	prepare(t)
	for _, part := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"two machines join", join},
		{"the plugin is rolled out", rollOut},
		{"tasks have VFs and addresses of one pool", service},
		{"a clock jumps", clock},
		{"a drained node gets everything back", drain},
		{"an upgrade leaves tasks alone", upgrade},
		{"a rollout that fails puts the node back", failedUpgrade},
		{"a node dies", powerCut},
		{"it comes back", rejoin},
		{"the swarm counts VFs", count},
	} {
		if !t.Run(part.name, part.run) {
			t.Log(one.try("docker service ps --no-trunc web"))
			for _, n := range []node{one, two} {
				t.Log(n.try("grep plugin= /var/log/dockerd.log | tail -n 40"))
			}
			t.Fatal("the other parts need this one")
		}
	}
}

// prepare puts on node1 what an operator has there: the repository with a bundle, and an etcd that both reach.
func prepare(t *testing.T) {
	one.reach(t)
	two.reach(t)
	etcd, err := etcdtest.Server()
	if err != nil {
		t.Fatal(err)
	}
	one.sh(t, "mkdir -p passthrough/scripts passthrough/bin")
	one.lab(t, "put", root+"bin/plugin", "passthrough/bin/")
	one.lab(t, "put", root+"scripts/swarm-rollout", "passthrough/scripts/")
	one.lab(t, "put", etcd, "etcd")
	one.sh(t, `setsid ./etcd --data-dir /root/etcd.data --listen-client-urls http://10.0.3.1:2379 --log-level error \
		--advertise-client-urls http://10.0.3.1:2379 >etcd.log 2>&1 </dev/null &`)
}

// follow executes the commands below a heading of the guide and returns what they wrote.
func follow(t *testing.T, heading string) (out []string) {
	t.Helper()
	for _, c := range docs.Commands(t, root+"docs/swarm.md", heading) {
		out = append(out, one.sh(t, "cd passthrough && "+c))
	}
	return out
}

func join(t *testing.T) {
	follow(t, "A swarm")
	Within(t, 30*time.Second, func() string {
		if out := one.sh(t, "docker node ls --format '{{.Hostname}} {{.Status}}'"); out != "node1 Ready\nnode2 Ready" {
			return "the nodes are\n" + out
		}
		return ""
	})
}

func service(t *testing.T) {
	follow(t, "A network")
	follow(t, "A service")
	all := running(t)
	for _, k := range all {
		if driver := k.exec(t, "ethtool -i eth0"); !strings.HasPrefix(driver, "driver: igbvf") {
			t.Errorf("%s has no VF: %s", k.name, driver)
		}
		vf := k.node.sh(t, "ip link show enp1s0 | grep -i 'link/ether "+k.mac+"'")
		if !strings.Contains(vf, "vf ") || !strings.Contains(vf, "vlan 100") {
			t.Errorf("%s has %s, which the NIC says is %s", k.name, k.mac, vf)
		}
	}
	talk(t, all)
	names := all[0].exec(t, "nslookup tasks.web")
	for _, k := range all {
		if !strings.Contains(names, k.address) {
			t.Errorf("tasks.web is not %s, of %s: %s", k.address, k.name, names)
		}
	}
}

// replicas is how many tasks the guide's service has.
const replicas = 3

// running waits until they are there, on two nodes, with an address each, and returns them.
func running(t *testing.T) (all []task) {
	t.Helper()
	Within(t, 2*time.Minute, func() string {
		all = tasks(t, one, two)
		if len(all) != replicas || all[0].node == all[replicas-1].node {
			return fmt.Sprintf("the tasks are %v", all)
		}
		return ""
	})
	apart(t, all)
	return all
}

// apart checks that no two tasks have one address.
func apart(t *testing.T, all []task) {
	t.Helper()
	has := map[string]task{}
	for _, k := range all {
		if other, ok := has[k.address]; ok {
			t.Errorf("%s and %s have %s", other.name, k.name, k.address)
		}
		has[k.address] = k
	}
}

// talk checks that the first task reaches each of the others, and the last the first.
func talk(t *testing.T, all []task) {
	t.Helper()
	ping := func(from, to task) {
		Within(t, 20*time.Second, func() string {
			if out, err := engines[from.node].Exec(from.id, "ping", "-c1", "-W1", to.address); err != nil {
				return fmt.Sprintf("%v does not reach %v: %s %v", from, to, out, err)
			}
			return ""
		})
	}
	for _, k := range all[1:] {
		ping(all[0], k)
	}
	ping(all[len(all)-1], all[0])
}

// clock: who has an address does not depend on what time it is on a node. One that is an hour and a half ahead starts and ends
// tasks as ever, and one whose clock was set right ends, when it is drained, those that it started before.
func clock(t *testing.T) {
	two.sh(t, "date -s @$(($(date +%s) + 5400))")
	spread(t)
	var want []string
	for _, k := range running(t) {
		want = append(want, k.address)
	}
	slices.Sort(want)
	Within(t, time.Minute, func() string {
		if got := leases(t); !slices.Equal(got, want) {
			return fmt.Sprintf("etcd says that %v are taken, the tasks have %v", got, want)
		}
		return ""
	})
	two.sh(t, "date -s @$(($(date +%s) - 5400))")
}

func drain(t *testing.T) {
	commands := docs.Commands(t, root+"docs/swarm.md", "Maintenance")
	one.sh(t, commands[0])
	Within(t, 3*time.Minute, func() string {
		if on1, on2, vfs := len(tasks(t, one)), len(tasks(t, two)), two.vfs(t); on1 != replicas || on2 != 0 || vfs != "0" {
			return fmt.Sprintf("%d tasks on node1, %d on node2, which has %s VFs; want %d, 0 and 0", on1, on2, vfs, replicas)
		}
		return ""
	})
	apart(t, tasks(t, one))
	var want []string
	for _, k := range tasks(t, one) {
		want = append(want, k.address)
	}
	slices.Sort(want)
	if got := leases(t); !slices.Equal(got, want) {
		t.Errorf("etcd says that %v are taken, the tasks have %v", got, want)
	}
	one.sh(t, commands[1])
	spread(t)
	running(t)
}

// spread starts the service's tasks again, on both nodes. An emulated processor may lose a timer, and then stands still for tens of
// seconds, in which a task fails and the update with it (seen with QEMU 10.0 and Linux 6.12): that is no fault of the plugin's.
func spread(t *testing.T) {
	t.Helper()
	const update = "docker service update --quiet --force --update-parallelism 0 web"
	before := one.stalls(t) + two.stalls(t)
	_, err := one.try(update)
	if err != nil && one.stalls(t)+two.stalls(t) != before {
		t.Logf("a processor of a guest stood still; once more: %v", err)
		_, err = one.try(update)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// leases are the addresses that etcd says containers have.
func leases(t *testing.T) []string {
	t.Helper()
	all := strings.Fields(one.sh(t, `rm -f records
		STORE=etcd://10.0.3.1:2379 STATE_DIR=/tmp passthrough/bin/plugin/rootfs/driver export records >/dev/null
		jq -r 'select(.key) | select((.value | @base64d | fromjson? | .kind) == "chosen") | .key | split("/")[-1]' records`))
	slices.Sort(all)
	return all
}

func powerCut(t *testing.T) {
	before := running(t)
	two.lab(t, "off")
	var lost []task
	for _, k := range before {
		if k.node == two {
			lost = append(lost, k)
		}
	}
	var now []task
	Within(t, 2*time.Minute, func() string {
		if now = tasks(t, one); len(now) != replicas {
			return fmt.Sprintf("%d tasks on node1, want %d", len(now), replicas)
		}
		return ""
	})
	apart(t, append(now, lost...)) // for all that is known, those still run
}

func rejoin(t *testing.T) {
	two.lab(t, "on")
	Within(t, time.Minute, func() string {
		return strings.ReplaceAll(one.sh(t, "docker node ls --format '{{.Status}}'"), "Ready\nReady", "")
	})
	if vfs := two.vfs(t); vfs != "0" {
		t.Errorf("node2 has %s VFs, and no task", vfs)
	}
	// The swarm removes what it made there before from everywhere but node2, which was away. It must not be in the way of what
	// is made now, with the same VLAN.
	one.sh(t, "docker service rm web")
	Within(t, time.Minute, func() string {
		if vfs := one.vfs(t); vfs != "0" {
			return "node1 has " + vfs + " VFs, and no task"
		}
		return ""
	})
	one.sh(t, "docker network rm fabric")
	network := docs.Commands(t, root+"docs/swarm.md", "A network")
	one.sh(t, network[len(network)-1])
	follow(t, "A service")
	talk(t, running(t))
}
