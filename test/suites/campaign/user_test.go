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

// operations is the table of all operations.
func operations() []operation {
	return slices.Concat(userOps, processOps, machineOps, stateOps)
}

// create makes a network.
var create = operation{name: "network create", weight: 6, may: func(c *campaign) bool { return len(c.absent()) > 0 },
	do: func(c *campaign) error {
		p := random(c.rand, c.absent())
		c.say("%s", p.name)
		return c.create(p)
	}}

// run starts a new container.
var run = operation{name: "run", weight: 14, may: (*campaign).canRun, do: func(c *campaign) error {
	k, args := c.planned()
	_, err := docker(args...)
	return c.started(k, err)
}}

// start starts a container that has ended.
var start = operation{name: "start", weight: 6, may: func(c *campaign) bool { return len(c.containers(c.off)) > 0 },
	do: func(c *campaign) error {
		k := c.pick(c.off)
		_, err := docker("start", k.name)
		return c.started(k, err)
	}}

// userOps are what users do.
var userOps = []operation{
	create,
	{name: "network rm", weight: 2, may: func(c *campaign) bool { return len(c.idle()) > 0 },
		do: func(c *campaign) error {
			n := random(c.rand, c.idle())
			c.say("%s", n.name)
			_, err := docker("network", "rm", n.name)
			if err == nil {
				delete(c.nets, n.name)
			}
			return err
		}},
	{name: "network rm, in use", weight: 1, may: func(c *campaign) bool { return len(c.containers(running)) > 0 },
		do: func(c *campaign) error {
			net := random(c.rand, random(c.rand, c.containers(running)).named())
			c.say("%s", net)
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
			k := c.pick(c.connectable)
			n := random(c.rand, c.others(k))
			c.say("%s", n.name)
			_, err := docker("network", "connect", n.name, k.name)
			if err == nil {
				k.nets[n.name] = ""
			} else if c.room(n) < 1 {
				c.say("(refused)")
				return nil
			}
			return err
		}},
	{name: "network disconnect", weight: 3, may: some(doubled), do: func(c *campaign) error {
		k := c.pick(doubled)
		net := random(c.rand, k.named())
		c.say("%s", net)
		_, err := docker("network", "disconnect", net, k.name)
		if err == nil {
			delete(k.nets, net)
		}
		return err
	}},
	{name: "several at once", weight: 5, may: some(all), do: (*campaign).several},
}

// some is a condition: there is such a container.
func some(keep func(*container) bool) func(*campaign) bool {
	return func(c *campaign) bool { return len(c.containers(keep)) > 0 }
}

// once, stopped and doubled are further sets of containers.
func once(k *container) bool    { return k.running && !k.again() }
func stopped(k *container) bool { return !k.running }
func doubled(k *container) bool { return healthy(k) && len(k.nets) > 1 }

// pick draws a container, and says so.
func (c *campaign) pick(keep func(*container) bool) *container {
	k := random(c.rand, c.containers(keep))
	c.say("%s", k.name)
	return k
}

// absent are the networks that can be made.
func (c *campaign) absent() []plan {
	return slices.DeleteFunc(slices.Clone(plans), func(p plan) bool { return c.nets[p.name] != nil })
}

// idle are the networks that no container refers to.
func (c *campaign) idle() []*network {
	return slices.DeleteFunc(c.networks(), func(n *network) bool { return c.used(n.name) })
}

// others are the networks that a container is not on.
func (c *campaign) others(k *container) []*network {
	return slices.DeleteFunc(c.networks(), func(n *network) bool { return k.has(n.name) || overlap(c, k, n) })
}

// overlap tells whether a container is on a network with the subnet of n: the engine refuses that.
func overlap(c *campaign, k *container, n *network) bool {
	return slices.ContainsFunc(k.named(), func(name string) bool { return c.nets[name] != nil && c.nets[name].subnet == n.subnet })
}

// connectable tells whether a container can be connected to one more network.
func (c *campaign) connectable(k *container) bool {
	return healthy(k) && len(k.nets) == 1 && len(c.others(k)) > 0
}

// sayReplace is in the error about a network that a crash has left.
var sayReplace = regexp.MustCompile(`say replace=([0-9A-Za-z_-]+)`)

// create makes a network, and takes the advice that the plugin gives when one that was lost is in the way.
func (c *campaign) create(p plan) error {
	args := append(append([]string{"network", "create"}, p.args...), "--ipam-driver", Plugin, "--subnet", p.subnet)
	id, err := docker(append(args, p.name)...)
	for range 3 {
		if err == nil {
			break
		}
		advice := sayReplace.FindStringSubmatch(err.Error())
		if advice == nil || !c.isLost(advice[1]) {
			return err
		}
		c.say("-o replace=%s", advice[1])
		id, err = docker(append(args, "-o", "replace="+advice[1], p.name)...)
	}
	if err == nil {
		c.made(p, id)
	}
	return err
}

// isLost tells whether a network is one that the engine has lost.
func (c *campaign) isLost(id string) bool {
	for lost := range c.lostNets {
		if strings.HasPrefix(lost, id) {
			return true
		}
	}
	return false
}

// canRun tells whether there may be another container.
func (c *campaign) canRun() bool { return len(c.nets) > 0 && len(c.cons) < most }

// planned is a new container, chosen at random and the arguments of docker that make it. Now and then it is one that will be refused,
// for want of devices.
func (c *campaign) planned() (*container, []string) {
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
	c.say("%s", strings.Join(args[3:], " "))
	return k, append(args, "lab", "sleep", "1000000")
}

// started takes note of a container that was to be started. It may be refused only when there is nothing left to give, or when the
// address that its user wants is still leased to one whose end the plugin was not told of.
func (c *campaign) started(k *container, err error) error {
	full := c.full(k) || err != nil && strings.Contains(err.Error(), "in use since") && c.unreleased(k)
	removed := c.note(k, err == nil)
	if err != nil && full {
		c.say("(refused)")
		return removed
	}
	return errors.Join(err, removed)
}

// note takes note of whether a container runs. One that the engine would start with all others when it is started itself always
// runs, or is removed: so that it never takes what others had.
func (c *campaign) note(k *container, runs bool) error {
	c.cons[k.name] = k
	k.running, k.tampered = runs, false
	if runs || !k.again() {
		return nil
	}
	return c.remove(k)
}

// remove removes a container. Who still holds it sees that it does not run.
func (c *campaign) remove(k *container) error {
	_, err := docker("rm", "-f", k.name)
	if err == nil {
		delete(c.cons, k.name)
		k.running = false
	}
	return err
}

// ended ends a container with a verb of docker's, or for good.
func (c *campaign) ended(k *container, verb ...string) error {
	if k.again() {
		c.say("(rm)")
		return c.remove(k)
	}
	_, err := docker(append(verb, k.name)...)
	if err == nil {
		k.running, k.tampered = false, false
	}
	return err
}

// refused runs docker, which must fail with an error that has a text in it.
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

// several does something to up to four containers, and starts one, all at the same time. What is refused for want of devices is
// so only if others had them at some time meanwhile, which nobody can tell.
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
		c.say("%s %s;", verb[0], k.name)
	}
	if c.canRun() {
		k, args := c.planned()
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

// verb draws what is done to a container that runs.
func (c *campaign) verb(k *container) []string {
	verbs := [][]string{{"restart", "-t", "0"}, {"rm", "-f"}, {"stop", "-t", "0"}}
	if k.again() {
		verbs = verbs[:2]
	}
	return random(c.rand, verbs)
}

// inUse is the error of a network that has nothing left to give.
var inUse = regexp.MustCompile(`in use|is held by|is on its way back`)
