//go:build lab

package campaign

import (
	"errors"
	"fmt"
	"strings"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// Command lines that kill by SIGKILL.
const (
	killPlugin = "kill -9 $(pidof driver)"
	killEngine = "engine kill"
)

// processOps are the operations on processes.
var processOps = []operation{
	{name: "plugin killed", weight: 3, may: busy, do: func(*campaign) error { return command(killPlugin + "; " + answers) }},
	{name: "plugin killed at work", weight: 8, may: busy, bound: afterKill,
		do: func(c *campaign) error { return c.atWork(killPlugin, answers) }},
	{name: "engine killed", weight: 2, may: busy, do: func(c *campaign) error {
		c.noteEngineGone(c.live)
		return command(killEngine + " && engine start")
	}},
	{name: "engine killed at work", weight: 3, may: busy, bound: afterKill, do: func(c *campaign) error {
		return c.atWork(killEngine, "engine start")
	}},
	{name: "engine restarted", weight: 1, may: busy, do: func(c *campaign) error {
		was := c.live
		if !was { // it stops its containers, and may exit at its timeout before it has told the plugin about all
			for _, k := range c.containers(running) {
				c.noteLostEnd(k)
			}
		}
		c.live = c.rand.IntN(2) == 0
		option := ""
		if c.live {
			option = "--live-restore"
		}
		c.describe("%s", option)
		c.noteEngineGone(was && c.live)
		return errors.Join(command("engine stop && rm -f /run/dockerd.options && engine start "+option), c.removeUnstartable())
	}},
	{name: "shim killed", weight: 2, may: some(running), do: func(c *campaign) error {
		k := c.pick(running)
		c.noteDied(k)
		return command(fmt.Sprintf("kill -9 $(ps -o ppid= -p %d)", c.last.seen(k.name).PID))
	}},
	{name: "container died", weight: 2, may: some(running), do: func(c *campaign) error {
		k := c.pick(running)
		c.noteDied(k)
		return command(fmt.Sprintf("kill -9 %d", c.last.seen(k.name).PID))
	}},
	{name: "plugin off and on", weight: 2, may: busy, do: func(*campaign) error {
		return command("docker plugin disable -f " + Plugin + " && docker plugin enable " + Plugin)
	}},
	{name: "container ended while the plugin is off", weight: 1, long: true, may: some(running), do: func(c *campaign) error {
		k := c.pick(running)
		c.noteLostEnd(k)
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

// upgrade upgrades the plugin from a registry to a version that differs only in an unused file.
const upgrade = `set -e; ` + looker + ` registry & trap "kill $!" EXIT
now=$(date +%s%N); next=` + registryAt + `/passthrough:$now
cp -a /disk/bundle /disk/next; echo $now >/disk/next/rootfs/version
docker plugin create $next /disk/next; rm -r /disk/next; docker plugin push $next; docker plugin rm $next
docker plugin disable -f ` + Plugin + `
docker plugin upgrade --grant-all-permissions --skip-remote-check ` + Plugin + ` $next; docker plugin enable ` + Plugin

// busy is a condition: at least two containers run.
func busy(c *campaign) bool { return len(c.containers(running)) > 1 }

// room is a condition: busy, and another container may be created.
func room(c *campaign) bool { return busy(c) && c.canRun() }

// answers waits until the plugin answers again: the engine restarts it shortly after its death.
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

// noteDied updates the model after the death of a container's process. The engine restarts it according to its restart policy.
func (c *campaign) noteDied(k *container) {
	k.running, k.tampered = k.autoRestart(), false
}

// noteEngineGone updates the model after a restart of the engine. Without live-restore (leaves is false) all containers have
// stopped.
func (c *campaign) noteEngineGone(leaves bool) {
	if leaves {
		return
	}
	for _, k := range c.containers(running) {
		c.noteDied(k)
	}
}

// removeUnstartable removes containers that the engine did not stop before its own exit and does not list as running afterwards. It
// cannot start them, because their task still exists in containerd (seen with 28.5 on a busy machine).
func (c *campaign) removeUnstartable() error {
	for _, k := range c.containers(running) {
		why, err := docker("inspect", "-f", "{{.State.Error}}", k.name)
		if err != nil {
			return err
		}
		if !strings.Contains(why, "AlreadyExists: task") {
			continue
		}
		c.describe("(rm %s)", k.name)
		if err := c.remove(k); err != nil {
			return err
		}
	}
	return nil
}

// noteLostEnd records that the engine will not tell the plugin about the end of a container.
func (c *campaign) noteLostEnd(k *container) {
	for _, at := range c.last.seen(k.name).Endpoints {
		c.orphans[at.Network+"/"+at.Endpoint] = time.Now().Add(orphanTimeout)
		c.leaks++
	}
}

// atWork runs a random command of a user, kills a process during it, and restarts that process. The result is read from the engine.
// Calls that were lost may leave orphans for a time.
func (c *campaign) atWork(kill, restart string) error {
	for _, k := range c.containers(running) { // the engine may have died before it told the plugin about the end of any of them
		for _, at := range c.last.seen(k.name).Endpoints {
			c.orphans[at.Network+"/"+at.Endpoint] = time.Now().Add(orphanTimeout)
		}
	}
	line, readResult := c.userCommand()
	delay := c.randomDelay()
	c.describe("after %d ms", delay)
	c.leaks += 2 // one address per network of a container
	c.mayBeLost = true
	_, err := try(fmt.Sprintf("(sleep %d.%03d; %s) & %s; wait; %s", delay/1000, delay%1000, kill, line, restart))
	if kill == killEngine {
		c.noteEngineGone(c.live)
	}
	if err != nil {
		return fmt.Errorf("restart what was killed: %w", err)
	}
	return readResult()
}

// randomDelay returns a delay in milliseconds, mostly short, after which a user's command is likely to be in progress.
func (c *campaign) randomDelay() int {
	x := c.rand.Float64()
	return int(2500 * x * x)
}

// userCommand returns a random command line of a user, and a function that reads its result from the engine.
func (c *campaign) userCommand() (line string, readResult func() error) {
	var commands []func() (string, func() error)
	if len(c.absent()) > 0 {
		commands = append(commands, func() (string, func() error) {
			p := random(c.rand, c.absent())
			c.describe("network create %s", p.name)
			args := append(append([]string{"network", "create"}, p.args...), "--ipam-driver", Plugin, "--subnet", p.subnet, p.name)
			return quoted("docker", args...), func() error { return c.readNetwork(p) }
		})
	}
	if idle := c.idle(); len(idle) > 0 {
		commands = append(commands, func() (string, func() error) {
			n := random(c.rand, idle)
			c.describe("network rm %s", n.name)
			return quoted("docker", "network", "rm", n.name), func() error { return c.readNetwork(n.plan) }
		})
	}
	if c.canRun() {
		commands = append(commands, func() (string, func() error) {
			k, args := c.newContainer()
			c.cons[k.name] = k
			return quoted("docker", args...), func() error { return c.readContainer(k) }
		})
	}
	if len(c.containers(running)) > 0 {
		commands = append(commands, func() (string, func() error) {
			k := c.pick(running)
			verb := c.verb(k)
			c.describe("%s", verb[0])
			return quoted("docker", append(verb, k.name)...), func() error { return c.readContainer(k) }
		})
	}
	return random(c.rand, commands)()
}

// readNetwork updates the model: whether the engine has a network.
func (c *campaign) readNetwork(p plan) error {
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

// readContainer updates the model: whether the engine has a container and whether it runs. It waits for a stable state: the engine
// may restart or remove it.
func (c *campaign) readContainer(k *container) error {
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
	case !strings.Contains(out, " "): // an engine that was killed while it removed a container leaves it in state dead
		return c.remove(k)
	}
	return c.note(k, strings.HasSuffix(out, " true"))
}
