//go:build lab

package campaign

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

const (
	// reconcileTimeout is the timeout for ledger, kernel and engine to agree: one run of the reconciler, which is every minute, and
	// the time that the engine needs to restart containers.
	reconcileTimeout = 100 * time.Second
	// afterKill is the timeout after the plugin or the engine was killed during a call: an endpoint unknown to the engine is an
	// orphan only after a grace period of a minute.
	afterKill = 3 * time.Minute
	// orphanTimeout is the timeout for an endpoint whose deletion was lost: it is deleted when its device has been in the host for
	// five minutes.
	orphanTimeout = 8 * time.Minute
)

// settled waits until the guest has no violations, for at most bound, and keeps that view.
func (c *campaign) settled(bound time.Duration) error {
	return Await(bound, func() string {
		v, err := look()
		if err != nil {
			return err.Error()
		}
		problems := c.problems(v)
		if len(problems) == 0 {
			c.keep(v)
			return ""
		}
		return "\n  " + strings.Join(problems, "\n  ")
	})
}

// problems returns the differences between a view and the model.
func (c *campaign) problems(v *view) []string {
	problems := c.tolerated(c.facts(v).Violations(), v)
	for _, k := range c.containers(all) {
		problems = append(problems, c.container(v, k)...)
	}
	for _, seen := range v.Containers {
		if c.cons[seen.Name] == nil {
			problems = append(problems, "container "+seen.Name+": exists, but should not")
		}
	}
	return append(problems, duplicates(v)...)
}

// facts returns the states that must agree.
func (c *campaign) facts(v *view) invariant.Facts {
	e := *v.Engine
	e.Lost = c.lost(v)
	for nic := range c.raised {
		was := c.before.Devices[nic]
		was.Up = v.Host.Devices[nic].Up
		c.before.Devices[nic] = was
	}
	return invariant.Facts{Ledger: v.Ledger, Host: v.Host, Before: c.before, Engine: &e}
}

// lost returns networks that the ledger has and the engine has not, because the answer to their creation or removal was lost in a
// kill.
func (c *campaign) lost(v *view) (ids []string) {
	for id := range v.Ledger.Networks {
		if !slices.Contains(v.Engine.Networks, id) && (c.mayBeLost || c.lostNets[id]) {
			ids = append(ids, id)
		}
	}
	return ids
}

// The violations that are tolerated while the ledger may have records whose deletion was lost.
const (
	leakedAddress  = "is leased, and no endpoint of the engine has it"
	leakedEndpoint = "the ledger has it, the engine has not"
)

// tolerated returns the violations that lost calls do not explain. Lost calls explain up to c.leaks addresses, and endpoints until
// their deadline.
func (c *campaign) tolerated(violations []string, v *view) (left []string) {
	leaked := 0
	for _, text := range violations {
		key, what, _ := strings.Cut(strings.TrimPrefix(text, "endpoint "), ": ")
		switch {
		case strings.HasPrefix(text, "address ") && strings.HasSuffix(text, leakedAddress):
			if leaked++; leaked > c.leaks {
				left = append(left, text)
			}
		case strings.HasPrefix(text, "endpoint ") && what == leakedEndpoint && time.Now().Before(c.orphans[key]):
		default:
			left = append(left, text)
		}
	}
	v.leaked = leaked
	return left
}

// keep stores a view without violations. Leaks that are gone in it are no longer tolerated.
func (c *campaign) keep(v *view) {
	c.last, c.leaks = v, v.leaked
	for _, id := range c.lost(v) {
		c.lostNets[id] = true
	}
	c.mayBeLost = false
	maps.DeleteFunc(c.orphans, func(key string, _ time.Time) bool { _, ok := v.Ledger.Endpoints[key]; return !ok })
}

// container compares a container of the view with the model.
func (c *campaign) container(v *view, k *container) (problems []string) {
	add := func(format string, args ...any) {
		problems = append(problems, "container "+k.name+": "+fmt.Sprintf(format, args...))
	}
	seen := v.seen(k.name)
	switch {
	case seen == nil:
		add("does not exist")
		return problems
	case seen.Running != k.running:
		add("runs: %v, want %v", seen.Running, k.running)
		return problems
	case !k.running:
		return nil
	}
	on := slices.Sorted(maps.Keys(seen.Endpoints))
	if !slices.Equal(on, k.named()) {
		add("is on %v, want %v", on, k.named())
		return problems
	}
	if k.tampered {
		return problems
	}
	for _, name := range k.named() {
		at := seen.Endpoints[name]
		if fixed := k.nets[name]; fixed != "" && at.Address != fixed {
			add("has %s on %s, want %s", at.Address, name, fixed)
		}
		if why := inside(seen, at, v.Ledger); why != "" && c.nets[name] != nil && c.nets[name].id == at.Network {
			add("on %s: %s", name, why)
		}
	}
	return problems
}

// inside returns what is wrong with the device that a container has for an endpoint; "" for nothing.
func inside(seen *invariant.Container, at invariant.Attached, l *invariant.Ledger) string {
	i := slices.IndexFunc(seen.Links, func(l invariant.Link) bool { return slices.Contains(l.Addrs, at.Address) })
	if i < 0 {
		return fmt.Sprintf("no device has %s: %+v", at.Address, seen.Links)
	}
	link := seen.Links[i]
	allocation := l.Allocations[l.Endpoints[at.Network+"/"+at.Endpoint].Device]
	switch {
	case !link.Up:
		return link.Name + " is down"
	case at.MAC != "" && link.MAC != at.MAC && link.Kind != "ipvlan":
		return fmt.Sprintf("%s has mac %s, the engine says %s", link.Name, link.MAC, at.MAC)
	case link.PCI != "" && link.PCI != allocation.Device:
		return fmt.Sprintf("%s is %s, the ledger says %s", link.Name, link.PCI, allocation.Device)
	}
	return ""
}

// twice: no two containers have the same PCI device, nor the same address on one network.
func duplicates(v *view) (problems []string) {
	have := map[string]string{}
	claim := func(what, name string) {
		if other, ok := have[what]; ok {
			problems = append(problems, fmt.Sprintf("%s: containers %s and %s have it", what, other, name))
		}
		have[what] = name
	}
	for _, seen := range v.Containers {
		for _, link := range seen.Links {
			if link.PCI != "" {
				claim("device "+link.PCI, seen.Name)
			}
		}
		for _, at := range seen.Endpoints {
			if at.Address != "" {
				claim("address "+at.Address+" of network "+at.Network, seen.Name)
			}
		}
	}
	return problems
}

// talk has two containers of a network, chosen at random reach each other.
func (c *campaign) pingPair() error {
	var pairs [][2]*container
	var nets []string
	for _, n := range c.networks() {
		on := c.containers(func(k *container) bool { return healthy(k) && k.has(n.name) })
		if len(on) > 1 && n.mode != "" && n.name != "bond" {
			pairs, nets = append(pairs, [2]*container{on[0], on[len(on)-1]}), append(nets, n.name)
		}
	}
	if len(pairs) == 0 {
		return nil
	}
	i := c.rand.IntN(len(pairs))
	a, b := pairs[i][0], pairs[i][1]
	to := c.last.seen(b.name).Endpoints[nets[i]].Address
	// What a remembers may be the MAC of the VF that had the address before: engine 28.5 announces it as 0.0.0.0, and older ones
	// announce nothing (39 s were seen to pass). And a link that has just come up may not pass frames at once.
	line := fmt.Sprintf(`nsenter --net=/proc/%d/ns/net ip neigh flush all
for i in 1 2 3 4 5 6 7 8 9 10; do docker exec %s ping -c1 -W1 %s >/dev/null && exit; done; exit 1`,
		c.last.seen(a.name).PID, a.name, to)
	if _, err := try(line); err != nil {
		return errors.Join(fmt.Errorf("%s does not reach %s at %s on %s", a.name, b.name, to, nets[i]), err)
	}
	return nil
}
