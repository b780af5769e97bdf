//go:build lab

package campaign

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// operations returns all operations.
func operations() []operation {
	return slices.Concat(userOps, processOps, machineOps, hostOps, stateOps)
}

// create creates a network.
var create = operation{name: "network create", weight: 6, may: func(c *campaign) bool { return len(c.absent()) > 0 },
	do: func(c *campaign) error {
		p := random(c.rand, c.absent())
		c.describe("%s", p.name)
		return c.create(p)
	}}

// run starts a new container.
var run = operation{name: "run", weight: 14, may: (*campaign).canRun, do: func(c *campaign) error {
	k, args := c.newContainer()
	_, err := docker(args...)
	return c.started(k, err)
}}

// start starts a stopped container.
var start = operation{name: "start", weight: 6, may: func(c *campaign) bool { return len(c.containers(c.off)) > 0 },
	do: func(c *campaign) error {
		k := c.pick(c.off)
		_, err := docker("start", k.name)
		return c.started(k, err)
	}}

// userOps are the operations of users.
var userOps = []operation{
	create,
	{name: "network rm", weight: 2, may: func(c *campaign) bool { return len(c.idle()) > 0 },
		do: func(c *campaign) error {
			n := random(c.rand, c.idle())
			c.describe("%s", n.name)
			_, err := docker("network", "rm", n.name)
			if err == nil {
				delete(c.nets, n.name)
			}
			return err
		}},
	{name: "network rm, in use", weight: 1, may: func(c *campaign) bool { return len(c.containers(running)) > 0 },
		do: func(c *campaign) error {
			net := random(c.rand, random(c.rand, c.containers(running)).named())
			c.describe("%s", net)
			return refused("active endpoints", "network", "rm", net)
		}},
	{name: "network prune", weight: 1, may: func(c *campaign) bool { return len(c.idle()) > 0 && len(c.containers(stopped)) == 0 },
		do: func(c *campaign) error {
			_, err := docker("network", "prune", "-f")
			for _, n := range c.idle() {
				delete(c.nets, n.name)
			}
			return err
		}},
	run,
	{name: "stop", weight: 4, may: some(once), do: func(c *campaign) error { return c.ended(c.pick(once), "stop", "-t", "1") }},
	{name: "kill", weight: 3, may: some(once), do: func(c *campaign) error { return c.ended(c.pick(once), "kill") }},
	start,
	{name: "restart", weight: 4, may: some(running), do: func(c *campaign) error {
		k := c.pick(running)
		_, err := docker("restart", "-t", "1", k.name)
		k.tampered = false
		return err
	}},
	{name: "rm -f", weight: 5, may: some(all), do: func(c *campaign) error {
		return c.remove(c.pick(all))
	}},
	{name: "network connect", weight: 5, may: func(c *campaign) bool { return len(c.containers(c.connectable)) > 0 },
		do: func(c *campaign) error {
			return c.connect(c.pick(c.connectable))
		}},
	{name: "network disconnect", weight: 3, may: some(doubled), do: func(c *campaign) error {
		k := c.pick(doubled)
		net := random(c.rand, k.named())
		c.describe("%s", net)
		_, err := docker("network", "disconnect", net, k.name)
		if err == nil {
			delete(k.nets, net)
		}
		return err
	}},
	{name: "several at once", weight: 5, may: some(all), do: (*campaign).several},
}

// some is a condition: a container exists for which keep returns true.
func some(keep func(*container) bool) func(*campaign) bool {
	return func(c *campaign) bool { return len(c.containers(keep)) > 0 }
}

// once, stopped and doubled are further sets of containers.
func once(k *container) bool    { return k.running && !k.autoRestart() }
func stopped(k *container) bool { return !k.running }
func doubled(k *container) bool { return healthy(k) && len(k.nets) > 1 }

// pick returns a random container and adds it to the description.
func (c *campaign) pick(keep func(*container) bool) *container {
	k := random(c.rand, c.containers(keep))
	c.describe("%s", k.name)
	return k
}

// absent returns the plans of networks that do not exist.
func (c *campaign) absent() []plan {
	return slices.DeleteFunc(slices.Clone(plans), func(p plan) bool { return c.nets[p.name] != nil })
}

// idle returns the networks that no container is configured with.
func (c *campaign) idle() []*network {
	return slices.DeleteFunc(c.networks(), func(n *network) bool { return c.used(n.name) })
}

// others returns the networks that a container can be connected to.
func (c *campaign) others(k *container) []*network {
	return slices.DeleteFunc(c.networks(), func(n *network) bool { return k.has(n.name) || overlap(c, k, n) })
}

// overlap returns whether a container is on a network with the subnet of n: the engine refuses that.
func overlap(c *campaign, k *container, n *network) bool {
	return slices.ContainsFunc(k.named(), func(name string) bool { return c.nets[name] != nil && c.nets[name].subnet == n.subnet })
}

// connect connects a container to one more network. It may be refused only if no device is free.
func (c *campaign) connect(k *container) error {
	n := random(c.rand, c.others(k))
	c.describe("%s", n.name)
	_, err := docker("network", "connect", n.name, k.name)
	if err == nil {
		k.nets[n.name] = ""
	} else if c.room(n) < 1 {
		c.describe("(refused)")
		return unsay(n.name, k.name)
	}
	return err
}

// unsay has an engine forget a connection that was refused. It keeps it with the container's settings (20.10 to 29.8), and the container does not
// start again while the network is full; a container that runs cannot be disconnected from it.
func unsay(network, container string) error {
	for _, args := range [][]string{{"stop", "-t", "1", container}, {"network", "disconnect", network, container}, {"start", container}} {
		if _, err := docker(args...); err != nil {
			return err
		}
	}
	return nil
}

// connectable returns whether a container can be connected to one more network.
func (c *campaign) connectable(k *container) bool {
	return healthy(k) && len(k.nets) == 1 && len(c.others(k)) > 0
}

// sayReplace matches the advice in the error about a stale network.
var sayReplace = regexp.MustCompile(`say replace=([0-9A-Za-z_-]+)`)

// create creates a network. If a stale network is in the way, it follows the advice in the plugin's error.
func (c *campaign) create(p plan) error {
	args := append(append([]string{"network", "create"}, p.args...), "--ipam-driver", Plugin, "--subnet", p.subnet)
	id, err := docker(append(args, p.name)...)
	for range 3 {
		if err == nil {
			break
		}
		if late.MatchString(err.Error()) {
			c.describe("(late)")
			c.mayBeLost = true
			return nil
		}
		advice := sayReplace.FindStringSubmatch(err.Error())
		if advice == nil || !c.isLost(advice[1]) {
			return err
		}
		c.describe("-o replace=%s", advice[1])
		id, err = docker(append(args, "-o", "replace="+advice[1], p.name)...)
	}
	if err == nil {
		c.made(p, id)
	}
	return err
}

// late matches the errors of a call that takes longer than the engine waits, as the creation of VFs does on a busy machine. The plugin
// finishes it or undoes it.
var late = regexp.MustCompile(`is left to finish|context deadline exceeded`)

// isLost returns whether an ID, or the start of one, is that of a stale network.
func (c *campaign) isLost(id string) bool {
	for lost := range c.lostNets {
		if strings.HasPrefix(lost, id) {
			return true
		}
	}
	return false
}

// canRun returns whether another container may be created.
func (c *campaign) canRun() bool { return len(c.nets) > 0 && len(c.cons) < maxContainers }

// newContainer returns a random new container and the docker arguments that create it. It may be one that will be refused
// because no device is free.
func (c *campaign) newContainer() (*container, []string) {
	nets := slices.DeleteFunc(c.networks(), func(n *network) bool { return c.room(n) < 1 })
	if len(nets) == 0 || c.rand.IntN(8) == 0 {
		nets = c.networks()
	}
	n := random(c.rand, nets)
	k := &container{name: c.newName(), restart: random(c.rand, []string{"no", "always"}), nets: map[string]string{n.name: ""}}
	args := []string{"run", "-d", "--name", k.name, "--net", n.name, "--restart", k.restart}
	if c.rand.IntN(3) == 0 {
		k.nets[n.name] = c.wanted(n)
		args = append(args, "--ip", k.nets[n.name])
	}
	c.describe("%s", strings.Join(args[3:], " "))
	return k, append(args, "lab", "sleep", "1000000")
}

// started updates the model after the start of a container. It may be refused only if no device is free, or if the requested address is
// still leased to an endpoint whose deletion was lost.
func (c *campaign) started(k *container, err error) error {
	full := c.full(k) || err != nil && strings.Contains(err.Error(), "in use since") && c.unreleased(k)
	removed := c.note(k, err == nil)
	if err != nil && full {
		c.describe("(refused)")
		return removed
	}
	return errors.Join(err, removed)
}

// note updates whether a container runs. A container with restart policy "always" that does not run is removed: otherwise the
// engine would start it at its own start, and it could take the device of another container.
func (c *campaign) note(k *container, runs bool) error {
	c.cons[k.name] = k
	k.running, k.tampered = runs, false
	if runs || !k.autoRestart() {
		return nil
	}
	return c.remove(k)
}

// remove removes a container, and marks it as stopped for callers that still refer to it.
func (c *campaign) remove(k *container) error {
	_, err := docker("rm", "-f", k.name)
	if err == nil {
		delete(c.cons, k.name)
		k.running = false
	}
	return err
}

// ended stops a container by a docker command, or removes it if it would restart.
func (c *campaign) ended(k *container, verb ...string) error {
	if k.autoRestart() {
		c.describe("(rm)")
		return c.remove(k)
	}
	_, err := docker(append(verb, k.name)...)
	if err == nil {
		k.running, k.tampered = false, false
	}
	return err
}

// refused runs docker, which must fail with an error that contains text.
func refused(text string, args ...string) error {
	_, err := docker(args...)
	if err == nil {
		return fmt.Errorf("docker %s: succeeded, want: %s", strings.Join(args, " "), text)
	}
	if !strings.Contains(err.Error(), text) {
		return err
	}
	return nil
}

// several operates on up to four containers and starts a new one, all concurrently. Containers that are refused because no device is
// free are accepted: whether another one had the device at that moment is unknown.
func (c *campaign) several() error {
	type job struct {
		k    *container
		args []string
		err  error
	}
	var jobs []*job
	cons := c.containers(func(k *container) bool { return k.running || c.off(k) })
	c.rand.Shuffle(len(cons), func(i, j int) { cons[i], cons[j] = cons[j], cons[i] })
	for _, k := range cons[:min(len(cons), 4)] {
		verb := []string{"start"}
		if k.running {
			verb = c.verb(k)
		}
		jobs = append(jobs, &job{k: k, args: append(verb, k.name)})
		c.describe("%s %s;", verb[0], k.name)
	}
	if c.canRun() {
		k, args := c.newContainer()
		jobs = append(jobs, &job{k: k, args: args})
	}
	var wg sync.WaitGroup
	for _, j := range jobs {
		wg.Go(func() { _, j.err = docker(j.args...) })
	}
	wg.Wait()
	var errs []error
	for _, j := range jobs {
		switch verb := j.args[0]; {
		case verb == "rm" && j.err == nil:
			delete(c.cons, j.k.name)
		case verb == "stop" && j.err == nil:
			j.k.running, j.k.tampered = false, false
		case verb == "run", verb == "start", verb == "restart":
			errs = append(errs, c.note(j.k, j.err == nil))
			if j.err != nil && !inUse.MatchString(j.err.Error()) {
				errs = append(errs, j.err)
			}
		default:
			errs = append(errs, j.err)
		}
	}
	return errors.Join(errs...)
}

// verb returns a random docker command for a running container.
func (c *campaign) verb(k *container) []string {
	verbs := [][]string{{"restart", "-t", "0"}, {"rm", "-f"}, {"stop", "-t", "0"}}
	if k.autoRestart() {
		verbs = verbs[:2]
	}
	return random(c.rand, verbs)
}

// inUse matches the errors of a network without a free device or address.
var inUse = regexp.MustCompile(`in use|is held by|is on its way back`)
