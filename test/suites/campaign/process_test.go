//go:build lab

package campaign

import (
	"errors"
	"fmt"
	"strings"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// Command lines that kill, as kill -9 does.
const (
	killPlugin = "kill -9 $(pidof driver)"
	killEngine = "engine kill"
)

// processOps are what happens to processes.
var processOps = []operation{
	{name: "plugin killed", weight: 3, may: busy, do: func(*campaign) error { return command(killPlugin + "; " + answers) }},
	{name: "plugin killed at work", weight: 8, may: busy, bound: unheard,
		do: func(c *campaign) error { return c.atWork(killPlugin, answers) }},
	{name: "engine killed", weight: 2, may: busy, do: func(c *campaign) error {
		c.engineGone(c.live)
		return command(killEngine + " && engine start")
	}},
	{name: "engine killed at work", weight: 3, may: busy, bound: unheard, do: func(c *campaign) error {
		return c.atWork(killEngine, "engine start")
	}},
	{name: "engine restarted", weight: 1, may: busy, do: func(c *campaign) error {
		was := c.live
		if !was { // it ends its containers, and itself when its time is up, even if it has not told us of all of them
			for _, k := range c.containers(running) {
				c.forgets(k)
			}
		}
		c.live = c.rand.IntN(2) == 0
		option := ""
		if c.live {
			option = "--live-restore"
		}
		c.say("%s", option)
		c.engineGone(was && c.live)
		return errors.Join(command("engine stop && rm -f /run/dockerd.options && engine start "+option), c.unstartable())
	}},
	{name: "shim killed", weight: 2, may: some(running), do: func(c *campaign) error {
		k := c.pick(running)
		c.over(k)
		return command(fmt.Sprintf("kill -9 $(ps -o ppid= -p %d)", c.last.seen(k.name).PID))
	}},
	{name: "container died", weight: 2, may: some(running), do: func(c *campaign) error {
		k := c.pick(running)
		c.over(k)
		return command(fmt.Sprintf("kill -9 %d", c.last.seen(k.name).PID))
	}},
	{name: "plugin off and on", weight: 2, may: busy, do: func(*campaign) error {
		return command("docker plugin disable -f " + Plugin + " && docker plugin enable " + Plugin)
	}},
	{name: "container ended while the plugin is off", weight: 1, long: true, may: some(running), do: func(c *campaign) error {
		k := c.pick(running)
		c.forgets(k)
		return errors.Join(command("docker plugin disable -f "+Plugin), c.ended(k, "stop", "-t", "1"),
			command("docker plugin enable "+Plugin))
	}},
	{name: "plugin replaced, its state kept", weight: 1, may: busy, do: func(*campaign) error {
		return command(`set -e; old=` + state + `; docker plugin disable -f ` + Plugin + `; rm -rf /disk/kept; cp -a "$old" /disk/kept
docker plugin rm -f ` + Plugin + `; docker plugin create ` + Plugin + ` /disk/bundle; new=` + state + `
rm -rf "$new"; cp -a /disk/kept "$new"; docker plugin enable ` + Plugin)
	}},
	{name: "plugin upgraded", weight: 1, may: busy, do: func(*campaign) error { return command(upgrade) }},
}

// upgrade upgrades the plugin from a registry, to what differs from the version before in a file that nobody reads.
const upgrade = `set -e; ` + looker + ` registry & trap "kill $!" EXIT
now=$(date +%s%N); next=` + registryAt + `/passthrough:$now
cp -a /disk/bundle /disk/next; echo $now >/disk/next/rootfs/version
docker plugin create $next /disk/next; rm -r /disk/next; docker plugin push $next; docker plugin rm $next
docker plugin disable -f ` + Plugin + `
docker plugin upgrade --grant-all-permissions --skip-remote-check ` + Plugin + ` $next; docker plugin enable ` + Plugin

// busy is a condition: there is something that can suffer.
func busy(c *campaign) bool { return len(c.containers(running)) > 1 }

// room is a condition: there is, and there may be another container.
func room(c *campaign) bool { return busy(c) && c.canRun() }

// answers waits until the plugin answers again: the engine starts it anew a moment after it has died.
const answers = `n=0; until printf 'POST /Plugin.Activate HTTP/1.0\r\nContent-Length: 0\r\n\r\n' |
  nc -N -U -w 2 /run/docker/plugins/*/passthrough.sock 2>/dev/null | grep -q Implements; do
  [ $n -lt 300 ] || exit 1; n=$((n+1)); sleep 0.1; done`

// command runs a command line in the guest.
func command(line string) error {
	_, err := try(line)
	if err != nil {
		return fmt.Errorf("%s: %w", line, err)
	}
	return nil
}

// over takes note of a container whose process has died: the engine starts it again, or not.
func (c *campaign) over(k *container) {
	k.running, k.tampered = k.again(), false
}

// engineGone takes note of an engine that goes and comes back. What it does with containers depends on whether it leaves them
// running.
func (c *campaign) engineGone(leaves bool) {
	if leaves {
		return
	}
	for _, k := range c.containers(running) {
		c.over(k)
	}
}

// unstartable removes containers that an engine, when it was stopped, did not get round to ending, and has forgotten to have: it
// finds that they are there when it is to start them, and does not (seen with 28.5 on a machine that was busy).
func (c *campaign) unstartable() error {
	for _, k := range c.containers(running) {
		why, err := docker("inspect", "-f", "{{.State.Error}}", k.name)
		if err != nil {
			return err
		}
		if !strings.Contains(why, "AlreadyExists: task") {
			continue
		}
		c.say("(rm %s)", k.name)
		if err := c.remove(k); err != nil {
			return err
		}
	}
	return nil
}

// forgets takes note of what the plugin will not be told of the end of a container.
func (c *campaign) forgets(k *container) {
	for _, at := range c.last.seen(k.name).Endpoints {
		c.orphans[at.Network+"/"+at.Endpoint] = time.Now().Add(forgotten)
		c.leaks++
	}
}

// atWork has a user do something, kills in the middle of it, and mends what was killed. What came of it is up to the engine; of
// what the plugin and the engine did not hear of each other something may be left, for a time.
func (c *campaign) atWork(kill, mend string) error {
	for _, k := range c.containers(running) { // a stop that was not heard, of any of them: the engine may have died
		for _, at := range c.last.seen(k.name).Endpoints {
			c.orphans[at.Network+"/"+at.Endpoint] = time.Now().Add(forgotten)
		}
	}
	line, adopt := c.work()
	after := c.soon()
	c.say("after %d ms", after)
	c.leaks += 2 // an address for each of a container's networks
	c.mayBeLost = true
	_, err := try(fmt.Sprintf("(sleep %d.%03d; %s) & %s; wait; %s", after/1000, after%1000, kill, line, mend))
	if kill == killEngine {
		c.engineGone(c.live)
	}
	if err != nil {
		return fmt.Errorf("mend: %w", err)
	}
	return adopt()
}

// soon is a time in milliseconds at which something that a user does is likely to be under way: most of it is short.
func (c *campaign) soon() int {
	x := c.rand.Float64()
	return int(2500 * x * x)
}

// work is something that a user does: a command line, and what takes over from the engine what came of it.
func (c *campaign) work() (line string, adopt func() error) {
	var works []func() (string, func() error)
	if len(c.absent()) > 0 {
		works = append(works, func() (string, func() error) {
			p := random(c.rand, c.absent())
			c.say("network create %s", p.name)
			args := append(append([]string{"network", "create"}, p.args...), "--ipam-driver", Plugin, "--subnet", p.subnet, p.name)
			return quoted("docker", args...), func() error { return c.adoptNetwork(p) }
		})
	}
	if idle := c.idle(); len(idle) > 0 {
		works = append(works, func() (string, func() error) {
			n := random(c.rand, idle)
			c.say("network rm %s", n.name)
			return quoted("docker", "network", "rm", n.name), func() error { return c.adoptNetwork(n.plan) }
		})
	}
	if c.canRun() {
		works = append(works, func() (string, func() error) {
			k, args := c.planned()
			c.cons[k.name] = k
			return quoted("docker", args...), func() error { return c.adoptContainer(k) }
		})
	}
	if len(c.containers(running)) > 0 {
		works = append(works, func() (string, func() error) {
			k := c.pick(running)
			verb := c.verb(k)
			c.say("%s", verb[0])
			return quoted("docker", append(verb, k.name)...), func() error { return c.adoptContainer(k) }
		})
	}
	return random(c.rand, works)()
}

// adoptNetwork takes over from the engine whether a network is there.
func (c *campaign) adoptNetwork(p plan) error {
	out, err := docker("network", "ls", "--no-trunc", "-q", "-f", "name=^"+p.name+"$")
	if err != nil {
		return err
	}
	delete(c.nets, p.name)
	if id := strings.TrimSpace(out); id != "" {
		c.made(p, id)
	}
	return nil
}

// adoptContainer takes over from the engine whether a container is there and whether it runs, once it has made up its mind: it
// may be about to restart it, or to remove it.
func (c *campaign) adoptContainer(k *container) error {
	const still = `{{.State.Restarting}}{{.State.Dead}} {{.State.Running}}`
	line := `n=0; a=; b=-; until [ "$a" = "$b" ] || [ $n -gt 30 ]; do b=$a; sleep 1; n=$((n+1))
a=$(docker inspect -f '` + still + `' ` + k.name + ` 2>/dev/null || echo gone); case $a in *true*\ *) a=$n;; esac; done; echo "$a"`
	out, err := try(line)
	if err != nil {
		return err
	}
	switch {
	case strings.HasSuffix(out, "gone"):
		delete(c.cons, k.name)
		return nil
	case !strings.Contains(out, " "): // an engine that was killed while it removed a container leaves it dead, for users to remove
		return c.remove(k)
	}
	return c.note(k, strings.HasSuffix(out, " true"))
}
